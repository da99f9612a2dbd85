"""Prints of clips: the same pictures are found again after another encoding."""
