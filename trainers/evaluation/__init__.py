"""How good a detector is: metrics with intervals, slices, robustness, and the report of `unmask evaluate`."""
