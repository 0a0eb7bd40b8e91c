"""The operators that a rolled up loop is written with: what they compute in torch, and what they are traced as.

Series are stacked over the steps, first axis T. While it is being exported a loop becomes one ``Scan`` or one recurrent
layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from exporters import recurrent


@dataclass(frozen=True, slots=True)
class Slot:
    """What stands for a tensor in the body of a loop: number ``index`` of those computed, ``state``, ``given`` at each
    step, or ``fixed``.
    """

    place: str
    index: int


def series(x: Tensor, dim: int, backwards: bool) -> Tensor:
    """The elements of x along an axis, in the order of the steps: (T, …)."""
    turned = x.movedim(dim, 0)
    return turned.flip(0) if backwards else turned


def delayed(x: Tensor, begin: Tensor) -> Tensor:
    """What x was a step before, and at the first step ``begin``: (T, …)."""
    return torch.cat([begin.unsqueeze(0), x[:-1]])


def stacked(x: Tensor, dim: int) -> Tensor:
    """What ``torch.stack`` makes of the steps of x."""
    return x.movedim(0, dim)


def joined(x: Tensor, dim: int) -> Tensor:
    """What ``torch.cat`` makes of the steps of x."""
    dim %= x.dim() - 1
    return x.movedim(0, dim).flatten(dim, dim + 1)


def for_all(target: Any, over: Sequence[bool], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """An operator at all steps at once; ``over`` says which of its arguments differ from step to step."""
    if target is torch.ops.aten.linear.default and list(over)[:2] == [True, False] and not any(over[1:]):
        return torch.nn.functional.linear(*args)
    leaves, structure = _pytree.tree_flatten((list(args), dict(kwargs)))

    def once(*moving: Tensor) -> Any:
        given = iter(moving)
        filled = [next(given) if moves else leaf for leaf, moves in zip(leaves, over, strict=True)]
        arguments, named = _pytree.tree_unflatten(filled, structure)
        return target(*arguments, **named)

    return torch.vmap(once)(*(leaf for leaf, moves in zip(leaves, over, strict=True) if moves))


def layer(kind: str, x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """A cell over time: its outputs (T, B, H) and the parts of its state after the last step."""
    outputs, last = recurrent.cell_layer(kind, x, tuple(state), weights)
    return outputs, *last


def scan(
    calls: Sequence[Any],
    carried: Sequence[Slot],
    kept: Sequence[Slot],
    given: Sequence[Tensor],
    begin: Sequence[Tensor],
    fixed: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """A loop.

    Args:
        calls: What each step computes: operators with their arguments.
        carried: What becomes the next step's state.
        kept: What is kept of each step.
        given: The series that are read, (T, …) each.
        begin: The state before the first step.
        fixed: What is the same at every step.

    Returns:
        The state after the last step, and what was kept (T, …).
    """

    def step(now: Sequence[Tensor], state: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        values: list[Any] = []
        places = {"value": values, "given": now, "state": state, "fixed": fixed}
        for target, args, kwargs in calls:
            arguments, named = _pytree.tree_map(
                lambda leaf: places[leaf.place][leaf.index] if isinstance(leaf, Slot) else leaf, (args, kwargs)
            )
            values.append(target(*arguments, **named))
        return tuple(values[slot.index] for slot in carried), tuple(values[slot.index] for slot in kept)

    return recurrent.scan_steps(step, given, begin)
