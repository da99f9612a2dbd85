"""Long videos in parts: what a part gave, where it is kept, and how parts become one verdict."""
