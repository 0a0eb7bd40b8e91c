"""Sigmoids with a tail, where something reads it.

ONNX Runtime's Sigmoid is 0 from -18 on, which is right to 1.5e-8. What multiplies something with it and adds the
product to something else cannot tell: a gate, a SiLU before a convolution. A logarithm can, a quotient, a caller who
reads a probability. For those 1 / (1 + exp(-x)) is written out. It takes twice the time of the one operator, and in the
loop of a recurrent network it would make the whole step half as dear again.
"""

from __future__ import annotations

import numpy as np
import onnx

from exporters.graphs import bodies, graphs

PASSING = frozenset(
    ("Abs", "AveragePool", "Cast", "Clip", "Concat", "CumSum", "Expand", "Flatten", "Gather", "GatherElements",
     "GatherND", "GlobalAveragePool", "GlobalMaxPool", "Identity", "Max", "MaxPool", "Min", "Mul", "Neg", "Pad",
     "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Resize", "Slice", "Split",
     "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where")
)  # fmt: skip
"""Operators whose result is as small as what they read. So is a sum with a constant, as in ``p + 1e-12``."""

ABSORBING = frozenset(
    ("BatchNormalization", "Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "InstanceNormalization", "LSTM",
     "LayerNormalization", "LogSoftmax", "MatMul", "RNN", "Sigmoid", "Softmax", "Tanh")
)  # fmt: skip
"""Operators whose result does not show a difference of 1.5e-8 in what they read."""


def widen_sigmoids(model: onnx.ModelProto) -> int:
    """Writes out each Sigmoid whose tail reaches something that can tell, in place; in a body, something in the body.

    Returns:
        How many there were.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    for graph in graphs(model.graph):
        constants.update(name for node in graph.node if node.op_type == "Constant" for name in node.output)
    count = 0
    for graph in graphs(model.graph):
        telling = _telling(graph, constants, {value.name for value in model.graph.output})
        types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
        for index in reversed(range(len(graph.node))):
            name = graph.node[index].output[0]
            if graph.node[index].op_type == "Sigmoid" and name in telling:
                _write_out(model.graph, graph, index, types.get(name, onnx.TensorProto.FLOAT))
                count += 1
    return count


def _telling(graph: onnx.GraphProto, constants: set[str], outputs: set[str]) -> set[str]:
    """The values that reach, as small as they are, an output or an operator that can tell."""
    telling = set(outputs)
    for node in reversed(graph.node):  # in the order of computation, so that what becomes of a result is known
        sum_with_constant = node.op_type in ("Add", "Sub") and not constants.isdisjoint(node.input)
        if node.op_type in PASSING or sum_with_constant:
            if not telling.isdisjoint(node.output):
                telling.update(node.input)
        elif node.op_type not in ABSORBING and node.op_type not in ("Add", "Sub"):
            telling.update(node.input)
            telling.update(
                name for body in bodies(node) for part in graphs(body) for n in part.node for name in n.input
            )
    return telling


def _write_out(outer: onnx.GraphProto, graph: onnx.GraphProto, index: int, dtype: int) -> None:
    """Replaces a Sigmoid by four operators; the last has its output, all have its origin."""
    one = f"sigmoid.one.{dtype}"
    if one not in {tensor.name for tensor in outer.initializer}:
        value = np.ones((), onnx.helper.tensor_dtype_to_np_dtype(dtype))
        outer.initializer.append(onnx.numpy_helper.from_array(value, one))
    node = graph.node[index]
    (x,), (y,) = node.input, node.output
    steps = [("Neg", [x]), ("Exp", [f"{y}.neg"]), ("Add", [f"{y}.exp", one]), ("Reciprocal", [f"{y}.add"])]
    made = [onnx.helper.make_node(kind, read, [f"{y}.{kind.lower()}"]) for kind, read in steps]
    made[-1].output[0] = y
    for part in made:
        part.metadata_props.extend(node.metadata_props)
    del graph.node[index]
    for part in reversed(made):
        graph.node.insert(index, part)
