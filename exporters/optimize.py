"""Denormal numbers out: weights so small that the processor handles them in microcode.

The CC0 age network holds 5,426 of them and runs 4.7 times faster without. They arise again when a graph is folded
(a small weight times a small scale), so the graph is flushed as well as the module.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from exporters.graphs import graphs

FLUSH_BELOW = 1e-20
"""Magnitude below which a weight becomes zero. Far above float32's smallest normal number, 1.2e-38: products of two
such weights, or of one with a small activation, are denormal too."""


def flush_module(module: nn.Module) -> int:
    """Sets parameters and buffers with ``0 < |w| < FLUSH_BELOW`` to zero, in place.

    Returns:
        How many there were.
    """
    count = 0
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tiny = (tensor != 0) & (tensor.abs() < FLUSH_BELOW)
                count += int(tiny.sum())
                tensor[tiny] = 0
    return count


def flush_graph(model: onnx.ModelProto) -> int:
    """Sets the tiny numbers among the initializers of a graph to zero, in place.

    Returns:
        How many there were.
    """
    count = 0
    for initializer in (initializer for graph in graphs(model.graph) for initializer in graph.initializer):
        if initializer.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
            continue
        array = numpy_helper.to_array(initializer)
        tiny = (array != 0) & (np.abs(array) < FLUSH_BELOW)
        found = int(np.count_nonzero(tiny))
        if found:
            count += found
            initializer.CopyFrom(
                numpy_helper.from_array(np.where(tiny, 0, array).astype(array.dtype), initializer.name)
            )
    return count
