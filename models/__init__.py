"""What a detector is: architectures, layers, input spec, checkpoint format, weight zoo."""
