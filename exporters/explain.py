"""Where an answer goes wrong: the first node whose value differs, and by how much.

Two questions, one method. At export a graph is compared with the torch program that it was made from, value by value.
On a device it is compared with its *trace*: for one golden case, the l2 norm and four random projections of every
value, recorded when the graph passed its gate. A change d of a value moves each projection by about |d|, so five
numbers per value find any fault, and a trace stays small. Values in the body of a loop are compared step by step, the
first steps of it; with torch, a loop is compared as a whole.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from exporters.convert import Converted
from exporters.execute import open_graph, run_case
from exporters.expose import alone, by_step, each_value, expose, read_by
from exporters.graphs import operators
from exporters.reference import Arrays
from exporters.spec import Case
from runtime.bundle import Bundle
from runtime.compare import distance
from runtime.engine import Engine, Session
from runtime.errors import BundleError
from runtime.golden import GoldenCase

DIFFERS = 5e-6
"""Relative difference of a value that no rounding explains: float32 noise of deep networks is about 1e-6."""

PROJECTIONS = 4
"""One may miss a difference by chance (it is a sum with random signs); four together do not."""

COMPARED_AT_ONCE = 1 << 29
"""Bytes of torch's values that are compared at a time: all of a large network's take gigabytes."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A node whose output is not what it should be.

    Attributes:
        node: Name of the node, which begins with the module that it comes from.
        operator: e.g. ``Conv``.
        value: Name of its output.
        relative: Size of the difference over the size of the value; infinite for another shape or NaN.
        position: The how manieth node it is, from 1.
        nodes: How many nodes there are.
        place: The user's line that it comes from; empty where none is known.
    """

    node: str
    operator: str
    value: str
    relative: float
    position: int
    nodes: int
    place: str = ""

    def __str__(self) -> str:
        off = "has another shape or is not a number" if math.isinf(self.relative) else f"is off by {self.relative:.1e}"
        return (
            f"first node that differs: {self.node} ({self.operator}, {self.position} of {self.nodes}): its output "
            f"{self.value} {off}"
            + ("" if math.isinf(self.relative) else " of its own size")
            + (f"; it comes from {self.place}" if self.place else "")
        )


def first_torch_difference(
    converted: Converted, graph: bytes, case: Case, reproduce: Path | None = None
) -> Difference | None:
    """Compares the graph with the torch program it was made from, both in float32, on one case.

    Args:
        converted: The graph with its program.
        graph: The graph as it was tried.
        case: The case.
        reproduce: A folder to write the node to, see `write_alone`.

    Returns:
        The first node that differs; None if all agree, in which case the fault arose while torch traced forward.
    """
    model = onnx.load_from_string(graph)
    values = _TorchValues(converted)
    sizes = values.sizes(case)
    nodes = {value: (position, node) for position, node, value in each_value(model) if value in sizes}
    for part in _parts({value: sizes[value] for value in nodes}):
        expected = values.collect(case, part)
        found = _found(model, case, part)
        for value in part:
            magnitudes = np.abs(expected[value].astype(np.float64))
            size = float(magnitudes[np.isfinite(magnitudes)].max(initial=0)) or 1.0
            relative = distance(found[value], expected[value]) / size
            if relative > DIFFERS:
                position, node = nodes[value]
                if reproduce is not None:
                    given = {**case.inputs, **_found(model, case, read_by(node))}
                    write_alone(reproduce, model, value, given, expected[value])
                place, total = converted.places.get(value, ""), operators(model).total()
                return Difference(node.name, node.op_type, value, relative, position, total, place)
    return None


def _parts(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Values in order, of so many bytes at a time; a larger one stands alone."""
    part: list[str] = []
    total = 0
    for value, size in sizes.items():
        if part and total + size > COMPARED_AT_ONCE:
            yield part
            part, total = [], 0
        part.append(value)
        total += size
    if part:
        yield part


def _found(model: onnx.ModelProto, case: Case, values: Sequence[str]) -> Arrays:
    """What ONNX Runtime computes for some values of a graph as it is written."""
    exposed, names = expose(model, only=values)
    return run_case(open_graph(exposed, "as written"), case, names) if names else {}


def write_alone(
    folder: Path,
    model: onnx.ModelProto,
    value: str,
    values: Mapping[str, NDArray[Any]],
    expected: NDArray[Any] | None = None,
) -> None:
    """Writes the node that gives a value, with its inputs: ``node.onnx``, ``inputs.npz``, ``expected.npz``.

    Args:
        folder: Is made if it is not there.
        model: The graph that the node is in.
        value: See `alone`.
        values: See `alone`.
        expected: What the node should have given; by default what onnx's own evaluator gives.
    """
    node, given = alone(model, value, values)
    name = value.partition(", step ")[0]
    if expected is None:
        (expected,) = list(ReferenceEvaluator(node).run([name], given))
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(node, folder / "node.onnx")
    np.savez(folder / "inputs.npz", **given)  # type: ignore[arg-type]  # names of arrays
    np.savez(folder / "expected.npz", **{name: expected})  # type: ignore[arg-type]  # names of arrays


def record_trace(graph: bytes, case: Case, places: Mapping[str, str]) -> bytes:
    """The trace of a graph on one case, as npz: ``case``, and ``values``, ``fingerprints`` (V, 5), ``places``.

    Args:
        graph: The graph.
        case: The case.
        places: For each value the user's line that it comes from, where that is known.
    """
    model = onnx.load_from_string(graph)
    exposed, names = expose(model)
    found = by_step(run_case(open_graph(exposed, "as written"), case, names))
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        case=np.array(case.name),
        values=np.array(list(found)),
        fingerprints=np.stack([fingerprint(array) for array in found.values()]),
        places=np.array([places.get(name.partition(", step ")[0], "") for name in found]),
    )
    return stream.getvalue()


def explain(
    bundle: Bundle,
    model: str,
    variant: str = "fp32",
    device: str = "cpu",
    reproduce: Path | None = None,
    opened: Callable[[bytes], Session] | None = None,
) -> Difference | None:
    """Runs a model's graph on a device with all its values exposed and compares them with the recorded trace.

    Args:
        bundle: The bundle.
        model: Name of the model.
        variant: Of the model.
        device: Where it runs.
        reproduce: A folder to write the node that differs to, see `write_alone`.
        opened: Opens the graph elsewhere, see `exporters.targets.base.Target.session`.

    Returns:
        The first node that differs; None if every value agrees.

    Raises:
        BundleError: the bundle holds no trace of this model.
    """
    reference = bundle.model(model).trace
    if reference is None:
        raise BundleError(f"{bundle.path}: model {model!r} has no trace; export it again to be able to explain it")
    with np.load(io.BytesIO(bundle.read(reference.file)), allow_pickle=False) as archive:
        trace = {name: archive[name] for name in archive.files}
    case = _golden_case(bundle.golden(model), str(trace["case"]))
    graph = onnx.load_from_string(bundle.graph(model, variant))
    recorded = dict(zip(map(str, trace["values"]), trace["fingerprints"], strict=True))
    exposed, names = expose(graph, inputs=reproduce is not None)
    with Engine(exposed, device=device, name=model) as engine:
        if opened is not None:
            elsewhere = opened(exposed)
            engine.through(lambda _: elsewhere)
        found = by_step(engine.run(case.inputs, outputs=names))
    difference = _compare(graph, recorded, found)
    if difference is None:
        return None
    if reproduce is not None:
        write_alone(reproduce, graph, difference.value, {**case.inputs, **found})
    places = dict(zip(map(str, trace["values"]), map(str, trace.get("places", ())), strict=False))
    return replace(difference, place=places.get(difference.value, ""))


def fingerprint(array: NDArray[Any]) -> NDArray[np.float64]:
    """The l2 norm of an array, then its projections on random signs that depend on its size only: (5,)."""
    # What is infinite counts by its sign and place; NaN stays, and differs from everything.
    flat = np.nan_to_num(np.asarray(array, dtype=np.float64).ravel(), nan=math.nan, posinf=1.0, neginf=-1.0)
    rng = np.random.default_rng(flat.size)
    with np.errstate(invalid="ignore", over="ignore"):
        projections = [flat @ (rng.integers(0, 2, flat.size) * 2.0 - 1.0) for _ in range(PROJECTIONS)]
        return np.array([np.linalg.norm(flat), *projections])


def _compare(
    model: onnx.ModelProto, recorded: Mapping[str, NDArray[np.float64]], found: Mapping[str, NDArray[Any]]
) -> Difference | None:
    for position, node, value in each_value(model):
        if value not in recorded or value not in found:
            continue  # another variant has nodes of its own, and a loop that goes wrong another number of steps
        expected = recorded[value]
        with np.errstate(invalid="ignore"):
            printed = fingerprint(found[value])
            difference = float(np.abs(printed - expected).max()) / (float(expected[0]) or 1.0)
        if np.isnan(printed).all() and np.isnan(expected).all():
            continue  # no number there either
        if not difference <= DIFFERS:  # NaN differs
            relative = difference if math.isfinite(difference) else math.inf
            return Difference(node.name, node.op_type, value, relative, position, operators(model).total())
    return None


def _golden_case(cases: Sequence[GoldenCase], name: str) -> GoldenCase:
    for case in cases:
        if case.name == name:
            return case
    raise BundleError(f"the trace was recorded on the golden case {name!r}, which the bundle does not hold")


class _TorchValues(torch.fx.Interpreter):
    """Runs the torch program behind a graph and keeps what nodes gave, under the names of the graph's values."""

    def __init__(self, converted: Converted) -> None:
        super().__init__(converted.program.module(check_guards=False))
        self._names = converted.values
        self._order = [value.name for value in converted.model.graph.input]
        self._wanted: Container[str] = ()
        self._found: Arrays = {}
        self._sizes: dict[str, int] = {}

    def sizes(self, case: Case) -> dict[str, int]:
        """The bytes of each value for one case."""
        self.collect(case, ())
        return self._sizes

    def collect(self, case: Case, wanted: Container[str]) -> Arrays:
        """The wanted values for one case."""
        self._wanted, self._found, self._sizes = wanted, {}, {}
        with torch.no_grad():
            self.run(*(torch.from_numpy(case.inputs[name].copy()) for name in self._order))
        return self._found

    def run_node(self, n: torch.fx.Node) -> Any:
        """Runs one node of the program."""
        result = super().run_node(n)
        if n.name in self._names and isinstance(result, torch.Tensor):
            name = self._names[n.name]
            self._sizes[name] = result.nbytes
            if name in self._wanted:
                self._found[name] = result.numpy(force=True).copy()
        return result
