"""Characters, one after the other."""
