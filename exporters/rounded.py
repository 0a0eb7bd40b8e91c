"""Half precision inside of a graph, written as float32 with its roundings.

A network may ask for a narrower type in forward, and torch rounds there. ONNX Runtime has few kernels for float16 on a
CPU and none for some of bfloat16: it computes in float32 between two casts, and leaves out the casts where they follow
one another, so that nothing is rounded. Here each operator of a narrow type computes in float32, as torch's kernels do,
and what it gives is rounded to the bits of the narrow type by arithmetic that no optimiser changes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporters.graphs import graphs

MOVING = frozenset(
    ("Abs", "Compress", "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Max",
     "MaxPool", "Min", "Neg", "ReduceMax", "ReduceMin", "Relu", "Reshape", "ScatterND", "Slice", "Split", "Squeeze",
     "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Where")
)  # fmt: skip
"""Operators that give numbers which they were given."""

SPLITS: Mapping[int, float] = {TensorProto.FLOAT16: 2.0**13 + 1, TensorProto.BFLOAT16: 2.0**16 + 1}
"""x·s - (x·s - x) has so many bits fewer than x (Veltkamp's splitting)."""

SMALLEST, BEYOND = 2.0**-14, 65520.0
"""The smallest normal number of float16, and from where on it is infinite."""

FAR = 2.0**110
"""From here on bfloat16 is not rounded: the product would leave float32."""


def write_roundings(model: onnx.ModelProto) -> int:
    """Rewrites a graph in place so that nothing in it but its inputs and outputs is narrower than float32.

    Returns:
        How many values are rounded.
    """
    count = 0
    for graph in graphs(model.graph):
        narrow = dict(_narrow(graph))
        if narrow:
            count += _widened(graph, narrow, graph is model.graph)
    return count


def _narrow(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in SPLITS:
            yield value.name, value.type.tensor_type.elem_type
    for tensor in graph.initializer:
        if tensor.data_type in SPLITS:
            yield tensor.name, tensor.data_type


def _widened(graph: onnx.GraphProto, narrow: dict[str, int], outermost: bool) -> int:
    for tensor in graph.initializer:
        if tensor.name in narrow:
            tensor.CopyFrom(numpy_helper.from_array(_numbers(tensor), tensor.name))
    ends = {value.name for value in (*graph.input, *graph.output)} if outermost else set()
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.name in narrow and value.name not in ends:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    given = {value.name for value in graph.input} & ends & set(narrow)
    nodes = [helper.make_node("Cast", [name], [f"{name}.wide"], to=TensorProto.FLOAT) for name in sorted(given)]
    count = 0
    for node in graph.node:
        node.input[:] = [f"{name}.wide" if name in given else name for name in node.input]
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i in SPLITS:
                attribute.i = TensorProto.FLOAT
            if attribute.HasField("t") and attribute.t.data_type in SPLITS:
                attribute.t.CopyFrom(numpy_helper.from_array(_numbers(attribute.t), attribute.t.name))
        nodes.append(node)
        for place, name in enumerate(node.output):
            if name not in narrow:
                continue
            source = name
            if node.op_type not in MOVING or name in ends:
                source = node.output[place] = f"{name}.wide"
            if node.op_type not in (*MOVING, "Constant"):
                count += 1
                rounded = f"{name}.rounded" if name in ends else name
                nodes += _rounding(source, rounded, narrow[name], node.metadata_props)
                source = rounded
            if name in ends:
                nodes.append(helper.make_node("Cast", [source], [name], to=narrow[name]))
    # What reads an output of the graph reads what was cast for the caller: it has the same numbers.
    written = {name for name in narrow if name in ends}
    for node in nodes:
        if node.op_type != "Cast" or not written.intersection(node.output):
            node.input[:] = [_source(name, nodes) if name in written else name for name in node.input]
    del graph.node[:]
    graph.node.extend(nodes)
    return count


def _source(name: str, nodes: Sequence[onnx.NodeProto]) -> str:
    return next((node.input[0] for node in nodes if name in node.output and node.op_type == "Cast"), name)


def _numbers(tensor: onnx.TensorProto) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return numpy_helper.to_array(tensor).astype(np.float32)


def _rounding(x: str, y: str, kind: int, origin: Sequence[onnx.StringStringEntryProto]) -> list[onnx.NodeProto]:
    """Nodes that round a float32 value to the numbers of a narrow type, to the nearest one."""
    nodes: list[onnx.NodeProto] = []
    numbers = itertools.count()

    def call(operator: str, *inputs: str) -> str:
        nodes.append(helper.make_node(operator, inputs, [f"{y}.{operator.lower()}.{next(numbers)}"]))
        return str(nodes[-1].output[0])

    def constant(value: float) -> str:
        nodes.append(helper.make_node("Constant", [], [f"{y}.constant.{next(numbers)}"], value_float=value))
        return str(nodes[-1].output[0])

    size, long = call("Abs", x), call("Mul", x, constant(SPLITS[kind]))
    short = call("Sub", long, call("Sub", long, x))
    if kind == TensorProto.BFLOAT16:
        call("Where", call("Less", size, constant(FAR)), short, x)
    else:
        # One step of float32 between 0.5 and 1 is the step of float16 below its normal numbers.
        low = call("Sub", call("Add", x, constant(0.75)), constant(0.75))
        infinite = call("Mul", x, constant(float("inf")))
        high = call("Where", call("Less", size, constant(BEYOND)), short, infinite)
        call("Where", call("Less", size, constant(SMALLEST)), low, high)
    nodes[-1].output[0] = y
    for node in nodes:
        node.metadata_props.extend(origin)
    return nodes
