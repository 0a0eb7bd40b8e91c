"""Where the answer of a bundle comes from, for any task whose bundles take a picture. The graph alone is asked."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.occlusion import occlude
from runtime.pipelines import load


def plot_occlusion(path: str | os.PathLike[str], photo: str, output: str | os.PathLike[str] | None) -> Path:
    """Draws an occlusion map and gives the picture's path, by default ``PHOTO-occlusion.png`` in the current folder.

    Args:
        path: a bundle.
        photo: a picture's file.
        output: the picture to write.

    Raises:
        BundleError: there is no bundle, or it is damaged.
        InputError: the photo cannot be read, or the bundle gives no number for a picture.
    """
    from edgedl.figures.occlusion import save_occlusion
    from edgedl.training.progress import Progress

    with load(path) as pipeline:
        probe = pipeline.probe(photo)
        found = occlude(probe, progress=Progress("patches"))
    target = Path(output) if output else Path(f"{Path(photo).stem}-occlusion.png")
    return save_occlusion(probe.pixels, found, probe.meaning, probe.unit, target)
