"""What happens to a video: read, find faces, score, aggregate, publish."""
