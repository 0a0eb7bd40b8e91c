"""How techniques scale with the amount of data: test errors of three readers against the number of training digits."""

from __future__ import annotations

import contextlib
import csv
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgedl.data.digits import embedded_digits
from edgedl.figures.style import save_figure
from edgedl.tasks.digits.config import DROPOUT, SMOOTHING, Model, recipe
from edgedl.tasks.digits.figure import learning_curves
from edgedl.tasks.digits.ink import Ink
from edgedl.tasks.digits.network import ConvolutionalClassifier, SoftmaxClassifier
from edgedl.tasks.digits.objective import DigitLearning
from edgedl.training.batches import DrawnBatches, Samples, derived_seed
from edgedl.training.fit import fit
from edgedl.training.lightning_module import TaskModule
from edgedl.training.run import Run
from runtime.errors import InputError

log = logging.getLogger(__name__)

SIZES = (50, 100, 200, 400, 800, 1295)
"""Training digits; the last size is all of them."""

DRAWS, UPDATES, BATCH = 5, 300, 50

PICTURE = Path("digits-learning-curve.png")


@dataclass(frozen=True, slots=True)
class Technique:
    """One way to read digits.

    Attributes:
        build: Makes the network with random weights.
        model: Whose recipe trains it, apart from the learning rate.
        lr: Its peak, chosen on the validation digits.
    """

    build: Callable[[], nn.Module]
    model: Model
    lr: float


TECHNIQUES: Mapping[str, Technique] = {
    "logistic regression": Technique(SoftmaxClassifier, "softmax", 0.2),
    "small CNN": Technique(lambda: ConvolutionalClassifier(0.0, channels=(6, 8, 12), hidden=16), "cnn", 0.05),
    "large CNN": Technique(lambda: ConvolutionalClassifier(DROPOUT["cnn"]), "cnn", 0.01),
}


@dataclass(frozen=True, slots=True)
class Trained:
    """One training.

    Attributes:
        technique: A key of `TECHNIQUES`.
        weights: Of its network.
        digits: That it learnt from.
        draw: Which draw of digits, initial weights and order.
        wrong: Of the test digits.
        tested: How many those are.
    """

    technique: str
    weights: int
    digits: int
    draw: int
    wrong: int
    tested: int


class Repeated(DrawnBatches):
    """Batches of the same digits, pass after pass in a new order, until there are enough updates."""

    def __init__(self, columns: Mapping[str, NDArray[np.generic]], batch_size: int, count: int, seed: int) -> None:
        super().__init__(batch_size, count, seed)
        self.columns = columns

    def draw(self, rows: int, seed: int) -> Mapping[str, NDArray[np.generic]]:
        """See `DrawnBatches.draw`."""
        chance = np.random.default_rng(seed)
        digits = len(self.columns["label"])
        order = np.concatenate([chance.permutation(digits) for _ in range(-(-rows // digits))])[:rows]
        return {name: column[order] for name, column in self.columns.items()}


def nested_order(labels: NDArray[np.int64], draw: int) -> NDArray[np.int64]:
    """An order of the digits whose every beginning is stratified; a larger draw holds the smaller one.

    Args:
        labels: (n,).
        draw: Its number; each draw has an order of its own.

    Returns:
        The rows (n,).
    """
    shuffled = np.random.default_rng(derived_seed(draw, 0)).permutation(len(labels))
    share = np.empty(len(labels))
    for label in np.unique(labels):
        rows = shuffled[labels[shuffled] == label]
        share[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return shuffled[np.argsort(share[shuffled], kind="stable")]


def train_all(sizes: Sequence[int] = SIZES, draws: int = DRAWS, updates: int = UPDATES) -> Iterator[Trained]:
    """Trains every technique on every size and draw, each with the same number of updates.

    One epoch holds all updates, so no epoch is chosen, and the test digits only judge. Pictures are not shifted or
    turned, so that a network sees exactly the digits that it is given.
    """
    part, held_out = embedded_digits("train"), embedded_digits("test")
    ink, labels = _ink(part.pixels), part.labels
    test = Samples({"ink": _ink(held_out.pixels), "label": held_out.labels})
    for name, technique in TECHNIQUES.items():
        for digits in sizes:
            for draw in range(draws):
                rows = nested_order(labels, draw)[:digits]
                train = Repeated({"ink": ink[rows], "label": labels[rows]}, BATCH, updates, derived_seed(draw, digits))
                wrong, weights = _train(technique, train, test, draw)
                yield Trained(name, weights, len(rows), draw, wrong, len(test))
            log.info("%s  %d digits", name, digits)


def plot_learning_curve(output: str | PathLike[str] | None = None) -> list[Path]:
    """Trains every technique, in less than two minutes of one core, and draws their errors.

    Args:
        output: The picture's file, by default `PICTURE`. Its numbers lie beside it, with the suffix ``.csv``.

    Raises:
        InputError: the folder of the picture does not exist.
    """
    picture = Path(output or PICTURE)
    if not picture.parent.is_dir():
        raise InputError(f"{picture.parent}, the folder of the picture, does not exist; make it first")
    trained = list(train_all())
    write_table(trained, picture.with_suffix(".csv"))
    errors: dict[str, dict[int, list[float]]] = {}
    for one in trained:
        of_size = errors.setdefault(f"{one.technique}, {one.weights:,} weights", {})
        of_size.setdefault(one.digits, []).append(100 * one.wrong / one.tested)
    return [save_figure(learning_curves(errors, least=50 / trained[0].tested), picture)]


def write_table(trained: Iterable[Trained], path: Path) -> None:
    """A row for each training."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Trained)])
        writer.writerows(map(astuple, trained))


def _train(technique: Technique, train: Repeated, test: Samples, seed: int) -> tuple[int, int]:
    """Wrong test digits, and the network's weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = technique.build()
    module = TaskModule(network, DigitLearning(smoothing=SMOOTHING[technique.model]))
    options = replace(recipe(technique.model), epochs=1, lr=technique.lr, seed=seed, device="cpu", progress=False)
    with tempfile.TemporaryDirectory() as folder, _without_epochs():
        (row,) = fit(module, train, test, Run.create(folder, {"task": "digits"}), options).history
    return round((1 - row["accuracy"]) * len(test)), sum(parameter.numel() for parameter in network.parameters())


@contextlib.contextmanager
def _without_epochs() -> Iterator[None]:
    """Leaves out the line that each of the ninety trainings logs for its epoch."""
    logger = logging.getLogger("edgedl.training")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _ink(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, 8, 8) of (n, 8, 8, 3)."""
    return np.asarray(Ink()(torch.from_numpy(pixels)).numpy(), np.float32)
