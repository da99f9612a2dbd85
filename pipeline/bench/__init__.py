"""The pipeline's speed: each stage alone, the whole, and the bound that the stages set for it."""
