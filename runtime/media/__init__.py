"""Pictures, videos and cameras: files and bytes from people one does not know, turned into uint8 RGB.

``pictures`` reads one picture with OpenCV; ``clips`` the frames of a video, an animation, a folder, several pictures
or a camera. ``video`` and ``decoder`` go through a video with PyAV, ``animations`` through animated pictures,
``cameras`` through what a camera gives. ``headers``, ``containers`` and ``mp4`` look at bytes before a decoder does.
"""
