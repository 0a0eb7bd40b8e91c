"""An ONNX graph rewritten to compute in float64, for a reference."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporters.graphs import graphs

NARROW = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)

_TYPES = ("to", "dtype")
"""Attributes that name a type."""


def doubled(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph whose numbers of the graph's own float type are float64.

    The widest of the float types that the weights have is the graph's own. A cast to a narrower one stays: it changes
    the answers that the network gives.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    types = {tensor.data_type for graph in graphs(copied.graph) for tensor in graph.initializer} & set(NARROW)
    own = next((kind for kind in NARROW if kind in types), TensorProto.FLOAT)
    widened: set[int] = {own} | ({TensorProto.FLOAT} if own != TensorProto.FLOAT else set())
    for graph in graphs(copied.graph):
        for tensor in graph.initializer:
            _widen(tensor, widened)
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type in widened:
                value.type.tensor_type.elem_type = TensorProto.DOUBLE
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in _TYPES and attribute.i in widened:
                    attribute.i = TensorProto.DOUBLE
                if attribute.HasField("t"):
                    _widen(attribute.t, widened)
            _widen_constant(node)
    return copied


def _widen(tensor: onnx.TensorProto, widened: set[int]) -> None:
    if tensor.data_type in widened:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _widen_constant(node: onnx.NodeProto) -> None:
    """A constant may be a number of its node, and a constant of a shape is float32 where it says nothing."""
    if node.op_type == "Constant" and node.attribute[0].name in ("value_float", "value_floats"):
        given = node.attribute[0]
        array = np.array(given.f if given.name == "value_float" else list(given.floats), np.float64)
        node.attribute[0].CopyFrom(helper.make_attribute("value", numpy_helper.from_array(array)))
    if node.op_type == "ConstantOfShape" and not node.attribute:
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1))))
