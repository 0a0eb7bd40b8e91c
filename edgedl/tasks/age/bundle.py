"""How age networks are deployed: detector and age network through the gate, into one bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedl.data import synthetic_faces
from edgedl.data.portrait import portrait
from edgedl.nn.age import AgeNetwork
from edgedl.tasks.age.network.blazeface import SIZE as DETECTOR_SIZE
from edgedl.weights.catalogue import BLAZEFACE_FULL_RANGE, Weights
from exporters.export import ExportedModel, assemble, export_model
from exporters.spec import Case, Input, Output
from runtime.bundle import Bundle
from runtime.crowds import Crowd
from runtime.faces import AlignedCrop, Crop, brought_to, crop_to_json, cut, fitted
from runtime.intervals import Interval

Pixels = NDArray[np.uint8]

# Where the detector's keypoints lie in a chip of dlib's five-point alignment with a padding of 0.2: the eyes are the
# middles of dlib's mean eye corners; the nose tip was measured, its mean over faces that dlib aligned.
DLIB_TEMPLATE = ((0.3052, 0.3010), (0.6806, 0.3009), (0.494, 0.534))
DLIB_WEIGHTS = (1.0, 1.0, 0.5)

LOOK_AGAIN = 1.7
FRAME = 0.5

READ = 800
"""A photo of 1,600 pixels and more is read at a half of its size, of 3,200 at a quarter. Faces of a fourteenth of the
longest side then still have all the pixels that the network looks at."""

CLOSE_UP = 64
"""Side of the second look's square: nine of them fill the detector's picture, and a face has as many pixels in each
as one that takes a fifth of the photo has in the first look."""

CLOSE_ENOUGH = CLOSE_UP / (LOOK_AGAIN * DETECTOR_SIZE)
"""Share of the photo from which the first look shows a face as large as the second one would."""

CROWD = Crowd(
    smallest=0.02, least=20, shown=12.8, below=0.09, doubt=0.6, sure=0.55,
    square=1.5, square_side=48, across=6, certain=0.6,
)  # fmt: skip
"""At 12.8 pixels `CrowdDetector` shows 95 of 100 faces. The first look begins to miss those below 17 pixels, 0.09 of
its picture, and what has a score below 0.6 there may be a part of a crowd."""

FACE_INPUT = Input("face", "uint8", ("N", "H", "W", 3), layout="NHWC", meaning="one face each, RGB")
AGE_OUTPUTS = (
    Output("age", "float32", ("N",), unit="year", meaning="expectation", decision="round"),
    Output("low", "float32", ("N",), unit="year", meaning="a tenth of the distribution lies below"),
    Output("high", "float32", ("N",), unit="year", meaning="a tenth of the distribution lies above"),
)
IMAGE_INPUT = Input("image", "uint8", ("H", "W", 3), layout="HWC", meaning="the whole photo, RGB")
FACES_OUTPUTS = (
    Output("boxes", "float32", ("D", 4), unit="pixel", meaning="x1 y1 x2 y2"),
    Output("scores", "float32", ("D",), meaning="0..1, falling"),
    Output("keypoints", "float32", ("D", 6, 2), unit="pixel",
           meaning="x y of right eye, left eye, nose tip, mouth, right ear, left ear"),
)  # fmt: skip


def dlib_crop(size: int) -> AlignedCrop:
    """The alignment that the public age network was trained with, from the detector's first three keypoints."""
    return AlignedCrop(size=size, template=DLIB_TEMPLATE, weights=DLIB_WEIGHTS)


def pipeline_settings(years: Sequence[float], crop: Crop, interval: Interval | None = None) -> dict[str, Any]:
    """The manifest's `pipeline` of an age bundle."""
    calibrated = {} if interval is None else {"interval": interval.to_json()}
    return {
        "years": list(years),
        "crop": crop_to_json(crop),
        "look_again": LOOK_AGAIN,
        "frame": FRAME,
        "overview": DETECTOR_SIZE,
        "close_up": CLOSE_UP,
        "close_enough": CLOSE_ENOUGH,
        "sheet": DETECTOR_SIZE,
        "read": READ,
        "fitted": True,
        "crowd": asdict(CROWD),
        **calibrated,
    }


def face_cases(size: int) -> list[Case]:
    """Faces for the sweep: batches of 1, 2, 7, 32, sizes that are not the network's, and the edges.

    Drawn faces and a public-domain portrait only: golden cases travel with the bundle, training data must not. Sides
    are multiples of a sixteenth of the network's: float32 holds their ratio exactly, so that the sampling positions of
    the resize add no noise of their own, behind which the faintest fault could hide.

    Args:
        size: side in pixels that the network looks at.
    """
    unit = max(1, size // 16)
    drawn, _ = synthetic_faces.generate(seed=7, n=8, size=18 * unit)
    hopper = cut(portrait(), 140, 80, 359, 299)
    small = np.ascontiguousarray(hopper[::5, ::5][: 7 * unit, : 6 * unit])
    shades = np.stack([hopper, hopper // 2, 255 - (255 - hopper) // 2, hopper[..., ::-1]])
    half = hopper[::2, ::2]
    glances = np.stack([np.roll(half, (2 * (i % 8) - 7, 3 * (i // 8) - 4), axis=(0, 1)) for i in range(32)])
    glances = np.ascontiguousarray(glances[:, 110 - 17 * unit :, : 15 * unit])
    chance = np.random.default_rng(0)
    return [
        Case("portrait", {"face": hopper[None]}),
        Case("two portraits", {"face": np.stack([hopper, hopper[:, ::-1]])}),
        Case("four lights", {"face": shades}),
        Case("seven drawn faces", {"face": drawn[:7]}),
        Case("32 glances", {"face": glances}),
        Case("one drawn face, tall", {"face": drawn[7:8, :, 4 * unit : 13 * unit]}),
        Case("small", {"face": small[None]}),
        Case("one pixel", {"face": np.zeros((1, 1, 1, 3), np.uint8)}),
        Case("noise", {"face": chance.integers(0, 256, (2, 26 * unit, 19 * unit, 3), dtype=np.uint8)}),
        Case("black", {"face": np.zeros((1, size, size, 3), np.uint8)}),
        Case("white", {"face": np.full((1, 15 * unit, 13 * unit, 3), 255, np.uint8)}),
    ]


def photo_cases() -> list[Case]:
    """Photos for the detector's sweep: one face, several, none, small and extreme sizes, and the edges."""
    hopper = portrait()
    row = np.concatenate([hopper, hopper[:, ::-1]], axis=1)
    # Two faces whose boxes overlap a little more, and a little less, than suppression allows: without them a graph
    # with another threshold would answer every other photo alike.
    joined, parted = (_exposed_twice(hopper, shift) for shift in (96, 112))
    far = np.full((700, 901, 3), 96, np.uint8)
    far[211:511, 300:556] = hopper[::2, ::2]
    grid = np.concatenate([row[::2, ::2], row[1::2, 1::2, ::-1]], axis=0)
    drawn, _, _ = synthetic_faces.scene(seed=3, faces=3, size=400)
    chance = np.random.default_rng(0)
    pictures = {
        "portrait": hopper,
        "faces that overlap": joined[:-1, :-1],
        "faces that hardly overlap": parted[1:, :-3],
        "mirrored": hopper[:, ::-1],
        "two people": row,
        "four people": grid,
        "far away": far,
        "dark": (hopper // 4),
        "drawn": drawn,
        "tight": cut(hopper, 150, 70, 349, 299),
        "cut off": hopper[:, 250:],
        "small": hopper[::4, ::4],
        "wide": cut(hopper, -900, 0, 1399, 599),
        "close-ups": _sheet(hopper),
        "one pixel": hopper[:1, :1],
        "a line": hopper[300:301],
        "noise": chance.integers(0, 256, (97, 131, 3), dtype=np.uint8),
        "black": np.zeros((192, 192, 3), np.uint8),
        "white": np.full((100, 300, 3), 255, np.uint8),
    }
    return [Case(name, {"image": np.ascontiguousarray(picture)}) for name, picture in pictures.items()]


def _sheet(photo: Pixels) -> Pixels:
    """What the second look sees of five faces: squares side by side, moved, mirrored and dark; one stays empty."""
    first, *others = (cut(photo, x, y, x + 359, y + 359) for x, y in ((85, 55), (70, 70), (100, 45)))
    squares = [brought_to(square, CLOSE_UP) for square in (first, *others, first[:, ::-1], others[0] // 3)]
    squares.append(np.zeros_like(squares[0]))
    return np.concatenate([np.concatenate(squares[:3], axis=1), np.concatenate(squares[3:], axis=1)])


def crowd_cases() -> list[Case]:
    """What the crowd's look sees: small faces, few and many, sides that are whole cells and are not, and the edges."""
    hopper = portrait()
    row = np.concatenate([hopper, hopper[:, ::-1]], axis=1)
    group = np.tile(fitted(row, 72), (4, 3, 1))
    joined = fitted(_exposed_twice(hopper, 104), 96)
    drawn, _, _ = synthetic_faces.scene(seed=3, faces=4, size=224)
    chance = np.random.default_rng(0)
    pictures = {
        "group": group,
        "group, dark": group[:-5, 3:] // 3,
        "group, blurred": fitted(group[:, :150], 110),
        "two people": fitted(row, 160),
        "one of 40 pixels": fitted(hopper, 117),
        "faces that overlap": joined,
        "drawn": drawn,
        "whole cells": brought_to(cut(hopper, -44, -20, 555, 579), 96),
        "one pixel": hopper[:1, :1],
        "a line": hopper[300:301, :200],
        "noise": chance.integers(0, 256, (97, 131, 3), dtype=np.uint8),
        "black": np.zeros((64, 96, 3), np.uint8),
        "white": np.full((33, 100, 3), 255, np.uint8),
    }
    return [Case(name, {"image": np.ascontiguousarray(picture)}) for name, picture in pictures.items()]


def _exposed_twice(photo: Pixels, shift: int) -> Pixels:
    """A double exposure, the second one moved to the right: (H, W, 3)."""
    moved = cut(photo, -shift, 0, photo.shape[1] - 1 - shift, photo.shape[0] - 1)
    return ((photo.astype(np.uint16) + moved) // 2).astype(np.uint8)


def age_bundle(
    path: str | PathLike[str],
    network: AgeNetwork,
    crop: Crop,
    *,
    detectors: Mapping[str, ExportedModel],
    name: str,
    version: str,
    description: str,
    license: str,  # noqa: A002 - the manifest's word
    weights: Sequence[Weights],
    provenance: Mapping[str, Any],
    untrained: bool = False,
    interval: Interval | None = None,
) -> Bundle:
    """Takes an age network through the gate and writes it and its detector as a bundle.

    Args:
        path: of the bundle.
        network: in evaluation mode.
        crop: how a found face is cut out for this network.
        detectors: ``faces`` and ``crowd``, with their proofs.
        name: of the bundle.
        version: of the bundle.
        description: one sentence.
        license: SPDX expression of the whole.
        weights: public weights that the age network came from.
        provenance: seed, data and what else is known of the training.
        untrained: accept a gate that cannot tell a wrong network from a right one.
        interval: that training has calibrated.

    Raises:
        ExportError: the gate said no; nothing is left behind.
    """
    classes = len(network.years)
    outputs = (*AGE_OUTPUTS, Output("probabilities", "float32", ("N", classes), meaning="over the classes' years"))
    models = {
        **detectors,
        "age": export_model(
            network, inputs=[FACE_INPUT], outputs=outputs, cases=face_cases(network.size), untrained=untrained
        ),
    }
    used = [*weights, BLAZEFACE_FULL_RANGE]
    notice = "\n".join(w.notice for w in used) + "\n"
    listed = [{"name": w.name, "sha256": w.member_sha256, "license": w.license} for w in used]
    return assemble(
        path,
        name=name,
        version=version,
        task="age",
        description=description,
        license=license,
        models=models,
        pipeline=pipeline_settings([float(y) for y in network.years], crop, interval),
        files={"notice": ("NOTICE", notice.encode())},
        provenance={**provenance, "weights": listed},
    )
