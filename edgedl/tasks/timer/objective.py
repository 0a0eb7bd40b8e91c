"""How networks learn to time: fresh sequences every epoch, the squared error, and how many pulses are exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edgedl.tasks.timer.data import SPACING, draw_sequences, exact_pulses, find_pulses
from edgedl.tasks.timer.through_time import through_time
from edgedl.training.batches import Array, DrawnBatches


class TimerBatches(DrawnBatches):
    """Fresh batches ``{"inputs": (B, T, 2), "targets": (B, T)}``.

    Args:
        scale: steps that u2 = 1 stands for.
        steps: T.
        batch_size: B.
        count: batches of an epoch.
        seed: of the sequences.
        spacing: scales from a start to the next, on average.
    """

    def __init__(
        self, scale: int, steps: int, batch_size: int, count: int, seed: int, spacing: float = SPACING
    ) -> None:
        super().__init__(batch_size, count, seed)
        self.scale, self.steps, self.spacing = scale, steps, spacing

    def draw(self, rows: int, seed: int) -> Mapping[str, Array]:
        """See `DrawnBatches.draw`."""
        part = draw_sequences(rows, scale=self.scale, steps=self.steps, seed=seed, spacing=self.spacing)
        return {"inputs": part.inputs, "targets": part.targets}


@dataclass(frozen=True, slots=True)
class TimerLearning:
    """The mean squared error, by back-propagation through time over `truncate` steps, or all of them."""

    scale: int
    truncate: int | None = None
    monitor: str = "MSE"
    mode: Literal["min", "max"] = "min"

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The mean squared error over a batch and all steps."""
        inputs = batch["inputs"]
        answers, *_ = through_time(network, inputs, _zeros(network, len(inputs)), self.truncate)
        return (answers - batch["targets"]).square().mean()

    def measure(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, int]]:
        """Sums over the batch and their counts: the squared error over steps, and the exact ones over whole pulses."""
        inputs, targets = batch["inputs"], batch["targets"]
        answers, *_ = network(inputs, *_zeros(network, len(inputs)))
        pulses = find_pulses(inputs.numpy(force=True), self.scale)
        exact = exact_pulses(answers.numpy(force=True), targets.numpy(force=True), pulses)[pulses.complete]
        return {
            "MSE": ((answers - targets).square().sum(), targets.numel()),
            "exact": (torch.tensor(float(exact.sum()), device=inputs.device), max(len(exact), 1)),
        }


def _zeros(network: nn.Module, rows: int) -> tuple[Tensor, ...]:
    state: tuple[Tensor, ...] = network.initial_state(rows)  # type: ignore[operator]  # not declared by nn.Module
    return state
