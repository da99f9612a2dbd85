"""Measurements against other pipelines."""
