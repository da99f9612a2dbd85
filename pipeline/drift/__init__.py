"""Whether what arrives has moved away from what the weights were calibrated on."""
