"""Training data: manifests, the images behind them, and the order in which they are drawn."""
