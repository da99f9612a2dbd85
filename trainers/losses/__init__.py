"""What a detector learns from a batch beside its labels, each part with its own setting and off by default."""
