"""What the tests of the data formats share."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

Layout = Callable[..., Path]


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A small PNG whose left half is red and right half is blue (RGB)."""
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :3, 2] = 255  # OpenCV's order is BGR
    pixels[:, 3:, 0] = 255
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture(params=["folder", "zip"])
def layout(request: pytest.FixtureRequest, tmp_path: Path, picture: bytes) -> Layout:
    """Writes files as a folder and, in a second run of the test, as a zip: layout(names, {name: bytes}) -> path."""

    def write(pictures: Iterable[str] = (), others: dict[str, bytes] | None = None, root: str = "set") -> Path:
        files = dict.fromkeys(pictures, picture) | (others or {})
        if request.param == "zip":
            path = tmp_path / f"{root}.zip"
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
            return path
        for name, content in files.items():
            file = tmp_path / root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return tmp_path / root

    return write
