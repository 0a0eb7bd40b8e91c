"""A graph whose every value is an output, those in the bodies of loops included, and what its node computes alone."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from exporters.graphs import VARYING, bodies
from exporters.reference import Arrays

STEPS = 4
"""How many steps of a loop are looked at: a fault in its body shows in the first, or once the state goes round."""

LOOPS = ("Loop", "Scan")

_EVERY_STEP = ", every step"


def expose(
    model: onnx.ModelProto, *, inputs: bool = False, only: Container[str] | None = None
) -> tuple[bytes, list[str]]:
    """A copy of a graph in which the output of every node is an output of the graph, and the outputs' names.

    A value in the body of a loop becomes an output that stacks its steps. A loop marked as `VARYING` stays closed.

    Args:
        model: The graph.
        inputs: Expose what a body is given in each step as well.
        only: Expose these values, and none in the bodies of loops.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    already = {value.name for value in copied.graph.output}
    for node in copied.graph.node:
        if node.op_type in LOOPS and node.doc_string != VARYING and only is None:
            _expose_body(node, inputs)
    names = [value for node in copied.graph.node for value in node.output if value and (only is None or value in only)]
    for name in names:
        if name not in already:
            copied.graph.output.append(onnx.ValueInfoProto(name=name))  # ONNX Runtime infers the type
    return copied.SerializeToString(), names


def _expose_body(loop: onnx.NodeProto, inputs: bool) -> None:
    """Adds the outputs of all nodes in a loop's body to what the loop stacks, step by step."""
    (body,) = bodies(loop)
    names = [value for node in body.node for value in node.output if value]
    for value in [*names, *(given.name for given in body.input if inputs)]:
        again = f"{value}, again"  # the value itself may be carried, and no name may stand twice among the outputs
        body.node.append(onnx.helper.make_node("Identity", [value], [again]))
        body.output.append(onnx.ValueInfoProto(name=again))
        loop.output.append(value + _EVERY_STEP)
        for attribute in loop.attribute:
            if attribute.name in ("scan_output_axes", "scan_output_directions"):
                attribute.ints.append(0)


def by_step(found: Mapping[str, NDArray[Any]]) -> Arrays:
    """Stacked steps apart: of ``x, every step`` the arrays ``x, step 1``, ``x, step 2`` and so on."""
    arrays: Arrays = {}
    for name, array in found.items():
        if name.endswith(_EVERY_STEP):
            arrays |= {in_step(name.removesuffix(_EVERY_STEP), at): step for at, step in enumerate(array[:STEPS])}
        else:
            arrays[name] = array
    return arrays


def in_step(value: str, step: int) -> str:
    """The name of a value in a step of a loop, counted from 0."""
    return f"{value}, step {step + 1}"


def each_value(model: onnx.ModelProto) -> Iterator[tuple[int, onnx.NodeProto, str]]:
    """Position, node and name of every value in the order of computation, which ONNX prescribes for nodes."""
    position = 0
    for node in model.graph.node:
        inner = [part for body in bodies(node) for part in body.node] if node.op_type in LOOPS else []
        for step in range(STEPS if inner else 0):
            for at, part in enumerate(inner, start=position + 1):
                yield from ((at, part, in_step(value, step)) for value in part.output if value)
        position += len(inner) + 1
        yield from ((position, node, value) for value in node.output if value)


def alone(model: onnx.ModelProto, value: str, values: Mapping[str, NDArray[Any]]) -> tuple[onnx.ModelProto, Arrays]:
    """The graph of one node and the inputs that it had.

    Args:
        model: The graph that the node is in.
        value: An output of the node; in a body with its step.
        values: All values of the graph, see `expose` with ``inputs`` and `by_step`, and the inputs of the graph.
    """
    node = next(node for _, node, name in each_value(model) if name == value)
    _, within, step = value.partition(", step ")
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for outer in model.graph.node:
        for body in bodies(outer):
            weights |= {tensor.name: tensor for tensor in body.initializer}
    given: Arrays = {}
    kept = []
    for name in read_by(node):
        array = values.get(f"{name}{within}{step}", values.get(name))
        if name in weights:
            kept.append(weights[name])
        elif array is not None:
            given[name] = np.asarray(array)
    graph = onnx.helper.make_graph(
        [node],
        node.name or node.op_type,
        [_typed(name, array) for name, array in given.items()],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
        kept,
    )
    made = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return onnx.shape_inference.infer_shapes(made), given


def _typed(name: str, array: NDArray[Any]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def read_by(node: onnx.NodeProto) -> list[str]:
    """The names that a node reads, those in its bodies included."""
    return list(dict.fromkeys([*filter(None, node.input), *_free(node)]))


def _free(node: onnx.NodeProto) -> Iterator[str]:
    """The names that the bodies of a node read from outside."""
    for body in bodies(node):
        known = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
        for part in body.node:
            yield from (name for name in (*part.input, *_free(part)) if name and name not in known)
            known |= set(part.output)
