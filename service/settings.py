"""What a service accepts."""

from __future__ import annotations

from dataclasses import dataclass

from service.keys import Keys


@dataclass(frozen=True, slots=True)
class Settings:
    """What a service accepts.

    Attributes:
        max_bytes: Largest request body, in bytes.
        max_pixels: Most pixels of an image (width times height) that are decoded; known from its header before.
        max_images: Most images in one request.
        video_seconds: Longest time that decoding one video may take.
        body_seconds: Longest time that a request body may take to arrive; a slow sender must not hold a thread.
        cors_origins: Origins of other sites whose pages may call the service; none by default.
        keys: Of which a request has to show one; None asks for none.
    """

    max_bytes: int
    max_pixels: int
    max_images: int
    video_seconds: float
    body_seconds: float
    cors_origins: tuple[str, ...]
    keys: Keys | None = None
