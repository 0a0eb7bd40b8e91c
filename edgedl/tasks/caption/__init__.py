"""Captions of photos and clips."""
