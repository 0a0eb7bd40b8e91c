"""Which recorded cases are replayed where a call takes fifty times as long: those that add something.

A second photo of the same size runs the same kernels with other numbers, and adds little. Another kind of size adds
something, because kernels have a way of their own for one row and for what is left over beyond whole vectors. So does
the longest sequence, where errors gather, and an edge: an input without contrast, or without anything in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from runtime.axes import batch_name, input_dimensions
from runtime.golden import GoldenCase
from runtime.manifest import ModelSpec

FEW = 4
"""So many of the cheapest cases are always replayed."""


def telling_cases(spec: ModelSpec, cases: Sequence[GoldenCase]) -> tuple[GoldenCase, ...]:
    """The cases that add something, in their order.

    Cases are looked at from the fewest numbers of input to the most. One is taken if

    - it is one of the first `FEW`,
    - one of its named sizes is of a kind that was not seen at this place: 0, 1, odd or even,
    - all numbers of an input are equal, or it has none, and no case before was so in the same inputs,
    - it has the largest of all sizes of a dimension that is not the batch, and none before had it.
    """
    names = [name for name in input_dimensions(spec) if name != batch_name(spec)]
    sizes = [_sizes(spec, case) for case in cases]
    largest = {name: max((one.get(name, 0) for one in sizes), default=0) for name in names}
    order = sorted(range(len(cases)), key=lambda i: sum(array.size for array in cases[i].inputs.values()))
    seen: set[tuple[str, Any]] = set()
    taken = []
    for place, index in enumerate(order):
        adds: set[tuple[str, Any]] = {(name, _kind(size)) for name, size in sizes[index].items()}
        adds |= {("largest", name) for name in names if sizes[index].get(name) == largest[name]}
        plain = tuple(name for name, array in cases[index].inputs.items() if _is_plain(array))
        adds |= {("plain", plain)} if plain else set()
        if place < FEW or adds - seen:
            taken.append(index)
            seen |= adds
    return tuple(cases[index] for index in sorted(taken))


def _sizes(spec: ModelSpec, case: GoldenCase) -> dict[str, int]:
    """The sizes of the named dimensions in a case."""
    return {
        name: size
        for tensor in spec.inputs
        if tensor.name in case.inputs
        for name, size in zip(tensor.shape, case.inputs[tensor.name].shape, strict=False)
        if isinstance(name, str)
    }


def _kind(size: int) -> str:
    return str(size) if size < 2 else ("odd" if size % 2 else "even")


def _is_plain(array: NDArray[Any]) -> bool:
    return not array.size or (array.ndim > 0 and array.size > 1 and bool((array == array.flat[0]).all()))
