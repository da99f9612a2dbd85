"""From crops to logits: one engine per device, micro-batches, backends."""
