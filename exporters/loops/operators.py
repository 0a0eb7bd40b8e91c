"""The operators that a rolled up loop is written with: what they compute in torch, and what they are traced as.

Series are stacked over the steps, first axis T. While it is being exported a loop becomes one ``Scan`` or one recurrent
layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from exporters import recurrent

aten = torch.ops.aten

MOST_NUMBERS = 64
"""How large a tensor of numbers that depend on the step may be."""


@dataclass(frozen=True, slots=True)
class Slot:
    """What stands for a tensor in the body of a loop: number ``index`` of those computed, ``state``, ``given`` at each
    step, or ``fixed``.
    """

    place: str
    index: int


@dataclass(frozen=True, slots=True)
class Steps:
    """How many steps a loop has.

    Attributes:
        number: At the lengths of now.
        least: At the shortest lengths.
    """

    number: Any
    least: int


def elements(x: Tensor, dim: int, start: Any, stride: Any, count: Any) -> Tensor:
    """So many elements of x along an axis, one each ``stride``: (count, …)."""
    turned = x.movedim(dim, 0)
    if type(stride) is int and stride == 1:
        return turned.narrow(0, start, count)
    if type(stride) is int and stride == -1:
        return turned.narrow(0, start - count + 1, count).flip(0)
    return turned.index_select(0, start + stride * torch.arange(count))


def series(x: Tensor, dim: int, index: Any, steps: Steps) -> Tensor:
    """The element of x along an axis that each step reads; negative numbers count from its end: (T, …)."""
    linear = index.formula if index.whole and index.formula.form == "linear" and not index.formula.curve else None
    if linear is not None and linear.slope in (1, -1):
        start = index.at(0, steps)
        end = start + linear.slope * (steps.number - 1)
        low = start if linear.slope == 1 else end
        if _is_at_least(low, 0):
            return elements(x, dim, start, linear.slope, steps.number)
        if linear.slope == -1 and _is_at_least(-1, start):
            return elements(x, dim, start + x.shape[dim], -1, steps.number)
    return x.index_select(dim, _in_range(index.over(steps), x.shape[dim])).movedim(dim, 0)


def windows(x: Tensor, dim: int, start: Any, width: int, steps: Steps) -> Tensor:
    """So many elements of x along an axis from where each step begins: (T, …, width, …)."""
    places = start.over(steps).unsqueeze(1) + torch.arange(width)
    found = x.index_select(dim, _in_range(places, x.shape[dim]).reshape(-1))
    parts: Any = found
    series: Tensor = parts.unflatten(dim, (steps.number, width)).movedim(dim, 0)
    return series


def numbers(tables: Sequence[Any], shape: Sequence[int], dtype: torch.dtype | None, steps: Steps) -> Tensor:
    """Numbers by the step: (T, …)."""
    found = [table.over(steps) for table in tables]
    one: Any = found[0] if not shape else torch.stack(found, dim=1)
    one = one.unflatten(1, tuple(shape)) if shape else one
    series: Tensor = one.to(one.dtype if dtype is None else dtype)
    return series


def constant(numbers: Sequence[Any], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor of numbers that depend on the lengths alone."""
    return torch.stack([torch.scalar_tensor(number, dtype=dtype) for number in numbers]).reshape(tuple(shape))


def one_of(values: Sequence[Tensor], index: Any, among: Sequence[int]) -> Tensor:
    """One of several results of a loop, by a number that depends on the lengths; it is among those given."""
    first, *others = among
    chosen, wanted = values[first], torch.scalar_tensor(index, dtype=torch.int64)
    for other in others:
        chosen = torch.where(wanted == other, values[other], chosen)
    return chosen


def _is_at_least(one: Any, other: Any) -> bool:
    """Whether that holds at every length."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return bool(statically_known_true(one >= other))


def _in_range(index: Tensor, size: Any) -> Tensor:
    """Indices as torch takes them; those that no step needs are somewhere."""
    return torch.where(index < 0, index + size, index).clamp(min=0).clamp(max=size - 1)


def delayed(x: Tensor, begin: Sequence[Tensor], start: Any, count: Any) -> Tensor:
    """What comes before x, and x from a step on, as far as is asked for: (count, …)."""
    return torch.cat([*(one.unsqueeze(0) for one in begin), x[start:] if start else x]).narrow(0, 0, count)


def padded(x: Tensor, before: Any, after: Any) -> Tensor:
    """Steps that nobody asks for, before and after those of x: (T, …)."""
    parts = [x.new_zeros((count, *x.shape[1:])) for count in (before, after)]
    return torch.cat(
        [
            part
            for part, count in zip((parts[0], x, parts[1]), (before, 1, after), strict=True)
            if type(count) is not int or count
        ]
    )


def filler(sizes: Sequence[Any], dtype: torch.dtype) -> Tensor:
    """A state that nobody asks for."""
    return torch.zeros(tuple(sizes), dtype=dtype)


def stacked(x: Tensor, dim: int) -> Tensor:
    """What ``torch.stack`` makes of the steps of x."""
    return x.movedim(0, dim)


def joined(x: Tensor, dim: int) -> Tensor:
    """What ``torch.cat`` makes of the steps of x."""
    dim %= x.dim() - 1
    return x.movedim(0, dim).flatten(dim, dim + 1)


def one_hot(x: Tensor, classes: Any) -> Tensor:
    """As torch's, for a number of classes that may be a size."""
    return (x.unsqueeze(-1) == torch.arange(classes)).to(torch.int64)


def summed(x: Tensor, begin: Tensor) -> Tensor:
    """The sum of all steps and of what it begins with."""
    return begin + x.sum(0)


def summed_so_far(x: Tensor, begin: Tensor) -> Tensor:
    """The same after each step: (T, …)."""
    return begin + x.cumsum(0)


def layer(
    kind: str, x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], steps: Steps, whole: bool
) -> tuple[Tensor, ...]:
    """A cell over time: its outputs (T, B, H) and the parts of its state after the last step.

    Args:
        kind: See `exporters.recurrent.cell_layer`.
        x: (T, B, I).
        state: Before the first step.
        weights: Of the cell.
        steps: How many.
        whole: Whether the memory cells of an LSTM are asked for after the last step.
    """
    if steps.least > 0:
        outputs, last = recurrent.cell_layer(kind, x, tuple(state), weights)
        return outputs, *last
    if kind == "lstm" and whole:
        given = torch.nn.functional.linear(x, weights[0], weights[2] if len(weights) > 2 else None)

        def step(
            now: Sequence[Tensor], before: Sequence[Tensor], weight: Tensor, bias: Tensor | None = None
        ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
            after = cell(kind, now[0], before, None, None, weight, bias)
            return after, after[:1]

        *final, outputs = over_steps(step, [given], state, [weights[1], *weights[3:]], steps)
        return outputs, *final
    # A layer of no step at all ends ONNX Runtime: one more is computed, which nobody asks for.
    outputs, _ = recurrent.cell_layer(kind, padded(x, 0, 1), tuple(state), weights)
    hidden = torch.cat([state[0].unsqueeze(0), outputs]).select(0, steps.number)
    return outputs.narrow(0, 0, steps.number), hidden, *state[1:]


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
    steps: Steps,
) -> tuple[Tensor, ...]:
    """A loop.

    Args:
        calls: What each step computes: operators with their arguments.
        carried: What becomes the next step's state.
        kept: What is kept of each step.
        given: The series that are read, (T, …) each.
        begin: The state before the first step.
        fixed: What is the same at every step.
        steps: How many.

    Returns:
        The state after the last step, and what was kept (T, …).
    """
    series = list(given) or [torch.arange(steps.number)]  # the number of steps has to come from somewhere

    # Sizes are inputs of the body like tensors.
    leaves, structure = _pytree.tree_flatten(calls)
    sizes = [leaf for leaf in leaves if isinstance(leaf, torch.SymInt)]
    numbers = iter(range(len(fixed), len(fixed) + len(sizes)))
    leaves = [Slot("fixed", next(numbers)) if isinstance(leaf, torch.SymInt) else leaf for leaf in leaves]
    calls = _pytree.tree_unflatten(leaves, structure)

    def step(now: Sequence[Tensor], state: Sequence[Tensor], *same: Any) -> tuple[tuple[Tensor, ...], ...]:
        places = {"given": now, "state": state, "fixed": same, "value": (found := [])}

        def filled(leaf: Any) -> Any:
            return places[leaf.place][leaf.index] if isinstance(leaf, Slot) else leaf

        for target, args, kwargs in calls:
            args, kwargs = _pytree.tree_map(filled, (tuple(args), dict(kwargs)))
            found.append(target(*args, **kwargs))
        return tuple(filled(slot) for slot in carried), tuple(filled(slot) for slot in kept)

    return over_steps(step, series, begin, [*fixed, *sizes], steps)


def over_steps(
    step: Any, given: Sequence[Tensor], begin: Sequence[Tensor], fixed: Sequence[Any], steps: Steps
) -> tuple[Tensor, ...]:
    """`exporters.recurrent.scan_steps`, which may have no step at all where ``steps.least`` says so.

    ONNX Runtime has no ``Scan`` of no step. So there is one more, which nobody asks for, and the state before it is
    looked up.
    """
    if steps.least > 0:
        return recurrent.scan_steps(step, given, begin, fixed)

    def noted(now: Sequence[Tensor], state: Sequence[Tensor], *same: Any) -> tuple[Any, Any]:
        after, kept = step(now, state, *same)
        return after, (*kept, *after)

    found = recurrent.scan_steps(noted, [padded(x, 0, 1) for x in given], begin, fixed)[len(begin) :]
    kept, states = found[: len(found) - len(begin)], found[len(found) - len(begin) :]
    last = [
        torch.cat([one.unsqueeze(0), all_of]).select(0, steps.number) for one, all_of in zip(begin, states, strict=True)
    ]
    return *last, *(x.narrow(0, 0, steps.number) for x in kept)
