"""Evaluation of detectors: metrics with intervals, slices, robustness, and the report of `unmask evaluate`."""
