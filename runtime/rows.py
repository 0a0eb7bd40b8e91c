"""Whether the rows of a call depend on each other.

A queue that stacks the requests of several senders along the batch axis gives each of them the right answer only where
a row's answer does not depend on its neighbours. A dimension's name does not say so: ``x - x.mean(0)`` has a batch
axis, too. Recorded cases tell it: their rows are asked one by one, and each answer is compared with the recorded one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.axes import batch_axes
from runtime.compare import EXACT, compare
from runtime.engine import Engine
from runtime.errors import EdgedlError
from runtime.golden import GoldenCase
from runtime.manifest import ModelSpec

MOST_ROWS = 8
"""Rows of one case that are asked one by one."""


def telling_rows(spec: ModelSpec, case: GoldenCase) -> bool:
    """Whether a case can tell that rows depend on each other: it has two rows that are not equal."""
    axes = batch_axes(spec)
    if axes is None or not axes[0].keys() <= case.inputs.keys():
        return False
    rows = [np.moveaxis(case.inputs[name], axis, 0) for name, axis in axes[0].items()]
    return any(len(array) > 1 and bool((array[1:] != array[:1]).any()) for array in rows)


def telling_case(spec: ModelSpec, cases: Sequence[GoldenCase]) -> GoldenCase | None:
    """The smallest case for which `telling_rows` is true; None where there is none."""
    telling = [case for case in cases if telling_rows(spec, case)]
    return min(telling, key=lambda case: sum(array.size for array in case.inputs.values()), default=None)


def rows_stand_alone(engine: Engine, case: GoldenCase, variant: str = "fp32") -> bool:
    """Whether each row of a recorded case, asked alone, gives what was recorded for it among the others.

    A variant with a budget gives other answers than were recorded. Its row alone is compared with its own answer to all
    rows.

    Args:
        engine: The graph, opened with the bundle's signature.
        case: One for which `telling_rows` is true, and whose answers as a whole are those recorded.
        variant: The form of the graph; it may have tolerances of its own.
    """
    axes = batch_axes(engine.spec)
    if axes is None:
        return False
    parity = engine.spec.parity_of(variant) if variant in engine.spec.variants else engine.spec.parity
    inputs, outputs = axes
    count = min(case.inputs[name].shape[axis] for name, axis in inputs.items())
    form = engine.spec.variants.get(variant)
    if form is not None and form.budget is not None:
        case = replace(case, outputs=engine.run(case.inputs))
    if any(name not in case.outputs or case.outputs[name].shape[axis] < count for name, axis in outputs.items()):
        return False
    for row in range(min(count, MOST_ROWS)):
        try:
            answers = engine.run(_row(case.inputs, inputs, row))
        except EdgedlError:
            return False
        expected = _row(case.outputs, outputs, row)
        for name, answer in answers.items():
            tolerance = parity.outputs.get(name, EXACT) if parity else EXACT
            if not compare(name, answer, expected[name], tolerance):
                return False
    return True


def _row(arrays: Mapping[str, NDArray[Any]], axes: Mapping[str, int], row: int) -> dict[str, NDArray[Any]]:
    return {name: np.take(arrays[name], [row], axis) for name, axis in axes.items()}
