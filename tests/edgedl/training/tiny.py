"""A task small enough to train in a second: pictures whose brightness is the age. Importable, so that it pickles."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgedl.training.batches import Samples
from edgedl.training.lightning_module import PrepareImages, TaskModule
from edgedl.training.objectives import AgeLearning, AgeObjective

YEARS = range(0, 101, 10)


class TinyNetwork(nn.Module):
    """Has what makes resuming hard: batch statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(8, len(YEARS))

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.conv(images / 128 - 1)).relu().mean(dim=(2, 3))
        return self.head(self.dropout(features))


def tiny_module(learning: AgeLearning | None = None, seed: int = 0) -> TaskModule:
    torch.manual_seed(seed)
    learning = learning or AgeLearning(AgeObjective(YEARS))
    return TaskModule(TinyNetwork(), learning, prepare=PrepareImages(12), head=("head",))


def tiny_samples(count: int = 200, seed: int = 0) -> Samples:
    generator = np.random.default_rng(seed)
    ages = generator.integers(0, 101, count).astype(np.float32)
    noise = generator.integers(0, 30, (count, 16, 16, 3))
    pictures = (2.2 * ages[:, None, None, None] + noise).astype(np.uint8)
    return Samples({"image": [pictures, pictures[:, :, ::-1].copy()], "age": ages})
