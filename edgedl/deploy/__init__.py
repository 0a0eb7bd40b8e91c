"""To other machines: a page that runs a bundle in the visitor's browser."""
