"""Plots. Every function returns a matplotlib figure and draws without a display and without global state."""
