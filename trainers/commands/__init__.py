"""Sub-commands of `unmask` for making detectors; found through entry points."""
