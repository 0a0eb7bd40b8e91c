"""The smallest network there is to watch: two weights, no bias, so that its cost is a surface over a plane."""

from __future__ import annotations

import torch
from torch import Tensor, nn

START = (-1.5, 1.5)
"""Where every path begins: off both axes of the embedded problem's valley."""


class TwoWeights(nn.Module):
    """Two gauges (N, 2) in millivolt -> the force (N,) in newton: f = w₁x₁ + w₂x₂.

    Args:
        dropout: share of the readings that training drops, those that stay being scaled by 1 / (1 − share). For a
            linear network and squared errors that is, on average, an L2 penalty of the size that each reading has
            (Srivastava et al. 2014, section 9.1).
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([START]))

    def forward(self, gauges: Tensor) -> Tensor:
        """Answers in newton."""
        force: Tensor = self.linear(self.dropout(gauges))
        return force.squeeze(1)
