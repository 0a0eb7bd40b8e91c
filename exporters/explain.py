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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from exporters.convert import Converted
from exporters.execute import open_graph, run_case
from exporters.graphs import bodies, operators
from exporters.reference import Arrays
from exporters.spec import Case
from runtime.bundle import Bundle
from runtime.compare import distance
from runtime.engine import Engine
from runtime.errors import BundleError
from runtime.golden import GoldenCase

DIFFERS = 5e-6
"""Relative difference of a value that no rounding explains: float32 noise of deep networks is about 1e-6."""

PROJECTIONS = 4
"""One may miss a difference by chance (it is a sum with random signs); four together do not."""


STEPS = 4
"""How many steps of a loop are compared: a fault in its body shows in the first, or once the state goes round."""

_EVERY_STEP = ", every step"


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
    """

    node: str
    operator: str
    value: str
    relative: float
    position: int
    nodes: int

    def __str__(self) -> str:
        off = "has another shape or is not a number" if math.isinf(self.relative) else f"is off by {self.relative:.1e}"
        return (
            f"first node that differs: {self.node} ({self.operator}, {self.position} of {self.nodes}): its output "
            f"{self.value} {off}" + ("" if math.isinf(self.relative) else " of its own size")
        )


def first_torch_difference(converted: Converted, graph: bytes, case: Case) -> Difference | None:
    """Compares the graph with the torch program it was made from, both in float32, on one case.

    Returns:
        The first node that differs; None if all agree, in which case the fault arose while torch traced forward.
    """
    expected = _TorchValues(converted).collect(case)
    model = onnx.load_from_string(graph)
    exposed, names = expose(model)
    session = open_graph(exposed, "as written")
    found = run_case(session, case, names)
    for position, node, value in _values(model):
        if value in expected and value in found:
            magnitudes = np.abs(expected[value].astype(np.float64))
            size = float(magnitudes[np.isfinite(magnitudes)].max(initial=0)) or 1.0
            relative = distance(found[value], expected[value]) / size
            if relative > DIFFERS:
                return Difference(node.name, node.op_type, value, relative, position, operators(model).total())
    return None


def record_trace(graph: bytes, case: Case) -> bytes:
    """The trace of a graph on one case, as npz: ``case``, ``values`` (V names), ``fingerprints`` (V, 5)."""
    model = onnx.load_from_string(graph)
    exposed, names = expose(model)
    found = _by_step(run_case(open_graph(exposed, "as written"), case, names))
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        case=np.array(case.name),
        values=np.array(list(found)),
        fingerprints=np.stack([fingerprint(array) for array in found.values()]),
    )
    return stream.getvalue()


def explain(bundle: Bundle, model: str, variant: str = "fp32", device: str = "cpu") -> Difference | None:
    """Runs a model's graph on a device with all its values exposed and compares them with the recorded trace.

    Returns:
        The first node that differs; None if every value agrees.

    Raises:
        BundleError: the bundle holds no trace of this model.
    """
    reference = bundle.model(model).trace
    if reference is None:
        raise BundleError(f"{bundle.path}: model {model!r} has no trace; export it again to be able to explain it")
    with np.load(io.BytesIO(bundle.read(reference.file)), allow_pickle=False) as archive:
        trace = {name: archive[name] for name in ("case", "values", "fingerprints")}
    case = _golden_case(bundle.golden(model), str(trace["case"]))
    graph = onnx.load_from_string(bundle.graph(model, variant))
    recorded = dict(zip(map(str, trace["values"]), trace["fingerprints"], strict=True))
    exposed, names = expose(graph)
    with Engine(exposed, device=device, name=model) as engine:
        found = _by_step(engine.run(case.inputs, outputs=names))
    return _compare(graph, recorded, found)


def expose(model: onnx.ModelProto) -> tuple[bytes, list[str]]:
    """A copy of a graph in which the output of every node is an output of the graph, and the outputs' names.

    A value in the body of a loop becomes an output that stacks its steps.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    already = {value.name for value in copied.graph.output}
    for node in copied.graph.node:
        if node.op_type == "Loop":
            _expose_body(node)
    names = [value for node in copied.graph.node for value in node.output if value]
    for name in names:
        if name not in already:
            copied.graph.output.append(onnx.ValueInfoProto(name=name))  # ONNX Runtime infers the type
    return copied.SerializeToString(), names


def _expose_body(loop: onnx.NodeProto) -> None:
    """Adds the outputs of all nodes in a loop's body to what the loop stacks, step by step."""
    (body,) = bodies(loop)
    for value in [value for node in body.node for value in node.output if value]:
        again = f"{value}, again"  # the value itself may be carried, and no name may stand twice among the outputs
        body.node.append(onnx.helper.make_node("Identity", [value], [again]))
        body.output.append(onnx.ValueInfoProto(name=again))
        loop.output.append(value + _EVERY_STEP)


def _by_step(found: Mapping[str, NDArray[Any]]) -> Arrays:
    """Stacked steps apart: of ``x, every step`` the arrays ``x, step 1``, ``x, step 2`` and so on."""
    arrays: Arrays = {}
    for name, array in found.items():
        if name.endswith(_EVERY_STEP):
            arrays |= {_in_step(name.removesuffix(_EVERY_STEP), at): step for at, step in enumerate(array[:STEPS])}
        else:
            arrays[name] = array
    return arrays


def _in_step(value: str, step: int) -> str:
    return f"{value}, step {step + 1}"


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
    for position, node, value in _values(model):
        if value not in recorded or value not in found:
            continue  # another variant has nodes of its own, and a loop that goes wrong another number of steps
        expected = recorded[value]
        with np.errstate(invalid="ignore"):
            difference = float(np.abs(fingerprint(found[value]) - expected).max()) / (float(expected[0]) or 1.0)
        if not difference <= DIFFERS:  # NaN differs
            relative = difference if math.isfinite(difference) else math.inf
            return Difference(node.name, node.op_type, value, relative, position, operators(model).total())
    return None


def _values(model: onnx.ModelProto) -> Iterator[tuple[int, onnx.NodeProto, str]]:
    """Position, node and name of every value in the order of computation, which ONNX prescribes for nodes."""
    position = 0
    for node in model.graph.node:
        inner = [part for body in bodies(node) for part in body.node] if node.op_type == "Loop" else []
        for step in range(STEPS if inner else 0):
            for at, part in enumerate(inner, start=position + 1):
                yield from ((at, part, _in_step(value, step)) for value in part.output if value)
        position += len(inner) + 1
        yield from ((position, node, value) for value in node.output if value)


def _golden_case(cases: Sequence[GoldenCase], name: str) -> GoldenCase:
    for case in cases:
        if case.name == name:
            return case
    raise BundleError(f"the trace was recorded on the golden case {name!r}, which the bundle does not hold")


class _TorchValues(torch.fx.Interpreter):
    """Runs the torch program behind a graph and keeps what each node gave, under the name of the graph's value."""

    def __init__(self, converted: Converted) -> None:
        super().__init__(converted.program.module(check_guards=False))
        self._names = converted.values
        self._order = [value.name for value in converted.model.graph.input]
        self.found: Arrays = {}

    def collect(self, case: Case) -> Arrays:
        """The values for one case."""
        self.found = {}
        with torch.no_grad():
            self.run(*(torch.from_numpy(case.inputs[name].copy()) for name in self._order))
        return self.found

    def run_node(self, n: torch.fx.Node) -> Any:
        """Runs one node of the program."""
        result = super().run_node(n)
        if n.name in self._names and isinstance(result, torch.Tensor):
            self.found[self._names[n.name]] = result.numpy(force=True).copy()
        return result
