"""Live streams: segments in the order in which they come, one running verdict a stream."""
