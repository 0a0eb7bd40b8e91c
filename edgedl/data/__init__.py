"""Data formats and generators, numpy only: a device that evaluates a bundle needs them, and it has no torch.

``samples`` holds the record that all formats share, ``sources`` reads a folder or a zip in place, ``splits`` decides
what is validation, ``formats`` recognises a data set from its contents.
"""
