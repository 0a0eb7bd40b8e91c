"""Resize with the sizes of all its axes.

ONNX Runtime moves a transposition of uint8 past a Resize that gives sizes of some axes only, and then does not load the
graph ("Number of elements of input 'sizes' (0) does not match the number of axes"). It meets this as soon as the layer
behind the Resize is computed in int8.
"""

from __future__ import annotations

import onnx
from onnx import helper

_SIZES = 3


def write_all_sizes(model: onnx.ModelProto) -> int:
    """Rewrites every Resize of a graph that gives the sizes of its last axes, in place.

    Returns:
        How many there were.
    """
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in model.graph.node:
        axes = next((attribute for attribute in node.attribute if attribute.name == "axes"), None)
        given = node.op_type == "Resize" and len(node.input) > _SIZES and bool(node.input[_SIZES])
        if axes is not None and given and _are_last(list(axes.ints)):
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


def _are_last(axes: list[int]) -> bool:
    """Whether the axes are counted from the front, follow each other, and are not all axes from 0 on.

    Images have four axes, two of them in front; that the last of `axes` is the last axis of the image follows, because
    the rank of a Resize is not written in the graph.
    """
    return axes == [2, 3]
