"""The age head of DEX and the whole age graph: pixels of a face in, years out.

Rothe, Timofte, Van Gool 2018, "Deep expectation of real and apparent age from a single image without facial
landmarks", section 3: classify into years, take the soft-max, and answer with its expectation E = Σ pᵢ·yᵢ.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from exporters.image import resize_images

CENTRAL = 0.8
"""Share of the distribution that lies between `low` and `high`."""


def expectation(probabilities: Tensor, years: Tensor) -> Tensor:
    """E = Σ pᵢ·yᵢ: (N, K) and (K,) -> (N,), in years."""
    return (probabilities * years).sum(dim=1)


def class_edges(years: Sequence[float]) -> list[float]:
    """Bounds of the K cells around K ascending years: halfway to the neighbour, and nobody is younger than 0.

    Returns:
        K + 1 ages in ascending order.

    Raises:
        ValueError: fewer than two years, or years that do not ascend.
    """
    if len(years) < 2 or any(b <= a for a, b in pairwise(years)):
        raise ValueError(f"expected at least two ascending years, got {list(years)[:5]}…")
    inner = [(a + b) / 2 for a, b in pairwise(years)]
    return [max(0.0, years[0] - (inner[0] - years[0])), *inner, years[-1] + (years[-1] - inner[-1])]


def quantile(probabilities: Tensor, edges: Tensor, share: float) -> Tensor:
    """The age below which `share` of the distribution lies, each class spread evenly over its cell.

    Args:
        probabilities: (N, K), rows summing to one.
        edges: (K + 1,), from `class_edges`.
        share: between 0 and 1.

    Returns:
        (N,) in years; continuous in the probabilities, so that rounding cannot make it jump.
    """
    cumulative = probabilities.cumsum(dim=1)
    cell = (cumulative < share).sum(dim=1, keepdim=True).clamp(max=probabilities.shape[1] - 1)  # (N, 1)
    mass = probabilities.gather(1, cell)
    beyond = cumulative.gather(1, cell) - share
    fraction = (1 - beyond / mass).clamp(0, 1)
    lower, upper = edges[:-1], edges[1:]
    return (lower[cell] + fraction * (upper - lower)[cell]).squeeze(1)


class AgeNetwork(nn.Module):
    """The graph that is exported: uint8 faces of any size -> age, low, high and the distribution.

    Args:
        backbone: maps RGB levels (N, 3, size, size) to features (N, backbone.features).
        years: the K classes, ascending.
        size: side in pixels that the backbone was trained at.
        dropout: share of features dropped while training.

    The buffer `sharpness` (1, until a training calibrates it) multiplies the class scores before the soft-max: the
    inverse of the temperature of Guo et al. 2017.
    """

    def __init__(self, backbone: nn.Module, years: Sequence[float], size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.size = size
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(int(backbone.features), len(years))  # type: ignore[arg-type]  # a plain int attribute
        self.register_buffer("years", torch.tensor(list(years), dtype=torch.float32))
        self.register_buffer("edges", torch.tensor(class_edges(years), dtype=torch.float32))
        self.years: Tensor
        self.register_buffer("sharpness", torch.ones(()))
        self.edges: Tensor
        self.sharpness: Tensor

    def logits(self, levels: Tensor) -> Tensor:
        """Maps RGB levels 0..255, (N, 3, size, size) float, to class scores (N, K): what training needs."""
        return self.head(self.dropout(self.backbone(levels)))  # type: ignore[no-any-return]

    def answers(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Maps class scores (N, K) to age, low, high, each (N,) in years, and probabilities (N, K)."""
        probabilities = (logits * self.sharpness).softmax(dim=1)
        tail = (1 - CENTRAL) / 2
        return (
            expectation(probabilities, self.years),
            quantile(probabilities, self.edges, tail),
            quantile(probabilities, self.edges, 1 - tail),
            probabilities,
        )

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Maps uint8 RGB faces (N, H, W, 3) to age, low, high (N,) in years, and probabilities (N, K)."""
        levels = resize_images(face, (self.size, self.size), self.years.dtype)
        return self.answers(self.logits(levels))
