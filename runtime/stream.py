"""A recurrent model step by step: the state that its bundle declares is carried from call to call."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.checks import has_nan, shape_text
from runtime.errors import BundleError, InputError

if TYPE_CHECKING:
    from runtime.checks import InputCheck
    from runtime.manifest import ModelSpec, StateSpec

Arrays = dict[str, NDArray[Any]]


class Steps(Protocol):
    """What a stream needs of an engine."""

    name: str
    spec: ModelSpec
    check: InputCheck

    def run(self, *inputs: Mapping[str, NDArray[Any]], trusted: Collection[str] = ()) -> dict[str, NDArray[Any]]:
        """Runs the graph once, see `runtime.engine.Engine.run`."""


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

    def __init__(self, engine: Steps, state: Mapping[str, NDArray[Any]] | None = None) -> None:
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
                    f"of the shape {shape_text(spec.shape)}"
                )
        self._inputs = {spec.input: spec for spec in self._specs}
        self._names = tuple(spec.name for spec in engine.spec.inputs if spec.name not in self._inputs)
        self._shapes = {spec.name: spec.shape for spec in engine.spec.inputs if spec.name not in self._inputs}
        self._numbers = tuple(
            spec.name
            for spec in engine.spec.inputs
            if spec.name in self._inputs and spec.dtype.startswith("float") and spec.finite
        )
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
            InputError: as `Engine.run`, the rows are others than those of the state, or the step would leave NaN in
                the state.
        """
        return self.steps([self._by_name(inputs)])[0]

    __call__ = step

    def steps(self, pieces: Sequence[Mapping[str, NDArray[Any]]]) -> list[Arrays]:
        """Answers several pieces, one after the other, with nobody else's between them: all of them or none.

        Args:
            pieces: the inputs of each by name, as `step` takes them.

        Raises:
            InputError: as `step`; the state is what it was before the first piece.
        """
        with self._lock:
            before, answers = self._state, []
            try:
                for piece in pieces:
                    answers.append(self._advanced(piece))  # noqa: PERF401 - the error says how far it came
            except BaseException as error:
                self._state = before
                if isinstance(error, InputError) and len(pieces) > 1:
                    raise type(error)(f"step {len(answers) + 1} of {len(pieces)}: {error}") from error
                raise
            return answers

    @property
    def state(self) -> Arrays:
        """A copy of what is carried, by the names of the inputs; empty before the first step of a fresh stream."""
        with self._lock:
            return {name: array.copy() for name, array in self._state.items()}

    def reset(self, state: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Begins anew, with zeros or with a state, e.g. one that `state` gave before.

        Raises:
            InputError: a name is unknown, or an array is none that the model takes for its state, see `Engine.run`.
        """
        given = dict(state or {})
        for name in given:
            if name not in self._inputs:
                raise InputError(f"{self._engine.name} carries {', '.join(self._inputs)}, not {name!r}")
        self._engine.check(given, partial=True)
        kept = {name: array.copy() for name, array in given.items()}
        with self._lock:
            self._state = kept

    def _by_name(self, inputs: Sequence[Any]) -> Mapping[str, Any]:
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            given: Mapping[str, Any] = inputs[0]
            if not given.keys().isdisjoint(self._inputs):
                carried = ", ".join(name for name in self._inputs if name in given)
                raise InputError(f"{self._engine.name}: {carried} is carried by the stream; `reset` sets it")
            return given
        if len(inputs) != len(self._names):
            raise InputError(
                f"{self._engine.name}: {len(inputs)} inputs, a step takes {', '.join(self._names) or 'none'}"
            )
        return dict(zip(self._names, inputs, strict=True))

    def _advanced(self, given: Mapping[str, Any]) -> Arrays:
        """The answers to a piece; the state goes on. The lock is held."""
        state = self._state
        if len(state) < len(self._specs):
            self._engine.check(given, partial=True)  # zeros are made in the sizes of what is given
            state = self._begun(given)
        answers = self._engine.run({**given, **state}, trusted=self._inputs)
        left = {name: answers.pop(output) for output, name in self._carried}
        for name in self._numbers:
            if has_nan(left[name]):
                raise InputError(
                    f"{self._engine.name}: this step would leave NaN in the state {name!r}, and so in every later "
                    "answer; the inputs are too large for this model"
                )
        self._state = left
        return answers

    def _begun(self, given: Mapping[str, Any]) -> Arrays:
        """The state before the first step: what was given, else zeros in the sizes of the inputs."""
        sizes: dict[int | str, int] = {}
        for name, shape in self._shapes.items():
            found = given[name].shape if name in given else ()
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
            return 0  # the input that has it is missing: the engine's check says so
        raise BundleError(
            f"{self._engine.name}: the size {axis} of the state {spec.input} is that of no input, so zeros of it "
            "cannot be made; give the state to begin with"
        )
