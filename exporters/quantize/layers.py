"""Which nodes of a graph are computed in int8: layers with weights, and what carries numbers from one to the next.

The last layers, those that no other layer comes after, stay in float32 with everything behind them: pooling, the head,
soft-max and expectation are small, and answers are read from them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import onnx

WEIGHTED = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
CARRYING = frozenset(("Add", "AveragePool", "Clip", "Concat", "MaxPool", "Pad", "Relu"))
"""Operators that ONNX Runtime has in int8, so that numbers need not leave it between two layers."""

_Ends = Callable[[onnx.NodeProto], tuple[Sequence[str], Sequence[str]]]
_HEAVY = WEIGHTED | {"LSTM", "GRU", "RNN", "Loop", "Scan", "If", "Attention"}


@dataclass(frozen=True, slots=True)
class Layers:
    """Names of nodes.

    Attributes:
        weighted: Layers that can be computed in int8, in the order of the graph.
        carrying: Nodes between two of them.
    """

    weighted: tuple[str, ...]
    carrying: tuple[str, ...]


def find_layers(model: onnx.ModelProto) -> Layers:
    """The layers of a graph whose nodes all have names."""
    constants = {value.name for value in model.graph.initializer}
    nodes = list(model.graph.node)
    heavy = {node.name for node in nodes if node.op_type in _HEAVY}
    followed = _reached(reversed(nodes), heavy, lambda node: (node.output, node.input))
    weighted = [n.name for n in nodes if n.op_type in WEIGHTED and n.input[1] in constants and n.name in followed]
    after = _reached(nodes, weighted, lambda node: (node.input, node.output))
    before = _reached(reversed(nodes), weighted, lambda node: (node.output, node.input))
    carrying = [n.name for n in nodes if n.op_type in CARRYING and n.name in after and n.name in before]
    return Layers(tuple(weighted), tuple(carrying))


def name_nodes(model: onnx.ModelProto) -> None:
    """Gives every node of the outer graph a name of its own, in place."""
    taken: set[str] = set()
    for place, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}.{place}"
        taken.add(node.name)


def _reached(nodes: Iterable[onnx.NodeProto], starts: Collection[str], ends: _Ends) -> set[str]:
    """The nodes that are reached from some nodes, along the direction in which all nodes come."""
    values: set[str] = set()
    found: set[str] = set()
    for node in nodes:
        entering, leaving = ends(node)
        reached = not values.isdisjoint(entering)
        if reached:
            found.add(node.name)
        if reached or node.name in starts:
            values.update(leaving)
        values.discard("")  # an optional input or output that is left out
    return found
