"""What a convolutional network has learnt: from its filters to its objects, and where in a photo it sees them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgedl.tasks.features.activation_maximisation import maximise
from edgedl.tasks.features.class_activation import grad_cam, layer_answer
from edgedl.tasks.features.figure import ClassMap, FeatureSheet, UnitRow, save_features
from edgedl.tasks.features.subjects import Subject, subject
from edgedl.training.progress import Progress
from exporters.denormals import flush_denormals
from exporters.image import resize_images
from runtime.media.pictures import read_picture
from runtime.occlusion import Probe, occlude

UNITS = 4
"""Units of each stage that are shown: those that the photo excites most unevenly."""

STEPS = 64


def plot_features(source: str, photo: str, output: str | os.PathLike[str] | None, *, steps: int = STEPS) -> Path:
    """Draws what a network has learnt and gives the picture's path, by default ``PHOTO-features.png``.

    Args:
        source: an age run, or ``efficientnet-lite0`` for the public ImageNet weights.
        photo: a picture's file; its middle square is what the network gets.
        output: the picture to write.
        steps: of the ascent that draws what excites a unit.

    Raises:
        InputError: the photo cannot be read, or the source has no such network.
        WeightsError: the public weights cannot be had.
    """
    pixels = middle_square(read_picture(photo).pixels)
    sheet = look_at(subject(source), pixels, steps=steps)
    return save_features(sheet, Path(output) if output else Path(f"{Path(photo).stem}-features.png"))


@flush_denormals()
def look_at(chosen: Subject, pixels: NDArray[np.uint8], *, steps: int = STEPS) -> FeatureSheet:
    """Everything that the figure shows.

    Args:
        chosen: the network.
        pixels: (H, W, 3) uint8 RGB, a square.
        steps: of the ascent.
    """
    network, side = chosen.network, chosen.side
    levels = resize_images(torch.from_numpy(pixels)[None], (side, side), torch.float32)
    shown = _pixels(levels)[0]
    rows = []
    for number, stage in enumerate(chosen.stages):
        answer = layer_answer(network, stage.layer, levels)[0]  # (C, h, w)
        # How far the strongest place stands out from the rest of the map.
        prominence = (answer.amax(dim=(1, 2)) - answer.mean(dim=(1, 2))) / answer.std(dim=(1, 2)).clamp(min=1e-6)
        units = prominence.topk(min(UNITS, len(prominence))).indices.tolist()
        drawn = maximise(
            network, stage.layer, units, chosen.ascent_side, steps=steps, seed=number, progress=Progress(stage.name)
        )
        rows.append(UnitRow(stage.name, tuple(f"unit {u}" for u in units), _pixels(drawn), answer[units].numpy()))
    objects = maximise(
        network, network, chosen.objects, chosen.ascent_side, steps=steps, seed=9, progress=Progress("objects")
    )
    rows.append(UnitRow("object", tuple(chosen.label(index) for index in chosen.objects), _pixels(objects), None))
    with torch.no_grad():
        scores = network(levels)
    asked = chosen.ask(scores)
    maps = [ClassMap(f"Grad-CAM: {name}", _grad_cam(chosen, levels, score), signed=False) for name, score in asked]
    name, score = asked[0]

    def answer_to(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        with torch.no_grad():
            given = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
            return score(network(given)).double().numpy()

    hidden = occlude(Probe(shown, answer_to, name), progress=Progress("occlusion"))
    maps.append(ClassMap(f"occlusion: {name}", hidden.per_pixel(), signed=True))
    kernels = chosen.first.weight.detach().numpy()  # (C, 3, k, k)
    return FeatureSheet(chosen.name, shown, kernels, tuple(rows), tuple(maps))


def middle_square(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The square of (H, W, 3) in its middle."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def _grad_cam(chosen: Subject, levels: Tensor, score: object) -> NDArray[np.float64]:
    found = grad_cam(chosen.network, chosen.last, levels, score)  # type: ignore[arg-type]  # (N, K) -> (N,)
    return found[0].double().numpy()


def _pixels(levels: Tensor) -> NDArray[np.uint8]:
    """(N, 3, S, S) levels -> (N, S, S, 3) uint8."""
    return levels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
