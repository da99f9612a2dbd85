"""Reading of Content Credentials (C2PA), in a process of its own."""
