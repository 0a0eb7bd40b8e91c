"""Prediction over millions of files: on the cores of this machine, or on a Ray cluster."""
