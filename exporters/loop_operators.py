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

aten = torch.ops.aten

_ANY_RANK = {aten._to_copy.default, aten.to.dtype, aten.contiguous.default}
_AXES: dict[Any, tuple[int, int | None]] = {
    aten.select.int: (1, None),
    aten.unsqueeze.default: (1, None),
    aten.squeeze.dim: (1, None),
    aten.slice.Tensor: (1, 0),
    aten.softmax.int: (1, None),
    aten.log_softmax.int: (1, None),
    aten.chunk.default: (2, 0),
    aten.split.Tensor: (2, 0),
    aten.sum.dim_IntList: (1, None),
    aten.mean.dim: (1, None),
}
"""Operators along axes: which argument names them, and what it is if it is left out."""


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


def has_all(target: Any, over: Sequence[bool], args: Sequence[Any]) -> bool:
    """Whether `for_all` can compute an operator for all steps at once.

    Args:
        target: The operator.
        over: Of each tensor and constant among its arguments, whether it differs from step to step.
        args: Its arguments at one step.
    """
    if torch.Tag.pointwise in getattr(target, "tags", ()) or target in _ANY_RANK:
        return True
    if target in (aten.linear.default, aten.layer_norm.default):
        return over[0] and not any(over[1:])
    if target in _AXES:
        place = _AXES[target][0]
        return over[0] and (len(args) <= place or args[place] not in (None, []))  # else these are all axes
    if target is aten.embedding.default:
        return list(over[:2]) == [False, True]
    return target is aten.cat.default and all(over[: len(args[0])])


def for_all(target: Any, over: Sequence[bool], rank: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """An operator at all steps at once.

    Args:
        target: The operator, for which `has_all` holds.
        over: See `has_all`.
        rank: How many axes the result has at one step.
        args: What differs from step to step has its steps first.
        kwargs: Constants.
    """
    args = list(args)
    if target in _AXES:
        place, default = _AXES[target]
        args += [default] * (place + 1 - len(args))
        args[place] = _behind_steps(args[place])
    elif target is aten.cat.default:
        args[1:] = [_behind_steps(args[1] if len(args) > 1 else 0)]
    elif torch.Tag.pointwise in target.tags:
        moving = iter(over)
        args = [_of_rank(arg, rank + 1) if next(moving) else arg for arg in args]
    return target(*args, **kwargs)


def _behind_steps(axes: Any) -> Any:
    """Axes of a step where the steps come first; those that count from the end stay."""
    if isinstance(axes, list | tuple):
        return [_behind_steps(axis) for axis in axes]
    return axes + 1 if axes >= 0 else axes


def _of_rank(x: Tensor, rank: int) -> Tensor:
    """A tensor with axes of size 1 after the steps, so that it is broadcast as each step would be."""
    while x.dim() < rank:
        x = x.unsqueeze(1)
    return x


def layer(kind: str, x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """A cell over time: its outputs (T, B, H) and the parts of its state after the last step."""
    outputs, last = recurrent.cell_layer(kind, x, tuple(state), weights)
    return outputs, *last


def cell(
    kind: str,
    x: Tensor,
    state: Sequence[Tensor],
    input_weight: Tensor | None,
    input_bias: Tensor | None,
    state_weight: Tensor,
    state_bias: Tensor | None,
) -> Any:
    """One step of a cell of torch.

    Args:
        kind: See `exporters.recurrent.cell_layer`.
        x: (B, I), or if there is no weight for it already its share in the gates (B, gates·H).
        state: (B, H) each.
        input_weight: (gates·H, I).
        input_bias: (gates·H,).
        state_weight: (gates·H, H).
        state_bias: (gates·H,).

    Returns:
        The hidden units (B, H); of an LSTM also its memory cells.
    """
    linear = torch.nn.functional.linear
    given = x if input_weight is None else linear(x, input_weight, input_bias)
    share = linear(state[0], state_weight, state_bias)
    if kind == "lstm":
        i, f, g, o = (given + share).chunk(4, dim=-1)
        memory = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * memory.tanh(), memory
    if kind == "gru":
        (r, z, n), (r_share, z_share, n_share) = given.chunk(3, dim=-1), share.chunk(3, dim=-1)
        new = (n + (r + r_share).sigmoid() * n_share).tanh()
        return new + (z + z_share).sigmoid() * (state[0] - new)
    return (given + share).tanh() if kind == "tanh" else (given + share).relu()


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
    body = _written(calls, carried, kept, [len(given), len(begin), len(fixed)])

    def step(now: Sequence[Tensor], state: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        found = body(*now, *state, *fixed)
        return found[: len(carried)], found[len(carried) :]

    return recurrent.scan_steps(step, given, begin)


def _written(calls: Sequence[Any], carried: Sequence[Slot], kept: Sequence[Slot], counts: Sequence[int]) -> Any:
    """The body of a loop as a function without a loop in it, which is all that torch takes for the body of a scan."""
    graph = torch.fx.Graph()
    nodes: dict[Slot, torch.fx.Node] = {}
    for place, count in zip(("given", "state", "fixed"), counts, strict=True):
        for index in range(count):
            nodes[Slot(place, index)] = graph.placeholder(f"{place}_{index}")
    for index, (target, args, kwargs) in enumerate(calls):
        arguments, named = _pytree.tree_map(
            lambda leaf: nodes[leaf] if isinstance(leaf, Slot) else leaf, (tuple(args), dict(kwargs))
        )
        nodes[Slot("value", index)] = graph.call_function(target, arguments, named)
    graph.output(tuple(nodes[slot] for slot in (*carried, *kept)))
    return torch.fx.GraphModule(torch.nn.Module(), graph).forward
