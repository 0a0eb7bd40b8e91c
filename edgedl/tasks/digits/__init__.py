"""Handwritten digits: soft-max, CNN, deep belief network."""
