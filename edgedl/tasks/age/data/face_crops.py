"""Faces as the deployed pipeline crops them, in memory and on disk: what training sees is what service will see."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgedl.data.samples import FaceDataset, FaceSample
from edgedl.data.sources import stamp
from edgedl.data.unreadable import Unreadable
from runtime.crowds import AS_THE_BUNDLE_SAYS
from runtime.errors import MissingExtraError
from runtime.faces import Crop, Detection, Pixels, crop_to_json, overlap
from runtime.pipelines.age import AgePipeline
from runtime.threads import default_threads

log = logging.getLogger(__name__)

CACHE_FORMAT = 3


@dataclass(frozen=True, slots=True)
class FaceCrops:
    """Crops of a data set, in its order, of the pictures that can be read.

    Attributes:
        pipeline: (n, S, S, 3) as the detector and the crop of the bundle give them; the whole picture where no face
            was found.
        whole: (n, S, S, 3) the pictures as they are.
        found: (n,) whether the detector found a face.
        rows: (n,) which samples of the data set they are, ascending.
    """

    pipeline: NDArray[np.uint8]
    whole: NDArray[np.uint8]
    found: NDArray[np.bool_]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


def chosen_face(
    pipeline: AgePipeline, image: Pixels, sample: FaceSample, smallest: float = AS_THE_BUNDLE_SAYS
) -> Detection | None:
    """The face that a sample is about: the one at its box, else the largest; None where there is none."""
    faces = pipeline.find(image, smallest)
    if not faces:
        return None
    boxes = np.stack([face.box for face in faces])
    if sample.box is not None:
        overlaps = overlap(np.array(sample.box), boxes)
        return faces[int(overlaps.argmax())] if overlaps.max() > 0 else None
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return faces[int(areas.argmax())]


def face_crops(
    dataset: FaceDataset,
    pipeline: AgePipeline,
    crop: Crop,
    side: int,
    *,
    cache: Path | None,
    unreadable: Unreadable | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FaceCrops:
    """Crops every picture of a data set, or reads the crops of an earlier call from the cache.

    Args:
        dataset: the faces.
        pipeline: finds them; only its detector is used.
        crop: how a found face is cut out.
        side: S, pixels.
        cache: folder for the crops; None keeps nothing.
        unreadable: takes what cannot be read, and is to be checked by the caller; None: every picture must be readable.
        progress: told the number done and of all.

    Raises:
        InputError: too many pictures cannot be read.
    """
    if unreadable is None:
        unreadable = Unreadable(dataset.name, len(dataset), share=0)
    path = cache / f"faces-{_key(dataset, pipeline, crop, side)}.npz" if cache else None
    if path is not None and path.is_file():
        try:
            # Opened here: np.load leaves a damaged file open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                crops = FaceCrops(*(arrays[field.name] for field in fields(FaceCrops)))
            if _still_unreadable(dataset, crops, unreadable):
                return crops
            log.info("a picture that could not be read now can: the crops are made again")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("the cached crops %s are damaged (%s) and are made again", path, error)
    crops = _make(dataset, pipeline, crop, side, unreadable, progress)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex}.npz")
        try:
            np.savez(temporary, **{field.name: getattr(crops, field.name) for field in fields(crops)})
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return crops


def _make(
    dataset: FaceDataset,
    pipeline: AgePipeline,
    crop: Crop,
    side: int,
    unreadable: Unreadable,
    progress: Callable[[int, int], None],
) -> FaceCrops:
    n = len(dataset)
    pictures, wholes = np.empty((n, side, side, 3), np.uint8), np.empty((n, side, side, 3), np.uint8)
    found, read = np.zeros(n, np.bool_), np.zeros(n, np.bool_)

    def one(index: int) -> None:
        image = unreadable.attempt(dataset[index].name, partial(dataset.image, index))
        if image is None:
            return
        # A face too small for the first look has too few pixels to learn its age from.
        face = chosen_face(pipeline, image, dataset[index], smallest=0)
        read[index], found[index] = True, face is not None
        wholes[index] = _shrunk(image, side)
        pictures[index] = wholes[index] if face is None else _shrunk(crop(image, face), side)

    with ThreadPoolExecutor(default_threads()) as pool:
        for done, _ in enumerate(pool.map(one, range(n)), start=1):
            progress(done, n)
    rows = np.flatnonzero(read)
    for place, row in enumerate(rows):  # in place: the arrays may fill half of the memory
        if place != row:
            pictures[place], wholes[place] = pictures[row], wholes[row]
    return FaceCrops(pictures[: len(rows)], wholes[: len(rows)], found[rows], rows)


def _still_unreadable(dataset: FaceDataset, crops: FaceCrops, unreadable: Unreadable) -> bool:
    """Whether no picture that an earlier call left out can be read; another decoder may be there by now."""
    left_out = sorted(set(range(len(dataset))) - set(crops.rows.tolist()))
    return all(unreadable.attempt(dataset[i].name, partial(dataset.image, i)) is None for i in left_out)


def _shrunk(image: Pixels, side: int) -> Pixels:
    """(H, W, 3) -> (side, side, 3): area-averaged where it shrinks, the nearest to the graph's own antialias."""
    if image.shape[:2] == (side, side):
        return image
    try:
        import cv2
    except ImportError:
        raise MissingExtraError("opencv-python-headless", "media") from None
    shrinks = image.shape[0] >= side and image.shape[1] >= side
    resized = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def _key(dataset: FaceDataset, pipeline: AgePipeline, crop: Crop, side: int) -> str:
    """Everything that the crops depend on."""
    models = pipeline.bundle.manifest.models
    detectors = {name: spec.variants["fp32"].sha256 for name, spec in models.items() if name in ("faces", "closeup")}
    settings = astuple(replace(pipeline.settings.looks, crowd=None))
    stamps = sorted({stamp(sample.source, sample.member) for sample in dataset})
    names = hashlib.sha256("\n".join(sample.name for sample in dataset).encode()).hexdigest()
    document = json.dumps([CACHE_FORMAT, detectors, settings, crop_to_json(crop), side, dataset.name, stamps, names])
    return hashlib.sha256(document.encode()).hexdigest()[:24]
