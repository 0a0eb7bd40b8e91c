"""Which kinds of files a bundle's route takes, and what a file really is."""

from __future__ import annotations

from runtime.media.containers import container

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "application/x-npy")
VIDEO_TYPES = ("video/*",)
WRAPPED_TYPES = ("multipart/form-data", "application/json")

# "image/jpg" is not registered, but so often written that refusing it helps nobody.
_RAW_IMAGE_TYPES = frozenset((*IMAGE_TYPES, "image/jpg"))


def raw_types(*, clips: bool) -> tuple[str, ...]:
    """The media types that a route takes as a raw body; one whose bundle takes clips takes videos, too."""
    return (*IMAGE_TYPES, *VIDEO_TYPES) if clips else IMAGE_TYPES


def is_taken(kind: str, *, clips: bool) -> bool:
    """Whether a route takes a body of this content type."""
    return kind in _RAW_IMAGE_TYPES or kind in WRAPPED_TYPES or (clips and kind.startswith("video/"))


def image_type(data: bytes) -> str | None:
    """The media type that the first bytes show, or None. Decoders for anything else are never reached."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data.startswith(b"\x93NUMPY"):
        return "application/x-npy"
    return None


def is_video(data: bytes) -> bool:
    """Whether the first bytes show a video that is read here."""
    return container(data) is not None
