"""Divisions by a constant, written as multiplications.

32-bit ARM has no division of vectors. ONNX Runtime there multiplies with an estimate of 1/c that is off by up to 8e-6,
and computes ``x / 8`` no better than ``x / 7``. A multiplication by the float32 nearest to 1/c is off by a unit and a
half in the last place at most, and exact where c is a power of two. It is also quicker everywhere.

A division whose result is rounded to whole numbers, or compared, stays unless c is a power of two: 41 · (1/41) may be a
little less than 1, and its floor 0.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from exporters.graphs import all_nodes, graphs

_MIXING = frozenset(
    ("AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "CumSum", "Einsum", "Elu", "Erf", "Exp", "Gelu",
     "Gemm", "GlobalAveragePool", "GroupNormalization", "GRU", "InstanceNormalization", "LayerNormalization", "Log",
     "LogSoftmax", "LSTM", "MatMul", "Mish", "Pow", "Reciprocal", "ReduceL2", "ReduceLogSumExp", "ReduceMean",
     "ReduceSum", "Resize", "RNN", "Sigmoid", "Sin", "Cos", "Softmax", "Softplus", "Sqrt", "Tanh")
)  # fmt: skip
"""What comes out of these was rounded before, so that no comparison behind them can rest on an exact division."""

_CARRYING = frozenset(
    ("Abs", "Add", "Clip", "Concat", "Div", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity",
     "LeakyRelu", "Max", "Min", "Mul", "Neg", "Pad", "PRelu", "Relu", "Reshape", "Slice", "Split", "Squeeze", "Sub",
     "Sum", "Tile", "Transpose", "Unsqueeze", "Where")
)  # fmt: skip
"""Behind these a value may still be what the division gave."""

_SMALLEST = float(np.finfo(np.float32).tiny)


def multiply_for_divisions(model: onnx.ModelProto) -> int:
    """Replaces ``x / c`` by ``x · (1/c)`` where c is a float32 constant, in place.

    Returns:
        How many divisions were replaced.
    """
    constants = {one.name: (graph, one) for graph in graphs(model.graph) for one in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in all_nodes(model):
        for name in node.input:
            readers.setdefault(name, []).append(node)
    inner = {value.name for graph in graphs(model.graph) if graph is not model.graph for value in graph.output}
    count = 0
    for node in all_nodes(model):
        if node.op_type != "Div" or node.domain or node.input[1] not in constants:
            continue
        graph, divisor = constants[node.input[1]]
        if divisor.data_type != TensorProto.FLOAT or node.input[0] in constants:
            continue
        inverse = _inverse(numpy_helper.to_array(divisor))
        if inverse is None or not (inverse[1] or _is_only_mixed(node.output[0], readers, inner)):
            continue
        name = f"{divisor.name}.reciprocal"
        if name not in constants:
            graph.initializer.append(numpy_helper.from_array(inverse[0], name))
            constants[name] = graph, graph.initializer[-1]
        node.op_type, node.input[1] = "Mul", name
        count += 1
    if count:
        _drop_unread(model)
    return count


def _inverse(divisor: NDArray[np.float32]) -> tuple[NDArray[np.float32], bool] | None:
    """1/c, and whether all of it is exact; None where float32 does not hold it."""
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        inverse = np.asarray(1 / divisor.astype(np.float64)).astype(np.float32)
    fits = np.isfinite(inverse) & (np.abs(inverse) >= _SMALLEST) & (np.abs(divisor) >= _SMALLEST)
    if not fits.all():
        return None
    return inverse, bool((np.abs(np.frexp(divisor)[0]) == 0.5).all())


def _is_only_mixed(value: str, readers: dict[str, list[onnx.NodeProto]], inner: set[str]) -> bool:
    """Whether a value reaches nothing that rounds or compares before it is mixed with others."""
    waiting, seen = [value], {value}
    while waiting:
        name = waiting.pop()
        if name in inner:
            return False
        for node in readers.get(name, ()):
            if node.op_type in _MIXING and not node.domain:
                continue
            if node.op_type not in _CARRYING or node.domain:
                return False
            waiting += [output for output in node.output if output not in seen]
            seen.update(node.output)
    return True


def _drop_unread(model: onnx.ModelProto) -> None:
    read = {name for node in all_nodes(model) for name in node.input}
    for graph in graphs(model.graph):
        kept = [one for one in graph.initializer if one.name in read or one.name in {o.name for o in graph.output}]
        if len(kept) < len(graph.initializer):
            copies = [onnx.TensorProto.FromString(one.SerializeToString()) for one in kept]
            del graph.initializer[:]
            graph.initializer.extend(copies)
