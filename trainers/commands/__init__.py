"""Sub-commands of `unmask` for training and evaluating detectors; found through entry points."""
