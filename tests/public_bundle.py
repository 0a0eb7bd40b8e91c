"""The bundle of the public weights, as `edgedl pull age` makes it: once per machine and version of the code."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

NEEDED = ("torch", "onnx", "onnxscript", "tflite", "matplotlib", "cv2", "onnxruntime")


def public_age_bundle() -> Path:
    """Its path in the cache; the test is skipped where the weights, or what is needed to export them, cannot be had."""
    for package in NEEDED:
        pytest.importorskip(package, reason=f"the public age bundle is made with {package}")
    import torch

    from edgedl.tasks.age.public import public_bundle
    from edgedl.weights.fetch import WeightsError, cache_folder

    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    # One process makes it and the others wait: it costs most of a minute of a core.
    with (folder / "tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        torch.set_num_threads(1)
        try:
            return Path(public_bundle().path)
        except WeightsError as error:
            pytest.skip(str(error))
        finally:
            torch.set_num_threads(threads)
