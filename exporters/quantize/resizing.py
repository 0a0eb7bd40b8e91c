"""Resize with the sizes of all its axes.

ONNX Runtime moves a transposition of uint8 past a Resize that gives sizes of some axes only, and then does not load the
graph ("Number of elements of input 'sizes' (0) does not match the number of axes"). It meets this as soon as the layer
behind the Resize is computed in int8.
"""

from __future__ import annotations

import onnx
from onnx import helper

_REGION, _SIZES = 1, 3
"""Places among the inputs."""
_HEIGHT_AND_WIDTH = [2, 3]
"""Of images with channels first, which are the last of four axes; the rank itself is not written in a graph."""


def write_all_sizes(model: onnx.ModelProto) -> int:
    """Rewrites every Resize of a graph that gives the height and width of images alone, in place.

    Returns:
        How many there were.
    """
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in model.graph.node:
        axes = next((attribute for attribute in node.attribute if attribute.name == "axes"), None)
        if axes is not None and _gives_sizes(node) and list(axes.ints) == _HEIGHT_AND_WIDTH:
            first, base = axes.ints[0], node.output[0]
            leading, sizes = f"{base}.leading_sizes", f"{base}.sizes"
            nodes.append(helper.make_node("Shape", [node.input[0]], [leading], name=leading, start=0, end=first))
            nodes.append(helper.make_node("Concat", [leading, node.input[_SIZES]], [sizes], name=sizes, axis=0))
            node.input[_SIZES] = sizes
            node.attribute.remove(axes)
            count += 1
        nodes.append(node)
    if count:
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(kept)
    return count


def _gives_sizes(node: onnx.NodeProto) -> bool:
    """Whether a node is a Resize to given sizes, and not of a region, whose corners would need all axes, too."""
    return (
        node.op_type == "Resize" and len(node.input) > _SIZES and bool(node.input[_SIZES]) and not node.input[_REGION]
    )
