"""Numbers as JSON and lines of text give them, as arrays of the declared type: each value exactly, or refused by place.

A text is no number and neither is a truth value, however deep in a list. A number that the type cannot hold is
refused, not rounded to infinity or wrapped around.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.fields import kind_of
from runtime.signature import TensorSpec

EXACT = 2.0**53
"""Up to here a float64 stands for one whole number only."""

_TYPES: dict[str, tuple[frozenset[type], str]] = {
    "bool": (frozenset((bool,)), "true or false"),
    "string": (frozenset((str,)), "texts"),
}
_NUMBERS = (frozenset((int, float)), "numbers")


def as_array(spec: TensorSpec, value: Any) -> NDArray[Any]:
    """Nested lists, or a single value, as an array of the type of an input. Whether its shape fits is not looked at.

    Args:
        spec: the input.
        value: what a JSON parser gave; whole numbers may have any size.

    Raises:
        InputError: a value is none of the input's type; the message has its place.
    """
    nested = np.array(value, dtype=object)  # lists of unequal lengths stay lists inside of it
    shape: tuple[int, ...] = nested.shape
    flat = nested.reshape(-1).tolist()
    types, expected = _TYPES.get(spec.dtype, _NUMBERS)
    if not types.issuperset(map(type, flat)):
        index = next(index for index, item in enumerate(flat) if type(item) not in types)
        raise _refusal(spec, flat, shape, index, f"{expected} in lists of equal lengths")
    if spec.dtype == "string":
        return nested
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "iu":
        return _whole(spec, dtype, flat, shape)
    return np.array(flat, dtype).reshape(shape) if dtype.kind == "b" else _floating(spec, dtype, flat, shape)


def _whole(spec: TensorSpec, dtype: np.dtype[Any], flat: list[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    if float in set(map(type, flat)):
        flat = [int(number) if _is_whole(number) else number for number in flat]
    index = next((i for i, n in enumerate(flat) if type(n) is float), None)
    if index is None and flat and not low <= min(flat) <= max(flat) <= high:
        index = next(i for i, n in enumerate(flat) if not low <= n <= high)
    if index is not None:
        raise _refusal(spec, flat, shape, index, f"whole numbers from {low} to {high}")
    return np.array(flat, dtype).reshape(shape)


def _is_whole(number: float) -> bool:
    return type(number) is int or (number.is_integer() and abs(number) <= EXACT)


def _floating(spec: TensorSpec, dtype: np.dtype[Any], flat: list[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    expected = f"finite numbers that {spec.dtype} can hold"
    try:
        double = np.array(flat, np.float64)
    except OverflowError:  # a whole number of more than 308 digits
        index = next(i for i, n in enumerate(flat) if type(n) is int and abs(n) > sys.float_info.max)
        raise _refusal(spec, flat, shape, index, expected) from None
    with np.errstate(over="ignore"):
        array = double.astype(dtype)
    lost = ~np.isfinite(array)
    if not spec.finite:
        lost &= np.isfinite(double)  # NaN and infinities are declared, but they have to be meant
    if lost.any():
        raise _refusal(spec, flat, shape, int(lost.argmax()), expected)
    return array.reshape(shape)


def _refusal(spec: TensorSpec, flat: list[Any], shape: tuple[int, ...], index: int, expected: str) -> InputError:
    place = "".join(f"[{part}]" for part in np.unravel_index(index, shape)) if shape else ""
    value = flat[index]
    found = f"the text {value[:40]!r}" if isinstance(value, str) else kind_of(value)
    return InputError(f"{spec.name}{place} is {found[:80]}; the input {spec.name} ({spec.dtype}) needs {expected}")
