"""Calibrates the interval of an age bundle: asks its pipeline about faces of known age, and amends the manifest."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, NamedTuple

from edgedl.data.samples import FaceDataset
from edgedl.data.unreadable import Unreadable
from edgedl.tasks.age.evaluation import predict_faces
from edgedl.tasks.age.intervals import LEVEL, age_bands, calibrate, coverage
from runtime.bundle import Bundle
from runtime.errors import InputError
from runtime.intervals import Coverage, Interval
from runtime.pipelines.age import AgePipeline
from runtime.rewriting import check_writable, rewritten, write_rewritten

CHANGE = "another interval"


class Calibrated(NamedTuple):
    """What calibration gave.

    Attributes:
        bundle: as it was written.
        interval: that it has now.
        before: how the bundle's intervals did before, on the same faces.
        before_by_age: the same for each ten years.
    """

    bundle: Bundle
    interval: Interval
    before: Coverage
    before_by_age: dict[str, Coverage]

    def to_json(self) -> dict[str, Any]:
        """What the command line prints."""
        measured = self.interval.measured
        return {
            "n": measured.all.n,
            "dataset": measured.dataset,
            "split": measured.split,
            "level": self.interval.level,
            "coverage": measured.all.coverage,
            "width": measured.all.width,
            "before": {"coverage": self.before.coverage, "width": self.before.width},
            "by_age": {
                band: {
                    "coverage before": self.before_by_age[band].coverage,
                    "width before": self.before_by_age[band].width,
                    "coverage": now.coverage,
                    "width": now.width,
                    "n": now.n,
                }
                for band, now in measured.by_age.items()
            },
            "bundle": str(self.bundle.path),
            "digest": self.bundle.digest,
        }


def calibrate_bundle(
    path: str | os.PathLike[str],
    dataset: FaceDataset,
    split: str,
    *,
    level: float = LEVEL,
    output: str | os.PathLike[str] | None = None,
    unreadable: Unreadable | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> Calibrated:
    """Asks the whole pipeline about a part of a data set and gives the bundle the interval that fits its answers.

    No graph and no recorded answer changes but those of the model ``photo``, which is made anew.

    Args:
        path: the bundle.
        dataset: the faces.
        split: the part of them that calibrates and has chosen nothing.
        level: share of the true ages that is to lie inside.
        output: where the result is written; None writes in place of the bundle.
        unreadable: takes what cannot be read; None: every picture must be readable.
        device: see `AgePipeline`.
        threads: of each model; the pictures run side by side.

    Raises:
        InputError: the bundle has learnt from these faces, or they are too few.
        BundleError: the result cannot be written.
    """
    bundle = Bundle.open(path)
    target = bundle.path if output is None else output
    check_writable(bundle, target, CHANGE)
    _refuse_learnt(bundle, dataset, split)
    part = dataset.split(split)
    with AgePipeline(bundle, device=device, threads=threads or 1) as pipeline:
        found = predict_faces(pipeline, part, unreadable=unreadable)
    keys = [part[row].subject or part[row].name for row in found.rows.tolist()]
    interval = calibrate(found.age, found.truth, keys, level=level, dataset=dataset.name, split=split)
    manifest = replace(bundle.manifest, pipeline={**bundle.manifest.pipeline, "interval": interval.to_json()})
    made = rewritten(bundle, manifest)
    if "photo" in manifest.models:
        from edgedl.tasks.age.photo.model import with_photo

        made = with_photo(made)  # which holds the interval as well
    written = write_rewritten(bundle, made, target, CHANGE)
    before = {
        band: coverage(found.low[rows], found.high[rows], found.truth[rows])
        for band, rows in age_bands(found.truth).items()
    }
    return Calibrated(written, interval, coverage(found.low, found.high, found.truth), before)


def _refuse_learnt(bundle: Bundle, dataset: FaceDataset, split: str) -> None:
    """Refuses faces that the network has learnt from: it knows them too well."""
    data = bundle.manifest.provenance.get("data")
    learnt = data.get("name") if isinstance(data, dict) else None
    if learnt == dataset.name and split in ("train", "all"):
        raise InputError(
            f"{bundle.path} has learnt from the train split of {dataset.name}, so its errors there are too small to "
            "calibrate with; use --split val"
        )
