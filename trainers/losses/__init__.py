"""Losses besides the label loss, each with its own setting and off by default."""
