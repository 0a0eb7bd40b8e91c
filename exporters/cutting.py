"""A part of a graph: from some of its values to some others, with the weights that lie between."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from exporters.errors import GuardError


def part(model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """The nodes of a graph that lead from some values to some others, in their order.

    Args:
        model: without branches and loops.
        inputs: values where the part begins.
        outputs: values where it ends.

    Raises:
        GuardError: a value is needed that neither the part nor its inputs give.
    """
    given = {output: node for node in model.graph.node for output in node.output}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    wanted, used = list(outputs), set()
    needed: set[str] = set()
    while wanted:
        name = wanted.pop()
        if not name or name in inputs or name in needed or name in used:
            continue
        if name in weights:
            used.add(name)
        elif name in given:
            needed.update(given[name].output)
            wanted += given[name].input
        else:
            raise GuardError(f"{', '.join(outputs)} need {name} beside {', '.join(inputs)}")
    types = {
        info.name: info for info in (*model.graph.output, *onnx.shape_inference.infer_shapes(model).graph.value_info)
    }
    known = {info.name: info for info in model.graph.input} | types
    graph = onnx.helper.make_graph(
        [node for node in model.graph.node if needed.intersection(node.output)],
        "part",
        [known[name] for name in inputs],
        [known[name] for name in outputs],
        [tensor for name, tensor in weights.items() if name in used],
    )
    return onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def only(model: onnx.ModelProto, kind: str) -> onnx.NodeProto:
    """The one node of a kind.

    Raises:
        GuardError: there is none, or there are several.
    """
    found = [node for node in model.graph.node if node.op_type == kind]
    if len(found) != 1:
        raise GuardError(f"the graph has {len(found)} nodes {kind}, expected one")
    node: onnx.NodeProto = found[0]
    return node


def constant_of(model: onnx.ModelProto, name: str) -> float:
    """A number that stands in a graph.

    Raises:
        GuardError: it is none that is known.
    """
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return float(onnx.numpy_helper.to_array(tensor).item())
    raise GuardError(f"{name} is not a number that stands in the graph")
