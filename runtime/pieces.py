"""A long call in pieces: rows a few at a time, the steps of a recurrent model with its state carried between them.

What a graph takes in memory grows with what is asked in one call: an LSTM of 64 units takes over a kilobyte a step.
In pieces it stays the same however long the call is. A call is cut between rows only where they do not depend on each
other, and a model that declares a state promises that n calls of one step answer as one call of n steps. So the answer
is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.axes import Axes, batch_axes, batch_name, step_axes, step_name
from runtime.checks import size_range
from runtime.engine import Engine
from runtime.manifest import ModelSpec

Arrays = Mapping[str, NDArray[Any]]
Sizes = Mapping[str, int]

PIECE = 1 << 18
"""Elements of one call's inputs, outputs and states together; a larger call is cut where it can be."""

STACKED = 1 << 20
"""Elements, counted in the same way, of calls that are stacked."""

MOST_ROWS = 32
"""Rows of calls that are stacked."""

_GATES = 8
"""Elements that a recurrent layer takes a step for each element of its state: four gates, before and after."""


def run_in_pieces(
    engine: Engine, inputs: Arrays, *, apart: Callable[[], bool] = lambda: True
) -> dict[str, NDArray[Any]]:
    """Answers a call of any length; a state that is missing begins as declared.

    Args:
        engine: of the model.
        inputs: by name; those of the state may be missing.
        apart: tells whether rows do not depend on each other, see `runtime.rows`. It is asked only where a call is long
            enough to be cut between them.

    Returns:
        All outputs by name, those of the state as well.

    Raises:
        InputError: as `Engine.run` and `Stream.step`.
    """
    carried = {state.input for state in engine.spec.state}
    if any(tensor.name not in inputs and tensor.name not in carried for tensor in engine.spec.inputs):
        return engine.run(inputs)  # which says what is missing
    return _rows(engine, inputs, engine.check(inputs, partial=True)[1], apart)


def count_outputs(spec: ModelSpec, sizes: Sizes) -> int:
    """Elements of all outputs together; a size that no input has counts as 1."""
    return sum(_count(tensor.shape, sizes) for tensor in spec.outputs)


def run_together(
    engine: Engine, items: Sequence[Arrays], told: Callable[[Sequence[int]], None] = lambda _places: None
) -> list[dict[str, NDArray[Any]]]:
    """Answers several calls in their order: small ones stacked, a large one in pieces.

    Args:
        engine: of the model. Its rows must not depend on each other.
        items: each as `run_in_pieces` takes it.
        told: called for each run that answers several items with their places.

    Raises:
        InputError: one of them does not fit. None is answered then.
    """
    sizes = [engine.check(inputs, partial=True)[1] for inputs in items]
    complete = [_with_states(engine.spec, inputs, known) for inputs, known in zip(items, sizes, strict=True)]
    small = [
        index
        for index, inputs in enumerate(complete)
        if len(inputs) == len(engine.spec.inputs) and _cost(engine.spec, sizes[index]) <= PIECE
    ]
    limit = _row_limit(engine.spec)
    answers = engine.batch(
        [complete[index] for index in small],
        limit=limit,
        told=lambda places: told([small[place] for place in places]) if len(places) > 1 else None,
    )
    stacked = dict(zip(small, answers, strict=True))
    return [stacked[i] if i in stacked else run_in_pieces(engine, inputs) for i, inputs in enumerate(items)]


def _row_limit(spec: ModelSpec) -> Callable[[Arrays], int]:
    """How many rows like those of a call may run together."""
    axes, name = batch_axes(spec), batch_name(spec)

    def limit(inputs: Arrays) -> int:
        if axes is None or name is None:
            return 1
        sizes: dict[str, int] = {
            symbol: size
            for tensor in spec.inputs
            for symbol, size in zip(tensor.shape, inputs[tensor.name].shape, strict=True)
            if isinstance(symbol, str)
        }
        return max(1, min(MOST_ROWS, STACKED * sizes[name] // max(1, _cost(spec, sizes))))

    return limit


def _with_states(spec: ModelSpec, inputs: Arrays, sizes: Sizes) -> Arrays:
    """The inputs, and zeros for states that are missing and whose sizes are known."""
    missing = [
        state
        for state in spec.state
        if state.input not in inputs and all(not isinstance(size, str) or size in sizes for size in state.shape)
    ]
    zeros = {
        state.input: np.zeros([sizes[size] if isinstance(size, str) else size for size in state.shape], state.dtype)
        for state in missing
    }
    return {**inputs, **zeros} if zeros else inputs


def _rows(engine: Engine, inputs: Arrays, sizes: Sizes, apart: Callable[[], bool]) -> dict[str, NDArray[Any]]:
    """Answers some rows at a time."""
    axes, name = batch_axes(engine.spec), batch_name(engine.spec)
    at_once = _at_once(engine.spec, sizes, name)
    if axes is None or name is None or at_once is None or not apart():
        return _steps(engine, inputs, sizes)
    some = {**sizes, name: at_once}
    return _joined([_steps(engine, part, some) for part in _cut(inputs, axes[0], sizes[name], at_once)], axes[1])


def _steps(engine: Engine, inputs: Arrays, sizes: Sizes) -> dict[str, NDArray[Any]]:
    """Answers rows that belong together; of a model with a state, some steps at a time."""
    spec = engine.spec
    if not spec.state:
        return engine.run(inputs)
    carried = {state.input: state.output for state in spec.state}
    stream = engine.stream({name: array for name, array in inputs.items() if name in carried})
    given = {name: array for name, array in inputs.items() if name not in carried}
    axes, name = step_axes(spec), step_name(spec)
    at_once = _at_once(spec, sizes, name)
    if axes is None or name is None or at_once is None:
        found = stream.step(given)
    else:
        found = _joined([stream.step(part) for part in _cut(given, axes[0], sizes[name], at_once)], axes[1])
    found |= {carried[name]: array for name, array in stream.state.items()}
    return {tensor.name: found[tensor.name] for tensor in spec.outputs}


def _at_once(spec: ModelSpec, sizes: Sizes, name: str | None) -> int | None:
    """How long a piece along a dimension is; None where the call is not to be cut along it."""
    if name is None or 1 not in size_range(spec, name):
        return None
    cost = _cost(spec, sizes)
    return max(1, PIECE * sizes[name] // cost) if cost > PIECE and sizes[name] > 1 else None


def _cost(spec: ModelSpec, sizes: Sizes) -> int:
    """Elements of a call's inputs, outputs and states."""
    states = _GATES * sum(_count(state.shape, sizes) for state in spec.state) * sizes.get(step_name(spec) or "", 1)
    return sum(_count(tensor.shape, sizes) for tensor in spec.inputs) + count_outputs(spec, sizes) + states


def _count(shape: Sequence[int | str], sizes: Sizes) -> int:
    return math.prod(sizes.get(size, 1) if isinstance(size, str) else size for size in shape)


def _cut(inputs: Arrays, axes: Axes, length: int, at_once: int) -> Iterator[Arrays]:
    for start in range(0, length, at_once):
        yield {
            name: array[(slice(None),) * axes[name] + (slice(start, start + at_once),)]
            for name, array in inputs.items()
        }


def _joined(answers: Sequence[Arrays], axes: Axes) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([answer[name] for answer in answers], axis) for name, axis in axes.items()}
