"""Evidence packs: one zip with everything that a verdict rests on, hashed, signed, and checked without the service."""
