"""What a graph works out from its weights alone, worked out once: reordered gates, stacked directions, summed biases.

ONNX Runtime would do it at each start; other runtimes, and ONNX Runtime without optimisation, at each call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from exporters.graphs import bodies, graphs

MOVING = frozenset(
    ("Add", "Concat", "Constant", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
)
"""Operators whose result is no larger than what they read."""


def fold_weights(model: onnx.ModelProto) -> int:
    """Replaces what is computed from weights that nothing else reads by its value, in place.

    A weight that is read elsewhere as well stays as it is: a second form of it would make the file larger.

    Returns:
        How many weights there are in a new form.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    sources: dict[str, tuple[str, ...]] = {name: (name,) if tensor.dims else () for name, tensor in weights.items()}
    fixed = []
    for node in graph.node:
        if node.op_type in MOVING and node.domain == "" and all(name in sources for name in node.input if name):
            fixed.append(node)
            found = dict.fromkeys(source for name in node.input if name for source in sources[name])
            sources |= dict.fromkeys(node.output, tuple(found))
    kept = {id(node) for node in fixed}
    read = {name for node in graph.node if id(node) not in kept for name in _read(node)} | {
        o.name for o in graph.output
    }
    # Of integers alone (axes, shapes) there is nothing to gain.
    roots = [
        name
        for node in fixed
        for name in node.output
        if name in read and node.op_type != "Constant" and sources[name] and not read.intersection(sources[name])
    ]
    if not roots:
        return 0
    values = _evaluate(model, fixed, roots)
    names = {}
    for name, value in zip(roots, values, strict=True):
        names[name] = _free(f"{sources[name][0]}.folded", weights)
        weights[names[name]] = numpy_helper.from_array(value, names[name])
        graph.initializer.append(weights[names[name]])
    for part in graphs(graph):
        for node in part.node:
            node.input[:] = [names.get(name, name) for name in node.input]
    for output in graph.output:
        if output.name in names:  # an output that depends on no input keeps its name
            graph.node.append(onnx.helper.make_node("Identity", [names[output.name]], [output.name]))
    _sweep(graph, {id(node) for node in fixed})
    return len(roots)


def _evaluate(model: onnx.ModelProto, nodes: list[onnx.NodeProto], wanted: list[str]) -> list[NDArray[Any]]:
    """The values of the wanted names, by the reference implementation of the operators."""
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in wanted]
    graph = onnx.helper.make_graph(nodes, "weights", [], outputs, list(model.graph.initializer))
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return list(ReferenceEvaluator(part).run(None, {}))


def _sweep(graph: onnx.GraphProto, fixed: set[int]) -> None:
    """Drops the fixed nodes, and then the weights, that nothing reads any more."""
    while True:
        read = {name for node in graph.node for name in _read(node)} | {output.name for output in graph.output}
        idle = [node for node in graph.node if id(node) in fixed and read.isdisjoint(node.output)]
        if not idle:
            break
        for node in idle:
            graph.node.remove(node)
    left = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(left)
    names = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    known = [value for value in graph.value_info if value.name in names]
    del graph.value_info[:]
    graph.value_info.extend(known)


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """Every name that a node reads, in the graphs inside it as well."""
    yield from (name for name in node.input if name)
    for body in bodies(node):
        for inner in body.node:
            yield from _read(inner)
        yield from (value.name for value in body.output)


def _free(name: str, taken: dict[str, onnx.TensorProto]) -> str:
    number, free = 1, name
    while free in taken:
        number, free = number + 1, f"{name}.{number + 1}"
    return free
