"""The signature of a model: its inputs and outputs, the state that it carries, and the sizes that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.errors import BundleError
from runtime.fields import Fields, choice, integer, shape, text, truth

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = frozenset(("bool", "string", *_INTEGERS, "float16", "float32", "float64"))


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph. A dimension is a size or a name; the same name is the same size.

    ``finite`` says that NaN and infinities are refused in an input, which is so unless the bundle declares otherwise.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    layout: str | None = None
    meaning: str | None = None
    unit: str | None = None
    finite: bool = True


@dataclass(frozen=True, slots=True)
class StateSpec:
    """A carried state of a recurrent model: feed ``output`` of one call as ``input`` of the next."""

    input: str
    output: str
    shape: tuple[int | str, ...]
    dtype: str
    init: str = "zeros"


@dataclass(frozen=True, slots=True)
class DimensionSpec:
    """The sizes that a named dimension may have: ``min`` to ``max`` (None: no limit), in multiples of ``multiple``.

    A ``min`` of 0 promises that a call with this dimension empty has an answer: `exporters.empty` has seen to it.
    """

    min: int = 1
    max: int | None = None
    multiple: int = 1

    def __contains__(self, size: int) -> bool:
        return self.min <= size and (self.max is None or size <= self.max) and size % self.multiple == 0

    def __str__(self) -> str:
        sizes = f"{self.min} or more" if self.max is None else f"{self.min} to {self.max}"
        return sizes if self.multiple == 1 else f"{sizes}, multiples of {self.multiple}"


def parse_tensor(value: Any, where: str) -> TensorSpec:
    """An entry of ``inputs`` or ``outputs``."""
    part = Fields(value, where)
    spec = TensorSpec(
        name=part.take("name", text),
        dtype=part.take("dtype", choice(DTYPES)),
        shape=part.take("shape", shape),
        layout=part.take("layout", text, default=None),
        meaning=part.take("meaning", text, default=None),
        unit=part.take("unit", text, default=None),
        finite=part.take("finite", truth, default=True),
    )
    part.finish()
    return spec


def parse_state(value: Any, where: str) -> StateSpec:
    """An entry of ``state``."""
    part = Fields(value, where)
    spec = StateSpec(
        input=part.take("input", text),
        output=part.take("output", text),
        shape=part.take("shape", shape),
        dtype=part.take("dtype", choice(DTYPES)),
        init=part.take("init", choice(frozenset(("zeros",))), default="zeros"),
    )
    part.finish()
    return spec


def parse_dimension(value: Any, where: str) -> DimensionSpec:
    """An entry of ``dimensions``.

    Raises:
        BundleError: no size is left in the range.
    """
    part = Fields(value, where)
    spec = DimensionSpec(
        min=part.take("min", integer, default=1),
        max=part.take("max", integer, default=None),
        multiple=part.take("multiple", integer, default=1),
    )
    part.finish()
    if spec.multiple < 1:
        raise BundleError(f"manifest.json: {where}.multiple is 0, expected at least 1")
    smallest = -(-spec.min // spec.multiple) * spec.multiple
    if smallest not in spec:
        raise BundleError(f"manifest.json: {where} takes no size: {spec}")
    return spec


def tensor_json(spec: TensorSpec) -> dict[str, Any]:
    """The form that `parse_tensor` reads; what is not said is left out."""
    entries = {
        "name": spec.name,
        "dtype": spec.dtype,
        "shape": list(spec.shape),
        "layout": spec.layout,
        "meaning": spec.meaning,
        "unit": spec.unit,
        "finite": None if spec.finite else False,
    }
    return {key: value for key, value in entries.items() if value is not None}


def state_json(spec: StateSpec) -> dict[str, Any]:
    """The form that `parse_state` reads."""
    return {
        "input": spec.input,
        "output": spec.output,
        "shape": list(spec.shape),
        "dtype": spec.dtype,
        "init": spec.init,
    }


def dimensions_json(ranges: Mapping[str, DimensionSpec]) -> dict[str, dict[str, int]]:
    """The form whose entries `parse_dimension` reads."""
    return {
        name: {"min": spec.min}
        | ({} if spec.max is None else {"max": spec.max})
        | ({} if spec.multiple == 1 else {"multiple": spec.multiple})
        for name, spec in ranges.items()
    }
