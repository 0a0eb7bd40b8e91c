"""A page that runs a bundle in the visitor's browser: what is shown to it never leaves it."""
