"""How networks learn to time: fresh sequences every epoch, the squared error, and how many pulses are exact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edgedl.data.timer import draw_sequences, exact_pulses, find_pulses
from edgedl.training.batches import derived_seed, rank_and_world
from edgedl.training.through_time import through_time


class TimerBatches:
    """Training batches ``{"inputs": (B, T, 2), "targets": (B, T)}`` that no epoch has seen before.

    A source for `edgedl.training.fit`: what it draws depends on seed, epoch and process only.

    Args:
        scale: steps that u2 = 1 stands for.
        steps: T.
        batch_size: B.
        count: batches of an epoch.
        seed: of the sequences.
    """

    def __init__(self, scale: int, steps: int, batch_size: int, count: int, seed: int) -> None:
        self.scale = scale
        self.steps = steps
        self.batch_size = batch_size
        self.count = count
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; takes effect with the next ``iter``."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rank, _ = rank_and_world()
        part = draw_sequences(
            self.count * self.batch_size,
            scale=self.scale,
            steps=self.steps,
            seed=derived_seed(self.seed, self.epoch, rank),
        )
        for start in range(0, len(part), self.batch_size):
            rows = slice(start, start + self.batch_size)
            yield {"inputs": torch.from_numpy(part.inputs[rows]), "targets": torch.from_numpy(part.targets[rows])}


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
