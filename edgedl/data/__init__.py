"""Data formats and generators, numpy only."""
