"""The vanishing gradient."""
