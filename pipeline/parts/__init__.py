"""Long videos in parts: a part's result, its storage, and joining parts into one verdict."""
