"""One ONNX graph, ready to run: inputs checked, threads and device chosen with care, usable from many threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from threading import Lock
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from runtime.axes import BATCH_NAMES as BATCH_NAMES
from runtime.axes import batch_axes, batch_name
from runtime.checks import InputCheck, shape_text, size_range
from runtime.devices import CPU, first_line, open_session
from runtime.empty import empty_answers
from runtime.errors import BundleError, DeviceError, InputError
from runtime.golden import RecordedInputs
from runtime.manifest import ModelSpec, TensorSpec
from runtime.session import split_device
from runtime.stream import Stream
from runtime.threads import default_threads

_DTYPES = {
    "tensor(bool)": "bool",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(string)": "string",
}

Session = Any
"""An ``onnxruntime.InferenceSession``, or what runs in its place."""

Limit = Callable[[Mapping[str, NDArray[Any]]], int]
"""How many rows like those of an item run together."""

_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class Engine:
    """Runs one ONNX graph.

    Args:
        graph: the graph's bytes or the path of its file. Bytes must hold all weights.
        spec: the signature from a manifest; None takes the graph's own. Where both are there they have to agree.
        device: ``cpu``, ``gpu``, ``auto`` …, see ``runtime.devices``; strict.
        threads: threads for one call; None takes what affinity, cores and the control group's quota allow.
        name: how messages call it.
        later: opens the graph when it is first needed, where it is bytes, comes with a spec and runs on the CPU. Until
            then nobody has seen whether ONNX Runtime takes it, so the error of a graph that it refuses comes then.

    An engine may be used from any number of threads at once. It belongs to the process that made it: the threads of a
    session do not survive a fork, so a forked child opens its own.

    Raises:
        BundleError: the graph cannot be loaded or is not what the spec says.
        DeviceError: the device cannot be had.
    """

    def __init__(
        self,
        graph: bytes | os.PathLike[str],
        *,
        spec: ModelSpec | None = None,
        device: str = "cpu",
        threads: int | None = None,
        name: str = "model",
        later: bool = False,
    ) -> None:
        self.name = name
        self.threads = default_threads() if threads is None else threads
        self._lock = Lock()
        self._session: Session = None
        self._unopened: tuple[bytes, str] | None = None
        if later and spec is not None and isinstance(graph, bytes) and split_device(device)[0] == "cpu":
            self.device, self.provider = "cpu", CPU
            self._unopened = (graph, device)
        else:
            opened = open_session(graph, device, self.threads)
            self.device, self.provider = opened.device, opened.provider
            self._session, spec = opened.session, _checked_spec(name, opened.session, spec)
        self.spec = spec
        self.check = InputCheck(name, spec)
        self._output_names = [tensor.name for tensor in spec.outputs]
        self._forks = _forks
        self._batch_name, self._batch_axes = batch_name(spec), batch_axes(spec)
        self._always_empty = any(0 in tensor.shape for tensor in spec.inputs)

    @property
    def session(self) -> Session:
        """The ``onnxruntime.InferenceSession``.

        Raises:
            InputError: the engine is closed.
            DeviceError: this process was forked from the one that opened the engine.
            BundleError: the engine opens its graph later than it was made, and the graph cannot be loaded.
        """
        if self._forks != _forks:
            raise DeviceError(
                f"engine {self.name!r} was opened before this process was forked, and its threads stayed behind; "
                "open engines in the worker (gunicorn: without --preload)"
            )
        session = self._session
        return self._opened() if session is None else session

    def run(
        self,
        *inputs: Mapping[str, NDArray[Any]] | NDArray[Any],
        outputs: Sequence[str] | None = None,
        trusted: Collection[str] = (),
    ) -> dict[str, NDArray[Any]]:
        """Runs the graph once.

        A call with an empty dimension never reaches ONNX Runtime unless the bundle's export has tried it, see
        `runtime.empty`.

        Args:
            *inputs: one mapping from input name to array, or the arrays in the order of the graph's inputs.
            outputs: the outputs wanted; None gives all.
            trusted: inputs that this graph gave itself before, a state, whose numbers are not looked at again.

        Returns:
            The outputs by name.

        Raises:
            InputError: an input is missing, unknown, of another type or shape than declared, of a size outside of its
                range, or holds NaN or infinities that the bundle does not declare. Nothing is cast.
        """
        session = self.session
        named = self.check.by_name(inputs)
        feed, sizes = self.check(named, trusted=trusted)
        names = self._output_names if outputs is None else self._checked_outputs(outputs)
        if 0 in sizes.values() or self._always_empty:
            answers = empty_answers(self.spec, sizes, feed, names)
            if answers is not None:
                return answers
            if not isinstance(named, RecordedInputs):
                self._check_empty(sizes)
        try:
            return dict(zip(names, session.run(names, feed), strict=True))
        # onnxruntime raises a class of its own per status code, all unrelated.
        except Exception as error:
            raise InputError(
                f"{self.name}: ONNX Runtime refused the input: {_describe(feed)}: {first_line(error)}"
            ) from error

    __call__ = run

    def batch(
        self,
        items: Sequence[Mapping[str, NDArray[Any]]],
        *,
        limit: int | Limit | None = None,
        told: Callable[[Sequence[int]], None] = lambda _places: None,
    ) -> list[dict[str, NDArray[Any]]]:
        """Runs many items, those of equal shape together, and answers in the order given.

        Each item is what ``run`` takes, with its batch dimension. Items are stacked along the dimension named ``N``,
        ``B``, ``batch`` or ``batch_size``; a graph without one runs them one after the other.

        Args:
            items: the inputs of each call.
            limit: rows in one call at most, or a function that gives this number for an item; None sets no limit. An
                item that has more rows runs alone.
            told: called for each run with the places of the items that it answers.

        Raises:
            InputError: as ``run`` does, and names the item.
        """
        feeds = []
        for index, item in enumerate(items):
            try:
                feeds.append(self.check(item)[0])
            except InputError as error:
                raise InputError(f"item {index}: {error}") from error
        rows = self._batch_name
        most = None if rows is None else size_range(self.spec, rows).max
        limits = [
            min((n for n in (limit(feed) if callable(limit) else limit, most) if n is not None), default=None)
            for feed in feeds
        ]
        results: list[dict[str, NDArray[Any]]] = [{} for _ in feeds]
        for group in self._groups(feeds, limits):
            if len(group) == 1:
                results[group[0]] = self.run(feeds[group[0]])
            else:
                for index, result in zip(group, self._run_stacked([feeds[i] for i in group]), strict=True):
                    results[index] = result
            told(group)
        return results

    def stream(self, state: Mapping[str, NDArray[Any]] | None = None) -> Stream:
        """A recurrent model step by step, with its state carried from call to call; any number at once.

        Raises:
            InputError: the model declares no state, or ``state`` does not fit it.
        """
        return Stream(self, state)

    def through(self, wrap: Callable[[Session], Session]) -> None:
        """Puts something between the engine and its session, which sees each call after its inputs were checked.

        Args:
            wrap: takes the session and gives what runs in its place, with a method ``run(names, feed)``.
        """
        self._session = wrap(self.session)

    def close(self) -> None:
        """Lets the session go once the calls that are under way have ended. A second call does nothing."""
        with self._lock:
            self._session = self._unopened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Engine({self.name!r}, device={self.device!r}, threads={self.threads})"

    def _opened(self) -> Session:
        """The session of an engine that had none until now."""
        with self._lock:
            if self._session is None and self._unopened is not None:
                graph, device = self._unopened
                session = open_session(graph, device, self.threads).session
                _checked_spec(self.name, session, self.spec)
                self._session, self._unopened = session, None
            if self._session is None:
                raise InputError(f"engine {self.name!r} is closed")
            return self._session

    def _check_empty(self, sizes: Mapping[str, int]) -> None:
        """Refuses an empty call whose answer does not follow from the signature, unless its export has tried it."""
        empty = [name for name, size in sizes.items() if size == 0]
        if self._always_empty or len(empty) > 1 or empty[0] not in self.spec.dimensions:
            found = (
                f"{' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} 0" if empty else "an input holds nothing"
            )
            raise InputError(
                f"{self.name}: {found}, and what the model answers then does not follow from its signature"
            )

    def _checked_outputs(self, outputs: Sequence[str]) -> list[str]:
        if isinstance(outputs, str):
            raise InputError(f"{self.name}: outputs is the text {outputs!r}, expected a list of names")
        for name in outputs:
            if name not in self._output_names:
                raise InputError(f"{self.name}: no output {name!r}; there are {', '.join(self._output_names)}")
        # An empty list means "all" to ONNX Runtime, which nobody who computed the list expects.
        if not outputs:
            raise InputError(f"{self.name}: no outputs were asked for; there are {', '.join(self._output_names)}")
        return list(outputs)

    def _groups(self, feeds: Sequence[Mapping[str, NDArray[Any]]], limits: Sequence[int | None]) -> list[list[int]]:
        """Indices of the items that may run together."""
        if self._batch_axes is None:
            return [[index] for index in range(len(feeds))]
        input_axes, _ = self._batch_axes
        open_groups: dict[Any, tuple[list[int], int]] = {}
        groups = []
        for index, (feed, limit) in enumerate(zip(feeds, limits, strict=True)):
            rows = next(feed[name].shape[axis] for name, axis in input_axes.items())
            key = tuple((array.shape[: input_axes[n]], array.shape[input_axes[n] + 1 :]) for n, array in feed.items())
            group, filled = open_groups.get(key, ([], 0))
            if not group or (limit is not None and filled + rows > limit):
                group, filled = [], 0
                groups.append(group)
            group.append(index)
            open_groups[key] = (group, filled + rows)
        return groups

    def _run_stacked(self, feeds: Sequence[Mapping[str, NDArray[Any]]]) -> list[dict[str, NDArray[Any]]]:
        assert self._batch_axes is not None  # noqa: S101 - `_groups` makes no group of two without them
        input_axes, output_axes = self._batch_axes
        stacked = {name: np.concatenate([feed[name] for feed in feeds], axis) for name, axis in input_axes.items()}
        name, axis = next(iter(input_axes.items()))
        rows = [feed[name].shape[axis] for feed in feeds]
        answers = self.run(stacked)
        for output, position in output_axes.items():
            if answers[output].shape[position] != sum(rows):
                raise BundleError(
                    f"{self.name}: output {output!r} has {answers[output].shape[position]} rows for {sum(rows)} given; "
                    "its first dimension is not the batch that the signature says"
                )
        ends = np.cumsum(rows).tolist()
        return [
            {
                output: answers[output][(slice(None),) * position + (slice(end - count, end),)]
                for output, position in output_axes.items()
            }
            for count, end in zip(rows, ends, strict=True)
        ]


def _tensor(value: Any, name: str) -> TensorSpec:
    """The signature of a session's input or output."""
    if value.type not in _DTYPES:
        raise BundleError(f"{name}: {value.name!r} is a {value.type}, which has no numpy array to stand for it")
    # Nameless dimensions get a name of their own, so that they are never taken for equal.
    shape = tuple(
        size if isinstance(size, int | str) and size != "" else f"{value.name}.{axis}"
        for axis, size in enumerate(value.shape)
    )
    return TensorSpec(value.name, _DTYPES[value.type], shape)


def _checked_spec(name: str, session: Session, spec: ModelSpec | None) -> ModelSpec:
    """The signature of a manifest, held against the graph's own; without a manifest that of the graph."""
    inputs = tuple(_tensor(value, name) for value in session.get_inputs())
    outputs = tuple(_tensor(value, name) for value in session.get_outputs())
    if spec is None:
        return ModelSpec(variants={}, inputs=inputs, outputs=outputs)
    _check_spec(name, "input", spec.inputs, inputs)
    _check_spec(name, "output", spec.outputs, outputs)
    return spec


def _check_spec(name: str, side: str, declared: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> None:
    """The manifest may say less than the graph can do, never more."""
    by_name = {tensor.name: tensor for tensor in found}
    if set(by_name) != {tensor.name for tensor in declared}:
        raise BundleError(
            f"{name}: the manifest gives the {side}s {', '.join(t.name for t in declared)}, "
            f"the graph has {', '.join(by_name)}"
        )
    for tensor in declared:
        other = by_name[tensor.name]
        fits = len(tensor.shape) == len(other.shape) and all(
            isinstance(actual, str) or actual == said for said, actual in zip(tensor.shape, other.shape, strict=True)
        )
        if tensor.dtype != other.dtype or not fits:
            raise BundleError(
                f"{name}: the manifest says {side} {tensor.name!r} is {tensor.dtype} {shape_text(tensor.shape)}, "
                f"the graph says {other.dtype} {shape_text(other.shape)}"
            )


def _describe(feed: Mapping[str, NDArray[Any]]) -> str:
    return ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in feed.items())
