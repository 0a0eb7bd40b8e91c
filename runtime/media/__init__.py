"""Pictures, videos and cameras: files and bytes from people one does not know, turned into uint8 RGB.

``pictures`` reads one picture, ``clips`` the frames of a video, a folder, several pictures or a camera. ``headers`` and
``containers`` look at first bytes, before a decoder sees any.
"""
