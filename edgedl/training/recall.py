"""How networks learn to store and recall: fresh sequences every epoch, and the error where something is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edgedl.data.store_recall import draw_sequences
from edgedl.training.batches import derived_seed, rank_and_world


class RecallBatches:
    """Training batches ``{"inputs": (B, T, 3), "targets": (B, T)}`` that no epoch has seen before.

    A source for `edgedl.training.fit`: what it draws depends on seed, epoch and process only.

    Args:
        steps: T.
        batch_size: B.
        count: batches of an epoch.
        seed: of the sequences.
    """

    def __init__(self, steps: int, batch_size: int, count: int, seed: int) -> None:
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
        seed = derived_seed(self.seed, self.epoch, rank)
        part = draw_sequences(self.count * self.batch_size, steps=self.steps, seed=seed)
        for start in range(0, len(part), self.batch_size):
            rows = slice(start, start + self.batch_size)
            yield {"inputs": torch.from_numpy(part.inputs[rows]), "targets": torch.from_numpy(part.targets[rows])}


@dataclass(frozen=True, slots=True)
class RecallLearning:
    """The mean squared error over all steps, silence included; judged by that of the steps where something is asked."""

    monitor: str = "MSE"
    mode: Literal["min", "max"] = "min"

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The mean squared error over a batch and all steps."""
        return self._errors(network, batch).mean()

    def measure(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, int]]:
        """Sums over the batch and their counts: the squared error where something is asked, and where nothing is."""
        errors, asked = self._errors(network, batch), batch["inputs"][..., 2] > 0.5
        count = int(asked.sum())
        return {
            "MSE": ((errors * asked).sum(), max(count, 1)),
            "MSE_unasked": ((errors * ~asked).sum(), max(asked.numel() - count, 1)),
        }

    def _errors(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        state: tuple[Tensor, ...] = network.initial_state(len(batch["inputs"]))  # type: ignore[operator]  # not declared
        answers: Tensor = network(batch["inputs"], *state)[0]
        return (answers - batch["targets"]).square()
