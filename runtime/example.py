"""A recorded input that shows what a bundle does, for people who have no input of their own at hand.

Every bundle carries the inputs that it was proven on (`runtime.golden`). They may travel with it and are of the right
form, so one of them is the example.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle

MOST_NUMBERS = 100_000
"""In an example of arrays, which people read as JSON."""

Inputs = dict[str, NDArray[Any]]


def first_inputs(bundle: Bundle, model: str) -> Inputs | None:
    """The inputs of the first recorded case of a model; None where it has none.

    Raises:
        BundleError: the recorded cases are damaged.
    """
    cases = bundle.golden(model)
    return dict(cases[0].inputs) if cases else None


def longest_row(bundle: Bundle, model: str) -> Inputs | None:
    """Of the recorded cases with the fewest rows, the inputs of the one with the most numbers; None where none fits.

    A carried state is left out: an example begins with the initial one.

    Raises:
        BundleError: the recorded cases are damaged.
    """
    carried = {state.input for state in bundle.model(model).state}
    found = [
        {name: array for name, array in case.inputs.items() if name not in carried} for case in bundle.golden(model)
    ]
    fitting = [inputs for inputs in found if _numbers(inputs) <= MOST_NUMBERS and _is_finite(inputs)]
    return min(fitting, key=lambda inputs: (_rows(inputs), -_numbers(inputs)), default=None)


def _rows(inputs: Inputs) -> int:
    return max((len(array) for array in inputs.values() if array.ndim), default=1)


def _numbers(inputs: Inputs) -> int:
    return sum(array.size for array in inputs.values())


def _is_finite(inputs: Inputs) -> bool:
    """JSON has no other numbers."""
    return all(bool(np.isfinite(array).all()) for array in inputs.values() if array.dtype.kind == "f")
