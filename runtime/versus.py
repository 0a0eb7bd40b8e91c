"""One model of a bundle against something else that takes the same inputs: ``edgedl bench B --against OTHER``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.checks import shape_text
from runtime.engine import Engine
from runtime.errors import InputError
from runtime.feeds import Feed, feeds, main_model
from runtime.manifest import TensorSpec
from runtime.turns import Ratio, Times, in_turns, largest_difference, ratio

Answers = Mapping[str, NDArray[Any]]
Other = Callable[[Feed], Answers]
"""Takes the inputs of our model by its names."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Both sides with one number of rows.

    Attributes:
        rows: Rows of a call.
        ours: Times of the bundle's model.
        theirs: Times of the other.
        wall: Time of the other over ours: above 1 the bundle is faster.
        cpu: The same in processor time.
        difference: The largest difference of two answers; None where no outputs have the same shape.
    """

    rows: int
    ours: Times
    theirs: Times
    wall: Ratio
    cpu: Ratio
    difference: float | None

    def to_json(self) -> dict[str, Any]:
        """JSON-able values."""
        return {
            "rows": self.rows,
            "p50_ms": self.ours.p50_ms,
            "other_p50_ms": self.theirs.p50_ms,
            "cpu_ms": self.ours.cpu_ms,
            "other_cpu_ms": self.theirs.cpu_ms,
            "ratio": self.wall.to_json(),
            "cpu_ratio": self.cpu.to_json(),
            "difference": self.difference,
        }


def versus(engine: Engine, inputs: Mapping[int, Feed], other: Other, seconds: float = 1.0) -> list[Compared]:
    """Times an engine and something else in turns on the same inputs.

    Args:
        engine: Our model.
        inputs: By number of rows, see `runtime.feeds`.
        other: What it is held against.
        seconds: How long each number of rows is measured.
    """
    compared = []
    for rows, feed in inputs.items():

        def ours(feed: Feed = feed) -> Answers:
            return engine.run(feed)

        def theirs(feed: Feed = feed) -> Answers:
            return other(feed)

        difference = largest_difference(ours(), theirs())
        times = in_turns({"ours": ours, "theirs": theirs}, seconds)
        mine, its = times["ours"], times["theirs"]
        compared.append(Compared(rows, mine, its, ratio(its.wall, mine.wall), ratio(its.cpu, mine.cpu), difference))
    return compared


@contextmanager
def opened(
    bundle: Bundle, *, device: str, threads: int | None, model: str | None = None, variant: str | None = None
) -> Iterator[tuple[Engine, dict[int, Feed]]]:
    """One model of a bundle, by default the one that the bundle is about, and inputs to measure it with.

    Raises:
        InputError: the bundle has no such model or variant.
    """
    name = main_model(bundle) if model is None else model
    spec = bundle.model(name)
    graph = bundle.graph(name, variant or spec.form(None))
    with Engine(graph, spec=spec, device=device, threads=threads, name=name) as engine:
        yield engine, feeds(bundle, name)


@contextmanager
def other_graph(path: str | os.PathLike[str], ours: Engine, device: str) -> Iterator[Other]:
    """Another bundle, or an ONNX file, as something to compare with; it runs with the same threads.

    Of a bundle it is the model with the same name, else the one that the bundle is about.

    Raises:
        InputError: its inputs are not those of our model.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        engine = Engine(path, device=device, threads=ours.threads, name=path.name)
    else:
        bundle = Bundle.open(path)
        model = ours.name if ours.name in bundle.manifest.models else main_model(bundle)
        spec = bundle.model(model)
        graph = bundle.graph(model, spec.form(None))
        engine = Engine(graph, spec=spec, device=device, threads=ours.threads, name=model)
    with engine:
        names = _matched(ours.spec.inputs, engine.spec.inputs, str(path))

        def run(feed: Feed) -> Answers:
            # The same kind of mapping, so that recorded inputs are not held against the sizes declared.
            return engine.run(type(feed)({theirs: feed[mine] for mine, theirs in names.items()}))

        yield run


def _matched(ours: tuple[TensorSpec, ...], theirs: tuple[TensorSpec, ...], path: str) -> dict[str, str]:
    """The input of the other for each of ours: by name, else in order."""
    wanted = {tensor.name for tensor in ours}
    by_name = {tensor.name: tensor for tensor in theirs}
    pairs = (
        [(tensor, by_name[tensor.name]) for tensor in ours]
        if wanted == set(by_name)
        else list(zip(ours, theirs, strict=False))
    )
    fits = len(ours) == len(theirs) and all(
        mine.dtype == its.dtype
        and len(mine.shape) == len(its.shape)
        and all(a == b for a, b in zip(mine.shape, its.shape, strict=True) if isinstance(a, int) and isinstance(b, int))
        for mine, its in pairs
    )
    if not fits:
        raise InputError(
            f"{path} takes {_signature(theirs)}; the model of the bundle takes {_signature(ours)}: the two cannot be "
            "given the same inputs"
        )
    return {mine.name: its.name for mine, its in pairs}


def _signature(tensors: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{tensor.name} {tensor.dtype} {shape_text(tensor.shape)}" for tensor in tensors) or "nothing"
