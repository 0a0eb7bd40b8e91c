"""The public age bundle, proven once per version of the code and kept in the user's cache.

`edgedl pull age` copies it, training cuts its faces with it, and every other age bundle takes its detector from it: the
proof of a detector of 89 convolutions costs half a minute, and it is the same proof each time.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path

import edgedl
import exporters
from edgedl._version import __version__
from edgedl.nn.detector import FaceDetector
from edgedl.tasks.age_bundle import FACES_OUTPUTS, IMAGE_INPUT, age_bundle, dlib_crop, photo_cases
from edgedl.weights.age_resnet10 import SIZE, load_age_resnet10
from edgedl.weights.blazeface import load_blazeface
from edgedl.weights.catalogue import AGE_RESNET10, BLAZEFACE_FULL_RANGE
from edgedl.weights.fetch import cache_folder
from exporters.assemble import reuse
from exporters.export import ExportedModel, export_model
from runtime.bundle import Bundle, write_bundle
from runtime.errors import BundleError

log = logging.getLogger(__name__)

DECIDING_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
DECIDING_CODE = ("nn", "weights", "tasks/age_bundle.py", "tasks/age_public.py", "data/synthetic_faces.py")


def public_bundle() -> Bundle:
    """The public age network behind the public detector.

    Raises:
        WeightsError: the weights cannot be had.
        ExportError: the gate said no.
    """
    path = cache_folder() / "bundles" / f"age-{_code_digest()}.edge"
    if path.exists():
        try:
            return Bundle.open(path)
        except BundleError as error:
            log.warning("the cached bundle %s is damaged (%s) and is made again", path, error)
            shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = _make(Path(folder) / path.name)
        try:
            Path(made.path).rename(path)
        except OSError:
            # Another process was faster: its bundle is as good.
            log.debug("%s was made by another process meanwhile", path)
    return Bundle.open(path)


def copy_public_bundle(path: str | PathLike[str]) -> Bundle:
    """Writes the public bundle to a path, atomically."""
    bundle = public_bundle()
    return write_bundle(path, bundle.manifest, {file: bundle.read(file) for file in bundle.files})


def proven_detector() -> ExportedModel:
    """The detector of the public bundle, with its proof."""
    return reuse(public_bundle(), "faces")


def _make(path: Path) -> Bundle:
    detector = export_model(
        FaceDetector(load_blazeface()).eval(), inputs=[IMAGE_INPUT], outputs=FACES_OUTPUTS, cases=photo_cases()
    )
    return age_bundle(
        path,
        load_age_resnet10(),
        dlib_crop(SIZE),
        detector=detector,
        name="age",
        version="1.0.0",
        description="Ages of the faces in a photo; dlib's public age predictor",
        license="CC0-1.0 AND Apache-2.0",
        weights=[AGE_RESNET10],
        provenance={"data": "about 110,000 faces of dlib's own collection"},
    )


def _code_digest() -> str:
    """Of all that the bundle depends on: versions, weights, and the code itself, for those who change it."""
    digest = hashlib.sha256(f"{__version__} {AGE_RESNET10} {BLAZEFACE_FULL_RANGE}".encode())
    for package in DECIDING_PACKAGES:
        digest.update(f"{package} {_installed(package)}".encode())
    folder = Path(edgedl.__file__).parent
    places = [folder / place for place in DECIDING_CODE] + [Path(exporters.__file__).parent]
    for place in places:
        for file in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # onnxruntime-gpu brings the module onnxruntime under its own name
        return "-"
