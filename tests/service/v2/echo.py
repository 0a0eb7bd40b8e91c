"""A bundle whose graph gives back what it gets, in every type that the engine takes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from runtime.bundle import Bundle, write_bundle
from runtime.manifest import Manifest, ModelSpec, TensorSpec, Variant

TYPES = {
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "string": TensorProto.STRING,
}


def write_echo_bundle(path: Path, version: str = "1.0.0") -> Bundle:
    """Inputs in_TYPE [N, K], outputs out_TYPE the same."""
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in TYPES],
        "echo",
        [helper.make_tensor_value_info(f"in_{name}", kind, ["N", "K"]) for name, kind in TYPES.items()],
        [helper.make_tensor_value_info(f"out_{name}", kind, ["N", "K"]) for name, kind in TYPES.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    data = model.SerializeToString()
    spec = ModelSpec(
        variants={"fp32": Variant("echo.onnx", hashlib.sha256(data).hexdigest(), len(data))},
        inputs=tuple(TensorSpec(f"in_{name}", name, ("N", "K"), finite=name != "float64") for name in TYPES),
        outputs=tuple(TensorSpec(f"out_{name}", name, ("N", "K")) for name in TYPES),
    )
    manifest = Manifest("echo", version, "echoing", "CC0-1.0", "gives back what it gets", {"graph": spec})
    return write_bundle(path, manifest, {"echo.onnx": data})


def echo_inputs(rows: int = 2, columns: int = 3, seed: int = 0) -> dict[str, NDArray[Any]]:
    """An array of every type, with its extremes."""
    rng = np.random.default_rng(seed)
    inputs: dict[str, NDArray[Any]] = {}
    for name in TYPES:
        if name == "string":
            texts = ["", "å", "\N{GRINNING FACE}", "\0", "a b", '"\\']
            array = np.array([texts[i % len(texts)] for i in range(rows * columns)], object)
        elif name == "bool":
            array = rng.integers(0, 2, rows * columns).astype(bool)
        elif name.startswith("float"):
            array = rng.standard_normal(rows * columns).astype(name)
            array[:2] = [np.finfo(name).max, np.finfo(name).smallest_subnormal]
        else:
            limits = np.iinfo(name)
            array = rng.integers(limits.min, limits.max, rows * columns, dtype=name, endpoint=True)
            array[:2] = [limits.min, limits.max]
        inputs[f"in_{name}"] = array.reshape(rows, columns)
    return inputs
