"""A recurrent model step by step: the state that its bundle declares is carried from call to call."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import BundleError, InputError

if TYPE_CHECKING:
    from runtime.engine import Engine
    from runtime.manifest import StateSpec

Arrays = dict[str, NDArray[Any]]


class Stream:
    """Runs a recurrent model on what comes in, a piece at a time.

    n calls of one step answer as one call of n steps does. A piece may hold any number of steps, and rows of a batch
    go on side by side; how many rows there are, the first piece decides. An input that is refused leaves the state as
    it was. Calls from several threads come one after the other.

    Args:
        engine: of a model that declares what it carries.
        state: to begin with, arrays by the names of the state's inputs; what is missing begins as declared, with zeros.

    Raises:
        InputError: the model declares no state, or the arrays do not fit it.
        BundleError: the manifest declares a state that the model does not have.
    """

    def __init__(self, engine: Engine, state: Mapping[str, NDArray[Any]] | None = None) -> None:
        self._engine = engine
        self._specs = engine.spec.state
        if not self._specs:
            raise InputError(
                f"{engine.name} declares no state that could be carried from call to call; give it whole sequences"
            )
        shapes = [{spec.name: spec.shape for spec in side} for side in (engine.spec.inputs, engine.spec.outputs)]
        for spec in self._specs:
            if shapes[0].get(spec.input) != spec.shape or shapes[1].get(spec.output) != spec.shape:
                raise BundleError(
                    f"{engine.name}: the manifest carries {spec.output} to {spec.input}, which are no output and input "
                    f"of the shape {_text(spec.shape)}"
                )
        self._inputs = {spec.input: spec for spec in self._specs}
        self._names = tuple(spec.name for spec in engine.spec.inputs if spec.name not in self._inputs)
        self._shapes = {spec.name: spec.shape for spec in engine.spec.inputs if spec.name not in self._inputs}
        self._carried = tuple((spec.output, spec.input) for spec in self._specs)
        self._lock = threading.Lock()
        self._state: Arrays = {}
        self.reset(state)

    def step(self, *inputs: Mapping[str, NDArray[Any]] | NDArray[Any]) -> Arrays:
        """Answers the next piece.

        Args:
            *inputs: as `Engine.run` takes them, without those of the state.

        Returns:
            The outputs by name, without those of the state.

        Raises:
            InputError: an input is missing, unknown, of another type or shape than declared, or of another number of
                rows than the state.
        """
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            given: Mapping[str, Any] = inputs[0]
            if not given.keys().isdisjoint(self._inputs):
                carried = ", ".join(name for name in self._inputs if name in given)
                raise InputError(f"{self._engine.name}: {carried} is carried by the stream; `reset` sets it")
        else:
            if len(inputs) != len(self._names):
                raise InputError(
                    f"{self._engine.name}: {len(inputs)} inputs, a step takes {', '.join(self._names) or 'none'}"
                )
            given = dict(zip(self._names, inputs, strict=True))
        with self._lock:
            state = self._state if len(self._state) == len(self._specs) else self._begun(given)
            answers = self._engine.run({**given, **state})
            self._state = {name: answers.pop(output) for output, name in self._carried}
        return answers

    __call__ = step

    @property
    def state(self) -> Arrays:
        """A copy of what is carried, by the names of the inputs; empty before the first step of a fresh stream."""
        with self._lock:
            return {name: array.copy() for name, array in self._state.items()}

    def reset(self, state: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Begins anew, with zeros or with a state, e.g. one that `state` gave before.

        Raises:
            InputError: a name is unknown, or an array is of another type or rank than declared.
        """
        kept: Arrays = {}
        for name, array in (state or {}).items():
            spec = self._inputs.get(name)
            if spec is None:
                raise InputError(f"{self._engine.name} carries {', '.join(self._inputs)}, not {name!r}")
            if not isinstance(array, np.ndarray) or array.dtype != spec.dtype or array.ndim != len(spec.shape):
                found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
                raise InputError(
                    f"{self._engine.name}: the state {name!r} is {spec.dtype} {_text(spec.shape)}, got {found}"
                )
            kept[name] = array.copy()
        with self._lock:
            self._state = kept

    def _begun(self, given: Mapping[str, Any]) -> Arrays:
        """The state before the first step: what was given, else zeros in the sizes of the inputs."""
        sizes: dict[int | str, int] = {}
        for name, shape in self._shapes.items():
            found = np.shape(given[name]) if name in given else ()
            sizes.update({symbol: size for symbol, size in zip(shape, found, strict=False) if isinstance(symbol, str)})
        zeros = {
            spec.input: np.zeros([self._size(spec, axis, sizes) for axis in spec.shape], spec.dtype)
            for spec in self._specs
            if spec.input not in self._state
        }
        return zeros | self._state

    def _size(self, spec: StateSpec, axis: int | str, sizes: Mapping[int | str, int]) -> int:
        if isinstance(axis, int):
            return axis
        if axis in sizes:
            return sizes[axis]
        if axis in {symbol for shape in self._shapes.values() for symbol in shape}:
            return 0  # the input that has it is missing or of another rank: the engine's check says so
        raise BundleError(
            f"{self._engine.name}: the size {axis} of the state {spec.input} is that of no input, so zeros of it "
            "cannot be made; give the state to begin with"
        )


def _text(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
