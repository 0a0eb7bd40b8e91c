"""Arrays as JSON, for bundles whose task is only a graph: ``{"inputs": {NAME: nested lists}}``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from runtime.manifest import TensorSpec
from service.inputs import json_type
from service.problems import Problem, bad_request

MOST_BYTES = 4 * 2**20
"""Of a body. Python's lists take some ten times the memory of the text; whoever has more sends a .npy."""


def json_arrays(body: bytes, specs: Sequence[TensorSpec]) -> dict[str, NDArray[Any]]:
    """The arrays of a request, in the types that the graph declares. Whether their shapes fit, the graph's engine says.

    Args:
        body: Of the request.
        specs: The graph's inputs.

    Raises:
        Problem: 400, it is not of this form; 413, it is too long; 422, a value is none of its input's type, or lists
            have unequal lengths.
    """
    if len(body) > MOST_BYTES:
        raise Problem(
            413,
            f"Found {len(body):,} bytes of JSON; expected at most {MOST_BYTES:,}. Send the array as .npy, which is "
            "smaller and faster.",
            found=f"{len(body):,} bytes of JSON",
            expected=f"at most {MOST_BYTES:,} bytes",
        )
    names = ", ".join(f'"{spec.name}": …' for spec in specs)
    expected = f'an object {{"inputs": {{{names}}}}} with nested lists of numbers'
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"a body that is not JSON ({error})", expected) from error
    if not isinstance(document, dict) or document.keys() != {"inputs"}:
        found = f"an object with the keys {sorted(document)[:8]}" if isinstance(document, dict) else json_type(document)
        raise bad_request(found, expected)
    inputs = document["inputs"]
    if not isinstance(inputs, dict):
        raise bad_request(f"inputs of type {json_type(inputs)}", expected)
    by_name = {spec.name: spec for spec in specs}
    strangers = sorted(inputs.keys() - by_name.keys())
    if strangers:
        raise bad_request(f"the input {strangers[0][:40]!r}", expected)
    return {name: _array(by_name[name], value) for name, value in inputs.items()}


def _array(spec: TensorSpec, value: Any) -> NDArray[Any]:
    try:
        found = np.asarray(value)
    except ValueError:  # nested lists of unequal lengths
        found = np.asarray(None)
    if spec.dtype == "string":
        if found.dtype.kind == "U":
            return found
        raise _unfit(spec, "texts in lists of equal lengths")
    if found.size == 0:
        return found.astype(spec.dtype)
    if found.dtype.kind not in "iufb" or (found.dtype.kind == "b") != (spec.dtype == "bool"):
        raise _unfit(spec, f"{'true or false' if spec.dtype == 'bool' else 'numbers'} in lists of equal lengths")
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if found.dtype.kind == "f" or found.min() < limits.min or found.max() > limits.max:
            raise _unfit(spec, f"whole numbers from {limits.min} to {limits.max}")
    with np.errstate(over="ignore"):
        array: NDArray[Any] = found.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise _unfit(spec, f"numbers that {spec.dtype} can hold")
    return array


def _unfit(spec: TensorSpec, expected: str) -> Problem:
    return Problem(
        422,
        f"The input {spec.name} ({spec.dtype}) needs {expected}.",
        found=f"other values for {spec.name}",
        expected=expected,
    )
