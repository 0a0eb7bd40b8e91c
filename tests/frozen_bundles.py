"""The bundles of `tests/frozen`, unpacked, as they are and as an export of today declares them."""

from __future__ import annotations

import dataclasses
import lzma
from pathlib import Path

from runtime.bundle import Bundle, write_bundle
from runtime.manifest import DimensionSpec, Manifest, ModelSpec

FOLDER = Path(__file__).parent / "frozen"
NAMES = sorted(file.name.removesuffix(".edge.xz") for file in FOLDER.glob("*.edge.xz"))

RECURRENT = [name for name in NAMES if name.startswith(("timer", "gradients", "chars"))]
"""Those that carry a state."""

ARRAYS = [name for name in NAMES if name.startswith(("timer", "gradients", "longlag", "sgd"))]
"""Those that take arrays and nothing else."""

MINIMA = {
    "timer": {"B": 0, "T": 0},
    "gradients": {"B": 0, "T": 0},
    "chars": {"B": 0, "T": 0},
    "longlag": {"B": 0, "T": 1},
    "sgd": {"N": 0},
    "digits": {"N": 0, "H": 1, "W": 1},
    "draw": {"N": 0},
    "age": {"N": 0, "H": 1, "W": 1},
    "faces": {"H": 1, "W": 1},
    "closeup": {"H": 1, "W": 1},
    "caption": {"B": 0, "T": 1, "H": 1, "W": 1},
}
"""The least sizes of each model, as an export finds them today."""


def unpack(name: str, folder: Path, *, declared: bool = False) -> Bundle:
    """Writes a bundle into a folder.

    Args:
        name: one of `NAMES`.
        folder: an empty one.
        declared: with ranges of sizes in its manifest.
    """
    path = folder / f"{name}.edge"
    path.write_bytes(lzma.decompress((FOLDER / f"{name}.edge.xz").read_bytes()))
    bundle = Bundle.open(path)
    if not declared:
        return bundle
    models = {
        key: dataclasses.replace(model, dimensions={size: DimensionSpec(least) for size, least in MINIMA[key].items()})
        for key, model in bundle.manifest.models.items()
    }
    return with_manifest(bundle, dataclasses.replace(bundle.manifest, models=models))


def least_sizes(spec: ModelSpec) -> dict[str, int]:
    """As `MINIMA` has them."""
    return {name: sizes.min for name, sizes in spec.dimensions.items()}


def with_manifest(bundle: Bundle, manifest: Manifest) -> Bundle:
    """The bundle beside itself, with another manifest over the same files."""
    files = {name: bundle.read(name) for name in manifest.digests()}
    return write_bundle(bundle.path.with_name(f"declared-{bundle.path.name}"), manifest, files)
