"""A digits bundle whose answers a test can work out: ink in the middle is a 1, a hole there a 0."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from runtime.bundle import Bundle, write_bundle
from runtime.manifest import Manifest, ModelSpec, TensorSpec, Variant

FLOAT = TensorProto.FLOAT


def _value(name: str, shape: list[str | int], dtype: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def _constants(**values: Any) -> list[Any]:
    return [numpy_helper.from_array(np.array(value), name) for name, value in values.items()]


def _graph(name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> bytes:
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


def reading_graph() -> bytes:
    """Of pixels [N, H, W, 3], dark on bright: averaged ink [N, 8, 8]; twice that of the middle speaks for a 1."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["levels"], to=FLOAT),
        helper.make_node("ReduceMean", ["levels", "last"], ["grey"], keepdims=0),
        helper.make_node("Div", ["grey", "white"], ["bright"]),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Unsqueeze", ["dark", "second"], ["plane"]),
        helper.make_node("Resize", ["plane", "", "", "cells"], ["small"], axes=[2, 3], mode="linear", antialias=1),
        helper.make_node("Squeeze", ["small", "second"], ["ink"]),
        helper.make_node("Slice", ["ink", "three", "five", "both"], ["middle"]),
        helper.make_node("ReduceMean", ["middle", "both"], ["centre"], keepdims=0),
        helper.make_node("Mul", ["centre", "two"], ["twice"]),
        helper.make_node("Clip", ["twice", "least", "most"], ["is_one"]),
        helper.make_node("Sub", ["one", "is_one"], ["is_zero"]),
        helper.make_node("Unsqueeze", ["is_one", "second"], ["p1"]),
        helper.make_node("Unsqueeze", ["is_zero", "second"], ["p0"]),
        helper.make_node("Concat", ["p0", "p1"], ["two_of_ten"], axis=1),
        helper.make_node("Pad", ["two_of_ten", "rest"], ["probabilities"]),
        helper.make_node("ArgMax", ["probabilities"], ["digit"], axis=1, keepdims=0),
    ]
    constants = _constants(
        last=np.array([3]),
        second=np.array([1]),
        both=np.array([1, 2]),
        cells=np.array([8, 8]),
        three=np.array([3, 3]),
        five=np.array([5, 5]),
        rest=np.array([0, 0, 0, 8]),
        white=np.float32(255),
        one=np.float32(1),
        two=np.float32(2),
        least=np.float32(0.1),
        most=np.float32(0.9),
    )
    return _graph(
        "digits",
        nodes,
        [_value("pixels", ["N", "H", "W", 3], TensorProto.UINT8)],
        [
            _value("digit", ["N"], TensorProto.INT64),
            _value("probabilities", ["N", 10]),
            _value("ink", ["N", 8, 8]),
        ],
        constants,
    )


def drawing_graph() -> bytes:
    """Of label [N]: ink [N, 8, 8], label / 10 everywhere, and a hundredth of the first chance more."""
    nodes = [
        helper.make_node("Cast", ["label"], ["number"], to=FLOAT),
        helper.make_node("Div", ["number", "ten"], ["share"]),
        helper.make_node("ReduceMean", ["top", "second"], ["level"], keepdims=0),
        helper.make_node("ReduceMean", ["chance", "second"], ["noise"], keepdims=0),
        helper.make_node("Add", ["level", "noise"], ["both"]),
        helper.make_node("Mul", ["both", "little"], ["more"]),
        helper.make_node("Add", ["share", "more"], ["grey"]),
        helper.make_node("Unsqueeze", ["grey", "axes"], ["cell"]),
        helper.make_node("Mul", ["cell", "sheet"], ["ink"]),
    ]
    constants = _constants(
        ten=np.float32(10),
        little=np.float32(0.005),
        second=np.array([1]),
        axes=np.array([1, 2]),
        sheet=np.ones((1, 8, 8), np.float32),
    )
    inputs = [_value("label", ["N"], TensorProto.INT64), _value("top", ["N", 1]), _value("chance", ["N", 1])]
    return _graph("draw", nodes, inputs, [_value("ink", ["N", 8, 8])], constants)


def write_digits_bundle(path: Path, *, draws: bool = True, name: str = "digits") -> Bundle:
    """The bundle, declared as `edgedl train digits` does; with the way down of a deep belief net, or without."""
    reading = ModelSpec(
        variants={"fp32": _variant("digits.onnx", reading_graph())},
        inputs=(TensorSpec("pixels", "uint8", ("N", "H", "W", 3), layout="NHWC"),),
        outputs=(
            TensorSpec("digit", "int64", ("N",)),
            TensorSpec("probabilities", "float32", ("N", 10)),
            TensorSpec("ink", "float32", ("N", 8, 8)),
        ),
    )
    drawing = ModelSpec(
        variants={"fp32": _variant("draw.onnx", drawing_graph())},
        inputs=(
            TensorSpec("label", "int64", ("N",)),
            TensorSpec("top", "float32", ("N", 1)),
            TensorSpec("chance", "float32", ("N", 1)),
        ),
        outputs=(TensorSpec("ink", "float32", ("N", 8, 8)),),
    )
    models = {"digits": reading} | ({"draw": drawing} if draws else {})
    graphs = {"digits.onnx": reading_graph()} | ({"draw.onnx": drawing_graph()} if draws else {})
    return write_bundle(path, Manifest(name, "1.0.0", "digits", "CC0-1.0", "zeros and ones", models), graphs)


def _variant(file: str, graph: bytes) -> Variant:
    return Variant(file, hashlib.sha256(graph).hexdigest(), len(graph))
