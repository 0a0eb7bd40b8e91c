"""Digits: a picture of one digit -> the graph -> which digit it is; and, where the bundle can, a label -> a drawing.

The graph does all of the reading: polarity, frame, contrast, network. What is left here is opening the file, halving a
large photo, and the chance that a drawing starts from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.errors import BundleError, InputError
from runtime.example import longest_row
from runtime.faces import halved
from runtime.media.pictures import MAX_PIXELS, Picture
from runtime.pipelines.answer import Answer
from runtime.pipelines.base import PicturePipeline, Source, picture_of
from runtime.pipelines.results import DIGIT

READ, DRAW = "digits", "draw"
INPUTS, OUTPUTS = {"pixels"}, {"digit", "probabilities", "ink"}
DRAW_INPUTS, DRAW_OUTPUTS = {"label", "top", "chance"}, {"ink"}

LARGEST_SIDE = 512
"""A picture is halved until its longer side has less than twice as many pixels; the graph averages over 8×8 cells."""

PICTURE_ZOOM = 32
"""Pixels of a saved drawing for each of its 8×8 cells."""

_WANTED = re.compile(r"digit:(?P<label>[0-9]{1,9})(:(?P<seed>[0-9]{1,30}))?")


class DigitsPipeline(PicturePipeline):
    """Reads a digit, and draws one; see `runtime.pipelines.base.Pipeline`."""

    result = DIGIT
    models = (READ,)

    def __init__(
        self, bundle: Bundle, *, device: str = "cpu", threads: int | None = None, variant: str | None = None
    ) -> None:
        if bundle.manifest.pipeline:
            raise BundleError(
                f"{bundle.path}: a digits bundle has no pipeline settings, this one has "
                f"{', '.join(map(str, bundle.manifest.pipeline))}"
            )
        super().__init__(bundle, device=device, threads=threads, variant=variant)
        try:
            self._check(READ, INPUTS, OUTPUTS)
            if DRAW in self.engines:
                self._check(DRAW, DRAW_INPUTS, DRAW_OUTPUTS)
        except BundleError:
            self.close()
            raise

    @property
    def can_draw(self) -> bool:
        """Whether the bundle has a way down: a deep belief net's has."""
        return DRAW in self.engines

    def read(self, pictures: Sequence[NDArray[np.uint8]]) -> list[dict[str, Any]]:
        """The graph alone: pictures (H, W, 3), uint8 RGB, of any sizes.

        Returns:
            For each in order {"digit": int, "probabilities": (10,) float32, "ink": (8, 8) float32}.

        Raises:
            InputError: an array is no picture.
        """
        # All pixels of a run stay below a photo's worth.
        found = self.engines[READ].batch(
            [{"pixels": picture[None]} for picture in pictures],
            limit=lambda item: LARGEST_SIDE * LARGEST_SIDE // max(1, math.prod(item["pixels"].shape[1:3])),
        )
        return [
            {"digit": int(one["digit"][0]), "probabilities": one["probabilities"][0], "ink": one["ink"][0]}
            for one in found
        ]

    def example(self) -> NDArray[np.uint8] | None:
        """A digit on a sheet that the network was recorded on; where there is none, the largest single picture."""
        named = {case.name: case.inputs for case in self.bundle.golden(READ)}
        inputs = named.get("on a sheet") or longest_row(self.bundle, READ)
        return None if inputs is None else inputs["pixels"][0]

    def open_picture(self, source: Source, *, max_pixels: int = MAX_PIXELS) -> Source:
        """A picture as `runtime.media.pictures.read_picture` reads it; what asks for a drawing stays as it is.

        Raises:
            InputError: no image, too large, or a drawing that cannot be made.
        """
        return source if wanted_drawing(source) is not None else picture_of(source, max_pixels=max_pixels)

    def predict(self, source: Source, **options: Any) -> Answer:
        """Answers one picture with its digit, or ``digit:7`` with a drawing.

        Args:
            source: what `runtime.media.pictures.read_picture` takes, or ``digit:LABEL[:SEED]``.
            **options: none; they are named in the error.

        Returns:
            {"digit", "probability", "probabilities"}; of a drawing the same, being what the network reads in it, and
            "drawn": {"label", "seed", "ink": 8 rows of 8 shares}. "note" is there where something about the picture
            should be known.

        Raises:
            InputError: no image, or a drawing that cannot be made.
        """
        return self.batch([source], **options)[0]

    def batch(self, sources: Sequence[Source], **options: Any) -> list[Answer]:
        """Answers several inputs; pictures of one size go through the network together. See `predict`."""
        self.refuse(options)
        pictures: list[NDArray[np.uint8]] = []
        notes: list[dict[str, Any]] = []
        for source in sources:
            wanted = wanted_drawing(source)
            if wanted is not None:
                ink = self.imagine(*wanted)
                drawn = {"label": wanted[0], "seed": wanted[1], "ink": np.round(ink.astype(np.float64), 4).tolist()}
                pictures.append(as_picture(ink))
                notes.append({"drawn": drawn})
            else:
                picture = picture_of(source)
                pictures.append(_halved(picture))
                notes.append({} if picture.note is None else {"note": picture.note})
        return [Answer(_document(one) | note) for one, note in zip(self.read(pictures), notes, strict=True)]

    def imagine(self, label: int, seed: int = 0) -> NDArray[np.float32]:
        """Draws a digit.

        Args:
            label: 0 … 9.
            seed: of the top layer's activity that the drawing starts from, and of the chance on its way.

        Returns:
            (8, 8) shares of ink.

        Raises:
            InputError: the bundle has no way down, or there is no such digit.
        """
        if not self.can_draw:
            raise InputError(
                f"{self.bundle.path} cannot draw: only a deep belief net has a way down; train one with "
                "`edgedl train digits --model dbn`"
            )
        if not 0 <= label <= 9:
            raise InputError(f"a digit to draw is 0 … 9, not {label}")
        if seed < 0:
            raise InputError(f"the seed of a drawing is 0 or more, not {seed}")
        shapes = {tensor.name: tensor.shape for tensor in self.engines[DRAW].spec.inputs}
        generator = np.random.default_rng(seed)
        chance = {
            name: generator.random((1, *map(int, shapes[name][1:])), dtype=np.float32) for name in ("top", "chance")
        }
        ink: NDArray[np.float32] = self.engines[DRAW].run({"label": np.array([label]), **chance})["ink"][0]
        return ink

    def draw(self, source: Source, result: Mapping[str, Any]) -> NDArray[np.uint8]:
        """The ink that was looked at, or drawn, large enough to see: uint8 RGB (256, 256, 3), dark on bright."""
        wanted = wanted_drawing(source)
        if wanted is not None:
            ink = np.array(result["drawn"]["ink"], np.float32)
        else:
            ink = self.read([_halved(picture_of(source))])[0]["ink"]
        return enlarged(ink)

    def _check(self, model: str, inputs: set[str], outputs: set[str]) -> None:
        spec = self.engines[model].spec
        found = {tensor.name for tensor in spec.inputs}, {tensor.name for tensor in spec.outputs}
        if found[0] != inputs or not found[1] >= outputs:
            raise BundleError(
                f"{self.bundle.path}: the graph {model} takes {', '.join(sorted(found[0]))} and gives "
                f"{', '.join(sorted(found[1]))}; expected {', '.join(sorted(inputs))} and {', '.join(sorted(outputs))}"
            )


def wanted_drawing(source: Source) -> tuple[int, int] | None:
    """Label and seed of ``digit:7`` or ``digit:7:3``; None for everything that is a picture.

    Raises:
        InputError: it begins like one and is none.
    """
    if not isinstance(source, str | PathLike):
        return None
    text = str(source)
    if not text.startswith("digit:"):
        return None
    wanted = _WANTED.fullmatch(text)
    if wanted is None:
        raise InputError(f"{text}: a drawing is asked for with digit:LABEL or digit:LABEL:SEED, e.g. digit:7")
    return int(wanted["label"]), int(wanted["seed"] or 0)


def as_picture(ink: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Shares of ink (8, 8) as pixels (8, 8, 3), bright on black: what the graph reads as it is."""
    levels = np.rint(np.clip(ink, 0, 1) * 255).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=2)


def enlarged(ink: NDArray[np.floating[Any]], zoom: int = PICTURE_ZOOM) -> NDArray[np.uint8]:
    """Shares of ink (8, 8) as a picture for people, dark on bright, (8·zoom, 8·zoom, 3)."""
    paper = 255 - as_picture(ink)
    return np.ascontiguousarray(paper.repeat(zoom, axis=0).repeat(zoom, axis=1))


def _halved(picture: Picture) -> NDArray[np.uint8]:
    return halved(picture.pixels, max(picture.pixels.shape[:2]) / LARGEST_SIDE)[0]


def _document(answer: Mapping[str, Any]) -> dict[str, Any]:
    probabilities = np.round(answer["probabilities"].astype(np.float64), 6)
    return {
        "digit": answer["digit"],
        "probability": float(probabilities[answer["digit"]]),
        "probabilities": probabilities.tolist(),
    }
