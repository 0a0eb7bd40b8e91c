"""Public weights: which package holds them, how it is checked, and how they load into the networks."""
