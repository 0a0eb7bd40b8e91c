"""A timer without weights: a counter written out as a graph, so that every pulse has the length it should have."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from runtime.bundle import Bundle, write_bundle
from runtime.manifest import Manifest, ModelSpec, StateSpec, TensorSpec, Variant

UP = 0.5


def timer_graph(scale: int, late: int) -> bytes:
    """answer [B, T] of u [B, T, 2]; the state [1, B, 1] is how many steps are left. A pulse lasts `late` too long."""

    def value(name: str, shape: list[str | int], dtype: int = TensorProto.FLOAT) -> object:
        return helper.make_tensor_value_info(name, dtype, shape)

    body = helper.make_graph(
        [
            helper.make_node("Split", ["step"], ["u1", "u2"], axis=1, num_outputs=2),
            helper.make_node("Mul", ["u2", "scale"], ["long"]),
            helper.make_node("Round", ["long"], ["whole"]),
            helper.make_node("Add", ["whole", "late"], ["set"]),
            helper.make_node("Greater", ["u1", "half"], ["starts"]),
            helper.make_node("Where", ["starts", "set", "left"], ["now"]),
            helper.make_node("Greater", ["now", "half"], ["runs"]),
            helper.make_node("Where", ["runs", "up", "down"], ["out"]),
            helper.make_node("Sub", ["now", "one"], ["less"]),
            helper.make_node("Max", ["less", "down"], ["then"]),
        ],
        "step",
        [value("left", ["B", 1]), value("step", ["B", 2])],
        [value("then", ["B", 1]), value("out", ["B", 1])],
        [
            numpy_helper.from_array(np.array([number], np.float32), name)
            for name, number in {"scale": scale, "late": late, "half": 0.5, "up": UP, "down": 0, "one": 1}.items()
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["h0", "first"], ["begun"]),
            helper.make_node(
                "Scan",
                ["begun", "u"],
                ["ended", "steps"],
                body=body,
                num_scan_inputs=1,
                scan_input_axes=[1],
                scan_output_axes=[1],
            ),
            helper.make_node("Squeeze", ["steps", "last"], ["answer"]),
            helper.make_node("Unsqueeze", ["ended", "first"], ["hn"]),
        ],
        "timer",
        [value("u", ["B", "T", 2]), value("h0", [1, "B", 1])],
        [value("answer", ["B", "T"]), value("hn", [1, "B", 1])],
        [
            numpy_helper.from_array(np.array([0], np.int64), "first"),
            numpy_helper.from_array(np.array([2], np.int64), "last"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


def write_timer_bundle(path: Path, *, name: str = "timer", scale: int = 10, late: int = 0) -> Bundle:
    """The bundle, declared as `edgedl train timer` does."""
    graph = timer_graph(scale, late)
    model = ModelSpec(
        variants={"fp32": Variant("timer.onnx", hashlib.sha256(graph).hexdigest(), len(graph))},
        inputs=(TensorSpec("u", "float32", ("B", "T", 2)), TensorSpec("h0", "float32", (1, "B", 1))),
        outputs=(TensorSpec("answer", "float32", ("B", "T")), TensorSpec("hn", "float32", (1, "B", 1))),
        state=(StateSpec("h0", "hn", (1, "B", 1), "float32"),),
    )
    manifest = Manifest(
        name, "1.0.0", "timer", "CC0-1.0", "a counter", {"timer": model}, pipeline={"scale": scale}
    )  # fmt: skip
    return write_bundle(path, manifest, {"timer.onnx": graph})
