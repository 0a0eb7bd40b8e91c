"""A real portrait that every installation has."""

from __future__ import annotations

from pathlib import Path

from runtime.errors import MissingExtraError
from runtime.media.pictures import RGBImage, read_image


def portrait() -> RGBImage:
    """A public-domain portrait that every installation has: Grace Hopper, shipped by matplotlib, (600, 512, 3).

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("matplotlib", "train") from None
    return read_image(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
