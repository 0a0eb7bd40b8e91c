"""The pictures of a digits run: curves, first filters, and of a deep belief net what it keeps and what it draws."""

from __future__ import annotations

import csv
from os import PathLike
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgedl.data.digits import CLASSES, SIDE, embedded_digits
from edgedl.figures.curves import save_curves
from edgedl.figures.style import save_figure
from edgedl.tasks.digits.figure import filter_sheet, picture_rows, pretraining_curves
from edgedl.tasks.digits.ink import Ink
from edgedl.tasks.digits.network import PASSES, ConvolutionalClassifier, DeepBeliefNet, DigitPainter, SoftmaxClassifier
from edgedl.tasks.digits.training import PRETRAINING, trained_network
from edgedl.training.run import Run
from runtime.errors import InputError

FILTERS = 64
"""Of a deep belief net's first layer those with the largest weights are drawn, so many."""

DRAWINGS = 3
"""Of each digit."""


def plot_digits(run_path: str | PathLike[str], output: str | PathLike[str] | None) -> list[Path]:
    """Draws the pictures of a run.

    Args:
        run_path: the run.
        output: the curves' file; the others are named after it. By default they lie in the run.

    Returns:
        ``curves.png`` and ``filters.png``; of a deep belief net also ``pretraining.png`` (free energy and error of its
        machines), ``reconstructions.png`` and ``drawings.png``.

    Raises:
        InputError: there is no run, or none of its epochs has ended.
    """
    run = Run.open(run_path)
    classifier = trained_network(run)
    first = Path(output) if output else run.path / "curves.png"
    stem = "" if output is None else f"{first.stem}-"

    def place(name: str) -> Path:
        return first.with_name(f"{stem}{name}.png")

    save_curves(run.history(), first)
    pictures = [first, save_figure(filter_sheet(*first_filters(classifier)), place("filters"))]
    if isinstance(classifier, DeepBeliefNet):
        labels = [str(label) for label in range(CLASSES)]
        pictures += [
            save_figure(pretraining_curves(pretraining_history(run)), place("pretraining")),
            save_figure(
                picture_rows(reconstructions(classifier), "Held-out digits and what the machines keep of them"),
                place("reconstructions"),
            ),
            save_figure(
                picture_rows(drawings(classifier), "Digits that the way down draws", labels), place("drawings")
            ),
        ]
    return pictures


def first_filters(classifier: nn.Module) -> tuple[NDArray[np.float32], str]:
    """The weights that look at pixels, (n, h, w), and what they are."""
    if isinstance(classifier, SoftmaxClassifier):
        weights = classifier.linear.weight
        return _numpy(weights.view(CLASSES, SIDE, SIDE)), "Soft-max regression: what speaks for the digits 0 … 9"
    if isinstance(classifier, ConvolutionalClassifier):
        return _numpy(classifier.conv1.weight[:, 0]), "CNN: filters of the first convolution, 3×3"
    machine = cast(DeepBeliefNet, classifier).layers[0]
    filters = _numpy(machine.weight.T.reshape(-1, SIDE, SIDE))
    strength = np.square(filters).sum(axis=(1, 2))
    chosen = np.argsort(-strength, kind="stable")[:FILTERS]
    return filters[chosen], f"First Boltzmann machine: the {len(chosen)} strongest of {len(filters)} filters, 8×8"


@torch.no_grad()
def reconstructions(net: DeepBeliefNet, count: int = CLASSES) -> dict[str, NDArray[np.float32]]:
    """One held-out digit of each class, and what comes back from each layer: name -> (count, 8, 8).

    Up and down go probabilities. At the top the label is not told: its units start evenly.
    """
    part = embedded_digits("test")
    rows = [int(np.flatnonzero(part.labels == label)[0]) for label in range(count)]
    ink = Ink()(torch.from_numpy(part.pixels[rows]))
    found = {"test digit": _numpy(ink)}
    for depth in range(1, len(net.layers) + 1):
        activity = net.activity(ink, depth - 1)
        machine = net.layers[depth - 1]
        if machine.classes:
            activity = torch.cat([activity, torch.full((count, CLASSES), 1 / CLASSES)], dim=1)
        down = machine.visible_probabilities(machine.hidden_probabilities(activity))
        down = down[:, : down.shape[1] - machine.classes]
        for below in reversed(net.layers[: depth - 1]):
            down = below.visible_probabilities(down)
        found[f"by way of layer {depth}"] = _numpy(down.view(-1, SIDE, SIDE))
    return found


@torch.no_grad()
def drawings(net: DeepBeliefNet, count: int = DRAWINGS) -> dict[str, NDArray[np.float32]]:
    """What the way down makes of every label, from several seeds: name -> (10, 8, 8)."""
    painter = DigitPainter(net)
    width = net.layers[-1].weight.shape[1]
    found = {}
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        top = torch.rand(CLASSES, width, generator=generator)
        chance = torch.rand(CLASSES, PASSES, width, generator=generator)
        found[f"seed {seed}"] = _numpy(painter(torch.arange(CLASSES), top, chance))
    return found


def pretraining_history(run: Run) -> list[dict[str, float]]:
    """The rows of ``pretraining.csv``.

    Raises:
        InputError: the file is missing or holds something else.
    """
    file = run.path / PRETRAINING
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
    except (OSError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} cannot be read ({error}); the run's machines wrote it as they were trained"
        ) from error


def _numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.detach().numpy(), np.float32)
