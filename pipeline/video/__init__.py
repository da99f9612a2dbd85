"""From a hostile file to upright RGB frames: sampling, reader, sandboxed decode children."""
