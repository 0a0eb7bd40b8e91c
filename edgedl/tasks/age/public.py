"""The public age bundle, proven once per version of the code and kept in the user's cache.

`edgedl pull age` copies it, training cuts its faces with it, and every other age bundle takes its detector from it: the
proof of a detector of 89 convolutions costs half a minute, and it is the same proof each time.
"""

from __future__ import annotations

import ast
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from os import PathLike
from pathlib import Path

from torch import nn

from edgedl._version import __version__
from edgedl.tasks.age.bundle import (
    FACES_OUTPUTS,
    IMAGE_INPUT,
    age_bundle,
    crowd_cases,
    dlib_crop,
    photo_cases,
)
from edgedl.tasks.age.network.detector import CrowdDetector, FaceDetector
from edgedl.tasks.age.weights.blazeface import load_blazeface
from edgedl.tasks.age.weights.resnet10 import SIZE, load_age_resnet10
from edgedl.weights.catalogue import AGE_RESNET10, BLAZEFACE_FULL_RANGE
from edgedl.weights.fetch import cache_folder
from exporters.assemble import reuse
from exporters.export import ExportedModel, export_model
from exporters.spec import Case
from runtime.bundle import Bundle, write_bundle
from runtime.errors import BundleError

log = logging.getLogger(__name__)

DETECTORS = ("faces", "crowd")
"""The models of the same published weights: for a whole photo, and for a picture of any size."""

DETECTOR_GOLDEN = 13
"""Recorded photos: with the close-ups, one more than usual holds the faces that overlap, too."""

DECIDING_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
DECIDING_CODE = ("edgedl.", "exporters.")
"""Modules of these packages decide what is in the bundle; those of `runtime` only write it down."""


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


def proven_detectors() -> dict[str, ExportedModel]:
    """The detectors of the public bundle with their proofs, see `DETECTORS`."""
    bundle = public_bundle()
    return {name: reuse(bundle, name) for name in DETECTORS}


def _make(path: Path) -> Bundle:
    network = load_blazeface()
    made: tuple[tuple[nn.Module, list[Case], int | None], ...] = (
        (FaceDetector(network), photo_cases(), DETECTOR_GOLDEN),
        (CrowdDetector(network), crowd_cases(), None),
    )
    detectors = {
        name: export_model(detector.eval(), inputs=[IMAGE_INPUT], outputs=FACES_OUTPUTS, cases=cases, golden=golden)
        for name, (detector, cases, golden) in zip(DETECTORS, made, strict=True)
    }
    return age_bundle(
        path,
        load_age_resnet10(),
        dlib_crop(SIZE),
        detectors=detectors,
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
    for _, file in sorted(deciding_code().items()):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def deciding_code() -> dict[str, Path]:
    """The modules that making the bundle imports, directly or not, and their files.

    Found by following the import statements: a list by hand would rot, and whole folders would have the bundle proven
    anew for every network that is added beside it. The ``__init__`` of a whole package decides nothing here.
    """
    files: dict[str, Path] = {}
    waiting = [__name__]
    while waiting:
        name = waiting.pop()
        if name in files or not name.startswith(DECIDING_CODE):
            continue
        try:
            spec = find_spec(name)
        except ModuleNotFoundError:  # a name that lies inside of a module
            continue
        if spec is None or spec.origin is None or (spec.submodule_search_locations and "." not in name):
            continue
        files[name] = Path(spec.origin)
        waiting += _imported(files[name])
    return files


def _imported(file: Path) -> Iterator[str]:
    """Every name that may be a module; this project imports by full names only."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # onnxruntime-gpu brings the module onnxruntime under its own name
        return "-"
