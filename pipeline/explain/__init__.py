"""What the score of one face depends on: a map, and whether it holds."""
