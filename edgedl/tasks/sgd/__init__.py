"""Descent on a cost, step by step."""
