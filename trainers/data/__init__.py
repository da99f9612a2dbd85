"""What a detector is trained on: manifests, the images behind them, and the order in which they come."""
