"""onnxruntime.quantization, imported once the telemetry of onnxruntime is off."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
from collections.abc import Iterator
from typing import Any

from runtime.devices import onnxruntime


def quantization() -> Any:
    """The package.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    onnxruntime()
    return importlib.import_module("onnxruntime.quantization")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """It prints and logs what a user can do nothing about."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(before)
