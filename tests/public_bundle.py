"""The bundle of the public weights, made once per machine and kept in the cache until the code that makes it changes."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("torch", "onnx", "onnxscript", "tflite", "matplotlib", "cv2", "onnxruntime")
SOURCES = ("edgedl/nn", "edgedl/weights", "edgedl/tasks/age.py", "edgedl/tasks/age_bundle.py", "exporters")
KEPT = 3


def public_age_bundle() -> Path:
    """The bundle's path; the test is skipped where the weights or what is needed to export them cannot be had."""
    for package in NEEDED:
        pytest.importorskip(package, reason=f"the public age bundle is made with {package}")
    from edgedl.weights.fetch import WeightsError, cache_folder
    from runtime.bundle import Bundle
    from runtime.errors import BundleError

    folder = cache_folder() / "tests"
    path = folder / f"age-{_digest()}.edge"
    folder.mkdir(parents=True, exist_ok=True)
    # One process makes it and the others wait: it costs most of a minute of a core.
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            Bundle.open(path)
        except BundleError:
            shutil.rmtree(path, ignore_errors=True)
            try:
                _make(path)
            except WeightsError as error:
                pytest.skip(str(error))
            _forget_old(folder)
    return path


def _make(path: Path) -> None:
    import torch

    from edgedl.tasks.age import TASK

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            Path(TASK.pull(Path(folder) / path.name).path).rename(path)
    finally:
        torch.set_num_threads(threads)


def _digest() -> str:
    """Of all code that the bundle depends on: a stale one would prove nothing about the code as it is."""
    digest = hashlib.sha256()
    for source in SOURCES:
        place = ROOT / source
        for file in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            digest.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _forget_old(folder: Path) -> None:
    bundles = sorted(folder.glob("age-*.edge"), key=lambda path: path.stat().st_mtime)
    for path in bundles[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)
