"""How a classifier of digits learns: cross-entropy with one-hot targets, and pictures that are moved a little."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from edgedl.tasks.digits.ink import Ink
from edgedl.training.augment import Augmentation
from edgedl.training.lightning_module import Batch
from edgedl.training.objectives import cross_entropy

ROOM = 2
"""Dark pixels laid around a picture before it is moved, so that no stroke at its edge is drawn out into the open."""


def moved(translate: float, *, rotate: float = 0.0, scale: float = 0.0) -> Augmentation:
    """Pictures that are moved, turned and scaled, and otherwise as they are: mirrored digits are others.

    Args:
        translate: largest shift in pixels of a picture of 8×8.
        rotate: largest turn in degrees.
        scale: largest relative change of size.
    """
    return Augmentation(
        flip=0, translate=translate / (8 + 2 * ROOM), scale=scale, rotate=rotate, brightness=0, contrast=0,
        saturation=0, colour=0, gray=0, noise=0, blur=0, coarse=0, erase=0,
    )  # fmt: skip


class PrepareInk:
    """Brings ``batch["image"]``, uint8 (N, 8, 8, 3), to ``batch["ink"]``, (N, 8, 8), augmented while training.

    The ink is found by the module that the graph holds, so that a network learns on what it will be served.
    """

    def __init__(self) -> None:
        self.ink = Ink()

    def __call__(self, batch: Batch, augmentation: Augmentation | None, generator: Generator | None) -> Batch:
        """Replaces the images of a batch by their ink."""
        images = batch["image"]
        rest = {name: column for name, column in batch.items() if name != "image"}
        self.ink.to(images.device)
        if augmentation is None or generator is None:
            return {**rest, "ink": self.ink(images)}
        roomy = F.pad(images.permute(0, 3, 1, 2), (ROOM, ROOM, ROOM, ROOM))  # (N, 3, 12, 12)
        levels = augmentation(roomy, None, generator)[:, :, ROOM:-ROOM, ROOM:-ROOM]
        return {**rest, "ink": self.ink(levels.permute(0, 2, 3, 1))}


@dataclass(frozen=True, slots=True)
class DigitLearning:
    """Minimises the cross-entropy between one-hot targets and the soft-max; judged by accuracy.

    Batches are ``{"ink": (N, 8, 8), "label": (N,)}``. `fit` keeps the epoch that `monitor` finds best.

    Attributes:
        classes: K.
        smoothing: share of each target that is spread over all classes.
    """

    classes: int = 10
    smoothing: float = 0.0
    monitor: str = "validation_loss"
    mode: Literal["min", "max"] = "min"

    def targets(self, labels: Tensor) -> Tensor:
        """One-hot (N, K) for labels (N,), smoothed."""
        exact = F.one_hot(labels, self.classes).float()
        return (1 - self.smoothing) * exact + self.smoothing / self.classes

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The mean cross-entropy of a batch, in nats."""
        return cross_entropy(network(batch["ink"]), self.targets(batch["label"]))

    def measure(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, int]]:
        """Sums over the batch and their count: the loss against exact targets, and the digits that are right."""
        logits, labels = network(batch["ink"]), batch["label"]
        right = (logits.argmax(dim=1) == labels).sum()
        return {
            "validation_loss": (F.cross_entropy(logits, labels, reduction="sum"), len(labels)),
            "accuracy": (right, len(labels)),
        }
