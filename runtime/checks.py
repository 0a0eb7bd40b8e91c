"""Whether the arrays of a call fit a signature: names, types, shapes, sizes and numbers. Nothing is cast.

A size has to lie in its dimension's range. A name without a range in the manifest takes every size but 0; the batch
takes 0, too, because the answer to no rows is no rows.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.axes import BATCH_NAMES, input_dimensions
from runtime.errors import InputError
from runtime.golden import RecordedInputs
from runtime.manifest import ModelSpec
from runtime.signature import DimensionSpec, TensorSpec

Feed = dict[str, NDArray[Any]]


def size_range(spec: ModelSpec, name: str) -> DimensionSpec:
    """The sizes that a named dimension may have."""
    return spec.dimensions.get(name) or DimensionSpec(min=0 if name in BATCH_NAMES else 1)


def is_finite(array: NDArray[Any]) -> bool:
    """Whether a floating-point array holds neither NaN nor infinities."""
    # Half the time of `.all()` on small arrays, and the same on large ones.
    return int(np.count_nonzero(np.isfinite(array))) == array.size


def has_nan(array: NDArray[Any]) -> bool:
    """Whether a floating-point array holds NaN."""
    return not is_finite(array) and bool(np.isnan(array).any())


class _Slot:
    """The checks of one input, worked out once."""

    __slots__ = ("dtype", "finite", "fixed", "name", "named", "rank", "spec")

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self.name = spec.name
        # Text comes as Python objects or fixed-length unicode; its check is by kind, see `InputCheck`.
        self.dtype = None if spec.dtype == "string" else np.dtype(spec.dtype)
        self.finite = spec.finite and spec.dtype.startswith("float")
        self.rank = len(spec.shape)
        self.fixed = tuple((axis, size) for axis, size in enumerate(spec.shape) if isinstance(size, int))
        self.named = tuple((axis, size) for axis, size in enumerate(spec.shape) if isinstance(size, str))


class InputCheck:
    """The checks of a model's inputs, worked out once; a call takes a few microseconds.

    Args:
        name: how messages call the model.
        spec: its signature.
    """

    def __init__(self, name: str, spec: ModelSpec) -> None:
        self.name, self.spec = name, spec
        self._slots = tuple(_Slot(tensor) for tensor in spec.inputs)
        ranges = {symbol: size_range(spec, symbol) for symbol in input_dimensions(spec)}
        self._ranges = tuple(
            (symbol, r.min, sys.maxsize if r.max is None else r.max, r.multiple) for symbol, r in ranges.items()
        )

    def by_name(self, inputs: Sequence[Any]) -> Mapping[str, NDArray[Any]]:
        """The inputs of a call as a mapping.

        Args:
            inputs: one mapping, or the arrays in the order of the signature.

        Raises:
            InputError: another number of arrays than the model has inputs.
        """
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            return inputs[0]
        if len(inputs) != len(self._slots):
            raise InputError(f"{self.name}: {len(inputs)} inputs, expected {self._signature()}")
        return {slot.name: array for slot, array in zip(self._slots, inputs, strict=True)}

    def __call__(
        self, inputs: Mapping[str, NDArray[Any]], *, trusted: Collection[str] = (), partial: bool = False
    ) -> tuple[Feed, dict[str, int]]:
        """Compares inputs with the signature.

        Args:
            inputs: by name.
            trusted: inputs that the graph itself gave before, whose numbers are not looked at again.
            partial: inputs may be missing.

        Returns:
            The arrays, contiguous, and the sizes of the named dimensions.

        Raises:
            InputError: an input is missing, unknown, or of another type or shape. Unless a bundle recorded the inputs,
                also where a size is outside of its range, or a number is not finite and none is declared.
        """
        feed: Feed = {}
        sizes: dict[str, int] = {}
        recorded = isinstance(inputs, RecordedInputs)
        for slot in self._slots:
            try:
                array = inputs[slot.name]
            except KeyError:
                if partial:
                    continue
                given = ", ".join(map(str, inputs)) or "none"
                raise InputError(
                    f"{self.name}: input {slot.name!r} is missing; given: {given}; expected {self._signature()}"
                ) from None
            if not isinstance(array, np.ndarray):
                raise InputError(f"{self._expected(slot)}, got {type(array).__name__}; pass a numpy array")
            # Not `dtype != None` for text: numpy takes None for float64.
            if array.dtype.kind not in "OU" if slot.dtype is None else array.dtype != slot.dtype:
                raise InputError(f"{self._expected(slot)}, got {array.dtype}; nothing is cast, convert it yourself")
            shape = array.shape
            if len(shape) != slot.rank:
                raise InputError(f"{self._expected(slot)}, got the shape {list(shape)}")
            for axis, size in slot.fixed:
                if shape[axis] != size:
                    raise InputError(f"{self._expected(slot)}, got the shape {list(shape)}: dimension {axis} is off")
            for axis, symbol in slot.named:
                if sizes.setdefault(symbol, shape[axis]) != shape[axis]:
                    raise InputError(
                        f"{self._expected(slot)}, got the shape {list(shape)}: {symbol} is {sizes[symbol]} elsewhere "
                        "in the same call"
                    )
            if not array.flags.c_contiguous:
                array = np.ascontiguousarray(array)
            feed[slot.name] = array
            if slot.finite and not recorded and slot.name not in trusted and not is_finite(array):
                raise InputError(self._not_finite(slot, array))
        if len(inputs) != len(feed):
            strangers = ", ".join(repr(name) for name in inputs if name not in feed)
            raise InputError(f"{self.name}: unknown input {strangers}; expected {self._signature()}")
        if sizes and not recorded:
            self._check_sizes(sizes, feed)
        return feed, sizes

    def _check_sizes(self, sizes: Mapping[str, int], feed: Feed) -> None:
        for symbol, low, high, multiple in self._ranges:
            size = sizes.get(symbol)
            if size is not None and (not low <= size <= high or size % multiple):
                found = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
                raise InputError(
                    f"{self.name}: {symbol} is {size}, the bundle takes {size_range(self.spec, symbol)}; got {found}"
                )

    def _not_finite(self, slot: _Slot, array: NDArray[Any]) -> str:
        place = np.unravel_index(int(np.argmin(np.isfinite(array))), array.shape)
        return (
            f"{self.name}: input {slot.name!r} holds {array[place]} at {[int(index) for index in place]}; expected "
            "finite numbers, the bundle does not declare that it takes others"
        )

    def _expected(self, slot: _Slot) -> str:
        return f"{self.name}: input {slot.name!r}: expected {slot.spec.dtype} {shape_text(slot.spec.shape)}"

    def _signature(self) -> str:
        return ", ".join(f"{s.name}: {s.spec.dtype} {shape_text(s.spec.shape)}" for s in self._slots)


def shape_text(shape: Sequence[int | str]) -> str:
    """``[N, 3]``."""
    return f"[{', '.join(map(str, shape))}]"
