"""How fast the line is: each stage alone, the whole, and the bound that the stages set for it."""
