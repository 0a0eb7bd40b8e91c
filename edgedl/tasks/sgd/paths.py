"""The path that a training takes through the space of its weights, recorded update by update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgedl.training.lightning_module import Learning
from edgedl.training.penalties import weights


@dataclass(frozen=True, slots=True, eq=False)
class WeightPath:
    """Where the weights were.

    Attributes:
        samples: (U + 1,) training samples seen before each point, 0 at the start.
        weights: (U + 1, n) all penalised weights in one row, before the first update and after each of U.
    """

    samples: NDArray[np.int64]
    weights: NDArray[np.float64]


class RecordedLearning:
    """Learns as another `Learning` does and remembers every weight on the way; for small networks.

    The weights are looked at when the loss is asked for, which is before each update, and when the network is
    measured, which is after the last one of an epoch. A training with averaged weights measures others than those it
    steps with, so it cannot be recorded.
    """

    def __init__(self, learning: Learning) -> None:
        self.learning = learning
        self._samples: list[int] = []
        self._points: list[NDArray[np.float64]] = []
        self._last: NDArray[np.float64] | None = None

    @property
    def monitor(self) -> str:
        """Name of the measure that chooses."""
        return self.learning.monitor

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether small or large is good."""
        return self.learning.mode

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss of a training batch, a scalar; notes where the weights stand."""
        self._points.append(_point(network))
        self._samples.append(len(next(iter(batch.values()))))
        return self.learning.loss(network, batch)

    def measure(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, tuple[Tensor, int]]:
        """Sums over a validation batch; notes where the epoch ended."""
        self._last = _point(network)
        return self.learning.measure(network, batch)

    def path(self) -> WeightPath:
        """What was recorded so far."""
        points = [*self._points, *([] if self._last is None else [self._last])]
        seen = np.concatenate([[0], np.cumsum(self._samples)])[: len(points)]
        return WeightPath(seen.astype(np.int64), np.stack(points))


def _point(network: nn.Module) -> NDArray[np.float64]:
    with torch.no_grad():
        flat = torch.cat([weight.reshape(-1) for weight in weights(network)])
    return flat.double().cpu().numpy().copy()
