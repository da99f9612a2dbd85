"""From frame logits to a typed, calibrated verdict."""
