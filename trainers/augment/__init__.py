"""Pseudo-fakes, and degradations as in real-life video."""
