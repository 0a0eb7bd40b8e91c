"""Age: DEX, deep expectation."""
