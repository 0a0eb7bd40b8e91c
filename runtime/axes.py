"""Which dimension of a signature is the batch, and which one runs over the steps of a sequence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from runtime.manifest import ModelSpec
from runtime.signature import TensorSpec

BATCH_NAMES = frozenset(("N", "B", "batch", "batch_size"))
"""A dimension of one of these names is the batch: items may be stacked along it. `H` of an [H, W, 3] image is not."""

Axes = Mapping[str, int]


def input_dimensions(spec: ModelSpec) -> tuple[str, ...]:
    """The names of the inputs' dimensions, in the order in which they appear."""
    return tuple(dict.fromkeys(size for tensor in spec.inputs for size in tensor.shape if isinstance(size, str)))


def batch_name(spec: ModelSpec) -> str | None:
    """The dimension that is the batch; None where there is none, or several names could be it."""
    names = BATCH_NAMES.intersection(input_dimensions(spec))
    return next(iter(names)) if len(names) == 1 else None


def batch_axes(spec: ModelSpec) -> tuple[Axes, Axes] | None:
    """Where the batch lies in every input and in every output; None where one of them has no single such axis."""
    name = batch_name(spec)
    if name is None:
        return None
    inputs, outputs = _axes(spec.inputs, name), _axes(spec.outputs, name)
    return None if inputs is None or outputs is None else (inputs, outputs)


def step_name(spec: ModelSpec) -> str | None:
    """The dimension of a model with a state that counts steps; None where there is no such dimension, or several.

    Every input that is not carried has it once, and no state has it. So it is what a stream may cut anywhere.
    """
    given = _uncarried(spec)[0]
    if not spec.state or not given:
        return None
    carried = {size for state in spec.state for size in state.shape}
    names = [
        size
        for size in given[0].shape
        if isinstance(size, str) and size not in carried and all(tensor.shape.count(size) == 1 for tensor in given)
    ]
    return names[0] if len(names) == 1 else None


def step_axes(spec: ModelSpec) -> tuple[Axes, Axes] | None:
    """Where the steps lie in every input and output that is not carried; None where one of them has no steps."""
    name = step_name(spec)
    if name is None:
        return None
    inputs, outputs = (_axes(tensors, name) for tensors in _uncarried(spec))
    return None if inputs is None or outputs is None else (inputs, outputs)


def _uncarried(spec: ModelSpec) -> tuple[list[TensorSpec], list[TensorSpec]]:
    before, after = {state.input for state in spec.state}, {state.output for state in spec.state}
    return [t for t in spec.inputs if t.name not in before], [t for t in spec.outputs if t.name not in after]


def _axes(tensors: Iterable[TensorSpec], name: str) -> Axes | None:
    tensors = tuple(tensors)
    if any(tensor.shape.count(name) != 1 for tensor in tensors):
        return None
    return {tensor.name: tensor.shape.index(name) for tensor in tensors}
