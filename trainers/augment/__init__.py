"""Pseudo-fakes, and the degradations of real-life video."""
