"""What a caller declares about a network: its inputs, its outputs, and the cases it is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runtime.manifest import DimensionSpec, ModelSpec, StateSpec, TensorSpec

Dimension = int | str
Decision = Literal["argmax", "round", "exact"]


@dataclass(frozen=True, slots=True)
class Input:
    """One graph input. A dimension is a number or a name; the same name is the same size everywhere.

    Attributes:
        name: Name in the graph; inputs are handed to ``forward`` in the order they are declared.
        dtype: numpy name, e.g. ``uint8``, ``int64``, ``float32``.
        shape: e.g. ``("N", "H", "W", 3)``.
        layout: e.g. ``NHWC``.
        meaning: One phrase for people, e.g. ``RGB levels``.
        unit: e.g. ``degree``.
        limits: Smallest and largest value that generated cases draw (token ids: ``(0, vocabulary - 1)``).
        finite: Whether the engine refuses NaN and infinities; False for an input that means them, such as a mask.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...]
    layout: str | None = None
    meaning: str | None = None
    unit: str | None = None
    limits: tuple[float, float] | None = None
    finite: bool = True


@dataclass(frozen=True, slots=True)
class Output:
    """One graph output, in the order in which ``forward`` returns them.

    Attributes:
        name: Name in the graph.
        dtype: numpy name.
        shape: A name that no input has (e.g. ``D`` detections) is a size that the graph itself decides.
        unit: e.g. ``year``, ``pixel``.
        meaning: One phrase for people.
        decision: What a caller does with it, held equal wherever the float64 margin exceeds the tolerance:
            ``argmax`` over the last axis, ``round`` to an integer, or ``exact`` equality (indices, token ids).
        nan: Whether the output may be NaN, where torch's answer is. Without it, NaN in a reference is refused.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...]
    unit: str | None = None
    meaning: str | None = None
    decision: Decision | None = None
    nan: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One set of input arrays by name, e.g. ``Case("black, batch 7", {"face": zeros})``."""

    name: str
    inputs: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Signature:
    """What a network takes and gives, as it was declared.

    Attributes:
        inputs: In the order in which the graph takes them.
        outputs: In the order in which the graph gives them.
        state: Carried states; each names an input and an output.
    """

    inputs: Sequence[Input]
    outputs: Sequence[Output]
    state: Sequence[StateSpec] = ()

    @property
    def tensors(self) -> tuple[Input | Output, ...]:
        """The inputs, then the outputs."""
        return (*self.inputs, *self.outputs)

    def sizes(self, case: Case) -> dict[str, int]:
        """Sizes of the named dimensions of the inputs in a case.

        Raises:
            ValueError: See `bind_sizes`.
        """
        return bind_sizes({tensor.name: tensor.shape for tensor in self.inputs}, case.inputs)

    def spec(self, dimensions: Mapping[str, DimensionSpec], cases: Sequence[Case]) -> ModelSpec:
        """What the manifest says of it.

        Args:
            dimensions: The ranges of the named dimensions.
            cases: Where one of them holds an infinity, that input takes infinities, too.
        """

        def is_finite(tensor: Input) -> bool:
            floating = np.dtype(tensor.dtype).kind == "f"
            return tensor.finite and not (floating and any(not np.isfinite(c.inputs[tensor.name]).all() for c in cases))

        return ModelSpec(
            variants={},
            inputs=tuple(
                TensorSpec(t.name, t.dtype, t.shape, t.layout, t.meaning, t.unit, is_finite(t)) for t in self.inputs
            ),
            outputs=tuple(TensorSpec(t.name, t.dtype, t.shape, None, t.meaning, t.unit) for t in self.outputs),
            state=tuple(self.state),
            dimensions=dimensions,
        )


def bind_sizes(tensors: Mapping[str, tuple[Dimension, ...]], arrays: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Sizes of the named dimensions in ``arrays``.

    Raises:
        ValueError: An array's rank or a fixed size is not as declared, or one name has two sizes.
    """
    sizes: dict[str, int] = {}
    for name, shape in tensors.items():
        found = np.shape(arrays[name])
        if len(found) != len(shape):
            raise ValueError(f"{name} has shape {list(found)}, declared is {list(shape)}")
        for declared, size in zip(shape, found, strict=True):
            expected = sizes.setdefault(declared, size) if isinstance(declared, str) else declared
            if size != expected:
                raise ValueError(
                    f"{name} has shape {list(found)}, declared is {list(shape)} with {declared} = {expected}"
                )
    return sizes
