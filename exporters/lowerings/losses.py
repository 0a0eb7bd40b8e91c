"""Cross-entropies written out, as torch reckons them: of each row, smoothed, weighted, with targets of any kind.

torch.onnx loses the smoothing, knows no targets that are probabilities, and its losses of single rows have no shape.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def cross_entropy(
    input: Tensor,  # noqa: A002 - torch's name
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Of logits (N, C, …) or (C,) and classes (N, …), or probabilities of the shape of the logits."""
    if size_average is not None or reduce is not None:
        return NotImplemented
    axis = min(1, input.dim() - 1)
    logs = input.log_softmax(axis)
    if not target.is_floating_point():
        return _of_classes(logs, target, weight, ignore_index, reduction, label_smoothing)
    share = target * (1 - label_smoothing) + label_smoothing / input.shape[axis]
    losses = -(logs * share * _along(weight, logs, axis)).sum(axis)
    return _reduced(losses, losses.numel(), reduction)


def negative_log_likelihood(
    input: Tensor,  # noqa: A002 - torch's name
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """Minus the log-probability of each class."""
    if size_average is not None or reduce is not None:
        return NotImplemented
    return _of_classes(input, target, weight, ignore_index, reduction, 0.0)


def _of_classes(
    logs: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str, smoothing: float
) -> Tensor:
    axis = min(1, logs.dim() - 1)
    counted = target != ignore_index
    known = torch.where(counted, target, torch.zeros_like(target))
    picked = logs.gather(axis, known.unsqueeze(axis)).squeeze(axis)
    share = torch.ones_like(picked) if weight is None else weight[known]
    losses = -picked * share
    if smoothing:
        every = (logs * _along(weight, logs, axis)).sum(axis)
        losses = losses * (1 - smoothing) - every * (smoothing / logs.shape[axis])
    nothing = torch.zeros_like(losses)
    return _reduced(torch.where(counted, losses, nothing), torch.where(counted, share, nothing).sum(), reduction)


def _along(weight: Tensor | None, logs: Tensor, axis: int) -> Any:
    """Weights of the classes along their axis."""
    return 1.0 if weight is None else weight.reshape(-1, *[1] * (logs.dim() - axis - 1))


def _reduced(losses: Tensor, count: Any, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / count
