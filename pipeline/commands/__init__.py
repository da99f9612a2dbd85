"""The sub-commands of `unmask`, one light module each: heavy imports stay inside the functions."""
