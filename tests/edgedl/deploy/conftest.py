"""Pages of the frozen bundles, and a browser with a camera that films a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from runtime.bundle import Bundle
from tests.frozen_bundles import unpack


def filmed() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """What the camera sees, RGB (48, 64, 3)."""
    rows, columns = np.mgrid[:48, :64]
    return np.stack([4 * columns, 5 * rows, 255 - 4 * columns], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Bundle, Path]]:
    """A frozen bundle by its name, and the folder of its page; skips where npm cannot fetch ONNX Runtime Web."""
    from edgedl.deploy.web.build import build_page
    from exporters.targets.base import TargetError

    @cache
    def made(name: str) -> tuple[Bundle, Path]:
        folder = tmp_path_factory.mktemp("page")
        bundle = unpack(name, folder)
        try:
            build_page(bundle, folder / "site")
        except TargetError as error:
            pytest.skip(str(error))
        return bundle, folder / "site"

    return made


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium whose camera shows `filmed`."""
    from tests.service.browser import start_browser

    folder = tmp_path_factory.mktemp("chromium")
    planes = cv2.cvtColor(filmed(), cv2.COLOR_RGB2YUV_I420).tobytes()
    film = folder / "film.y4m"
    film.write_bytes(b"YUV4MPEG2 W64 H48 F30:1 Ip A1:1 C420\n" + 3 * (b"FRAME\n" + planes))
    driver = start_browser(folder, f"--use-file-for-fake-video-capture={film}")
    yield driver
    driver.quit()
