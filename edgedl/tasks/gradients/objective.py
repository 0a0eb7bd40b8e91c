"""How networks learn to store and recall: fresh sequences every epoch, and the error where something is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from edgedl.tasks.gradients.data import draw_sequences
from edgedl.training.batches import Array, DrawnBatches


class RecallBatches(DrawnBatches):
    """Fresh batches ``{"inputs": (B, T, 3), "targets": (B, T)}``.

    Args:
        steps: T.
        batch_size: B.
        count: batches of an epoch.
        seed: of the sequences.
    """

    def __init__(self, steps: int, batch_size: int, count: int, seed: int) -> None:
        super().__init__(batch_size, count, seed)
        self.steps = steps

    def draw(self, rows: int, seed: int) -> Mapping[str, Array]:
        """See `DrawnBatches.draw`."""
        part = draw_sequences(rows, steps=self.steps, seed=seed)
        return {"inputs": part.inputs, "targets": part.targets}


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
