"""The smallest honest bundle, for tests that need some bundle rather than a particular one."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from runtime.bundle import Bundle, GoldenCase, golden_to_npz, record_proof, write_bundle
from runtime.manifest import (
    CRITERION,
    GoldenRef,
    Manifest,
    ModelSpec,
    OutputParity,
    Parity,
    StateSpec,
    TensorSpec,
    Variant,
)
from runtime.proofs import Proof

SCALE = np.array([2.0, -1.0, 0.5], np.float32)


def scale_graph(scale: np.ndarray) -> bytes:
    """y [N, 3] = x [N, 3] * scale."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["y"], name="scaling")],
        "scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(scale, "scale")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


def write_scale_bundle(
    path: Path,
    scale: np.ndarray = SCALE,
    *,
    recorded: np.ndarray = SCALE,
    name: str = "scale",
    version: str = "2.0.1",
    spoilt: int | None = None,
    proven: bool = True,
) -> Bundle:
    """A bundle of one graph.

    Args:
        path: where it is written.
        scale: of its graph.
        recorded: the scale of its recorded answers; another one than the graph's makes a wrong bundle.
        name: in its manifest.
        version: in its manifest.
        spoilt: the place of a recorded answer that is wrong in any case.
        proven: whether a proof of another machine lies beside it, of which a server warns.
    """
    graph = scale_graph(scale)
    rng = np.random.default_rng(3)
    inputs = [rng.normal(size=(rows, 3)).astype(np.float32) for rows in (1, 2, 7, 32)]
    answers = [x.astype(np.float64) * recorded + (place == spoilt) for place, x in enumerate(inputs)]
    golden = golden_to_npz(
        [GoldenCase(f"batch {len(x)}", {"x": x}, {"y": y}) for x, y in zip(inputs, answers, strict=True)]
    )
    model = ModelSpec(
        variants={"fp32": Variant("scale.onnx", hashlib.sha256(graph).hexdigest(), len(graph))},
        inputs=(TensorSpec("x", "float32", ("N", 3), meaning="numbers"),),
        outputs=(TensorSpec("y", "float32", ("N", 3), unit="metre"),),
        golden=GoldenRef("scale.golden.npz", hashlib.sha256(golden).hexdigest(), len(inputs)),
        parity=Parity(
            CRITERION, "numpy float64", {"y": OutputParity(1e-5, 0.0, max_abs=1e-7, noise=1e-7, mutant=1e-3)}
        ),
    )
    manifest = Manifest(
        name=name,
        version=version,
        task="scaling",
        license="CC0-1.0",
        description="three numbers, scaled",
        models={"scale": model},
        pipeline={"years": list(range(20))},
        metrics=({"dataset": "made up", "split": "val", "n": 4, "metric": "MAE", "value": 4.75, "unit": "metre"},),
        provenance={"tool": "tests", "weights": [{"name": "none", "license": "CC0-1.0", "sha256": "0" * 64}]},
    )
    bundle = write_bundle(path, manifest, {"scale.onnx": graph, "scale.golden.npz": golden})
    if not proven:
        return bundle
    proof = Proof(bundle.digest, "arm64/cortex-a72", "1.32.0", "Cortex-A72", "fp32", ok=True, date="2026-11-28")
    return record_proof(path, replace(proof, max_abs=3.8e-6, share=0.4))


def sums_graph() -> bytes:
    """y [B, T, 2] = s0 [B, 2] + the sum of x [B, T, 2] so far; sn [B, 2] the sum of all: exact in whole numbers."""

    def value(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [
            helper.make_node("CumSum", ["x", "axis"], ["sums"]),
            helper.make_node("Unsqueeze", ["s0", "axes"], ["before"]),
            helper.make_node("Add", ["sums", "before"], ["y"]),
            helper.make_node("ReduceSum", ["x", "axes"], ["all"], keepdims=0),
            helper.make_node("Add", ["all", "s0"], ["sn"]),
        ],
        "sums",
        [value("x", ["B", "T", 2]), value("s0", ["B", 2])],
        [value("y", ["B", "T", 2]), value("sn", ["B", 2])],
        [numpy_helper.from_array(np.array(1), "axis"), numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


def write_sums_bundle(path: Path, version: str = "1.0.0") -> Bundle:
    """A bundle that carries a state, and of which nothing was recorded: running sums."""
    graph = sums_graph()
    model = ModelSpec(
        variants={"fp32": Variant("sums.onnx", hashlib.sha256(graph).hexdigest(), len(graph))},
        inputs=(TensorSpec("x", "float32", ("B", "T", 2)), TensorSpec("s0", "float32", ("B", 2))),
        outputs=(TensorSpec("y", "float32", ("B", "T", 2)), TensorSpec("sn", "float32", ("B", 2))),
        state=(StateSpec("s0", "sn", ("B", 2), "float32"),),
    )
    manifest = Manifest("sums", version, "summing", "CC0-1.0", "two numbers, summed", {"sums": model})
    return write_bundle(path, manifest, {"sums.onnx": graph})
