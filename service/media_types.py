"""Which kinds of files a bundle's route takes, and what a file really is."""

from __future__ import annotations

from runtime.media.containers import container
from runtime.media.headers import PICTURE_TYPES

VIDEO_TYPES = ("video/*",)
WRAPPED_TYPES = ("multipart/form-data", "application/json")

# These are not registered, but so often written that refusing them helps nobody.
_ALSO_WRITTEN = frozenset(("image/jpg", "image/pjpeg", "image/apng", "image/x-ms-bmp"))


def raw_types(*, clips: bool) -> tuple[str, ...]:
    """The media types that a route takes as a raw body; one whose bundle takes clips takes videos, too."""
    return (*PICTURE_TYPES, *VIDEO_TYPES) if clips else PICTURE_TYPES


def is_taken(kind: str, *, clips: bool) -> bool:
    """Whether a route takes a body of this content type."""
    wrapped = kind in WRAPPED_TYPES
    return wrapped or kind in PICTURE_TYPES or kind in _ALSO_WRITTEN or (clips and kind.startswith("video/"))


def is_video(data: bytes) -> bool:
    """Whether the first bytes show a video that is read here."""
    return container(data) is not None
