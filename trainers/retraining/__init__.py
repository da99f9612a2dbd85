"""From decisions to better weights: fine-tune the active ones, compare, gate, promote."""
