"""How networks learn to bridge long time lags: fresh sequences every epoch, and how many of them are right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.tasks.longlag.data import PROBLEMS, draw_sequences, right_rows
from edgedl.training.batches import Array, DrawnBatches


class LagBatches(DrawnBatches):
    """Fresh batches ``{"inputs", "lengths", "targets"}``; of digits, others each time.

    Args:
        problem: which one.
        length: T.
        batch_size: B.
        count: batches of an epoch.
        seed: of the sequences.
    """

    def __init__(self, problem: str, length: int, batch_size: int, count: int, seed: int) -> None:
        super().__init__(batch_size, count, seed)
        self.problem, self.length = problem, length

    def draw(self, rows: int, seed: int) -> Mapping[str, Array]:
        """See `DrawnBatches.draw`."""
        part = draw_sequences(self.problem, rows, length=self.length, seed=seed)
        return {"inputs": part.inputs, "lengths": part.lengths, "targets": part.targets}


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
