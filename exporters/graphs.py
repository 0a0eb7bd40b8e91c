"""Walking through ONNX graphs and the graphs inside their nodes: the bodies of loops, the branches of conditions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import onnx

VARYING = "values of its body have another shape in each step"
"""Marks a loop, in the node's `doc_string`, whose steps cannot be stacked."""


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and after it the graphs inside its nodes, at any depth."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside a node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node, those in bodies included."""
    for graph in graphs(model.graph):
        yield from graph.node


def operators(model: onnx.ModelProto) -> Counter[str]:
    """How many nodes there are of each operator, those in bodies included."""
    return Counter(node.op_type for node in all_nodes(model))


def stamp(graph: bytes, properties: Mapping[str, str]) -> bytes:
    """Writes ``metadata_props`` into a graph, so that a stray file tells what it belongs to."""
    model = onnx.load_from_string(graph)
    onnx.helper.set_model_props(model, dict(properties))
    data: bytes = model.SerializeToString(deterministic=True)
    return data
