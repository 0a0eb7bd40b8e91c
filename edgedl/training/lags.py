"""How networks learn to bridge long time lags: fresh sequences every epoch, and how many of them are right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.data.longlag import PROBLEMS, draw_sequences, right_rows
from edgedl.training.batches import derived_seed, rank_and_world


class LagBatches:
    """Training batches ``{"inputs", "lengths", "targets"}`` that no epoch has seen before; of digits, others each time.

    A source for `edgedl.training.fit`: what it draws depends on seed, epoch and process only, so that networks that are
    compared see the very same sequences.

    Args:
        problem: which one.
        length: T.
        batch_size: B.
        count: batches of an epoch.
        seed: of the sequences.
    """

    def __init__(self, problem: str, length: int, batch_size: int, count: int, seed: int) -> None:
        self.problem = problem
        self.length = length
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
        part = draw_sequences(self.problem, self.count * self.batch_size, length=self.length, seed=seed)
        columns = {"inputs": part.inputs, "lengths": part.lengths, "targets": part.targets}
        for start in range(0, len(part), self.batch_size):
            rows = slice(start, start + self.batch_size)
            yield {name: torch.from_numpy(column[rows]) for name, column in columns.items()}


@dataclass(frozen=True, slots=True)
class LagLearning:
    """The squared error of ``adding``, the cross-entropy in nats of the others, of ``copy`` over all steps."""

    problem: str
    mode: Literal["min", "max"] = "min"

    @property
    def monitor(self) -> str:
        """``MSE`` or ``nats``."""
        return "MSE" if self.problem == "adding" else "nats"

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The mean over a batch, a scalar."""
        return self._losses(_logits(network, batch), batch["targets"]).mean()

    def measure(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, int]]:
        """Sums over the batch and their counts: the loss, and the sequences that are right by the problem's rule."""
        answers, targets = _logits(network, batch), batch["targets"]
        losses = self._losses(answers, targets)
        if self.problem != "adding":
            answers = answers.softmax(dim=-1)
        right = right_rows(self.problem, answers.numpy(force=True), targets.numpy(force=True))
        return {
            self.monitor: (losses.sum(), losses.numel()),
            "right": (torch.tensor(float(right.sum()), device=losses.device), len(right)),
        }

    def _losses(self, answers: Tensor, targets: Tensor) -> Tensor:
        if self.problem == "adding":
            return (answers - targets).square()
        if PROBLEMS[self.problem].every_step:
            answers = answers.transpose(1, 2)  # (B, K, T)
        return F.cross_entropy(answers, targets, reduction="none")


def _logits(network: Any, batch: Mapping[str, Tensor]) -> Tensor:
    answers: Tensor = network.logits(batch["inputs"], batch["lengths"])
    return answers
