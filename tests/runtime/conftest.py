"""Small graphs and bundles that the tests of the runtime build for themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.bundle import Bundle, GoldenCase, golden_to_npz, write_bundle
from runtime.manifest import (
    CRITERION,
    FileRef,
    GoldenRef,
    Manifest,
    ModelSpec,
    OutputParity,
    Parity,
    TensorSpec,
    Variant,
)

OPSET = 18
IR_VERSION = 8
WEIGHTS = np.array([[1.0, -2.0], [0.5, 3.0], [2.0, 0.25]], np.float32)  # [3, 2]


def graph_bytes(nodes, inputs, outputs, initializers=()) -> bytes:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        [numpy_helper.from_array(value, name) for name, value in initializers],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def linear_graph() -> bytes:
    """y [N, 2] = x [N, 3] @ w, total [N] = sum of y."""
    return graph_bytes(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("ReduceSum", ["y", "axes"], ["total"], keepdims=0),
        ],
        [("x", TensorProto.FLOAT, ["N", 3])],
        [("y", TensorProto.FLOAT, ["N", 2]), ("total", TensorProto.FLOAT, ["N"])],
        [("w", WEIGHTS), ("axes", np.array([1], np.int64))],
    )


def linear_cases() -> list[GoldenCase]:
    rng = np.random.default_rng(7)
    cases = []
    for rows in (1, 2, 7, 32):
        x = rng.normal(size=(rows, 3)).astype(np.float32)
        y = x.astype(np.float64) @ WEIGHTS.astype(np.float64)
        cases.append(GoldenCase(f"batch {rows}", {"x": x}, {"y": y, "total": y.sum(1)}))
    return cases


def linear_manifest(graph: bytes, golden: bytes, notice: bytes, cases: int) -> Manifest:
    tolerance = OutputParity(atol=1e-5, rtol=1e-5, max_abs=1e-7, noise=1e-7, mutant=1e-3)
    return Manifest(
        name="linear",
        version="1.0.0",
        task="tensor",
        license="CC0-1.0",
        description="three numbers in, two out",
        models={
            "linear": ModelSpec(
                variants={"fp32": Variant("linear.onnx", hashlib.sha256(graph).hexdigest(), len(graph))},
                inputs=(TensorSpec("x", "float32", ("N", 3), meaning="numbers"),),
                outputs=(TensorSpec("y", "float32", ("N", 2)), TensorSpec("total", "float32", ("N",), unit="1")),
                golden=GoldenRef("linear.golden.npz", hashlib.sha256(golden).hexdigest(), cases),
                parity=Parity(CRITERION, "numpy float64", {"y": tolerance, "total": tolerance}),
            )
        },
        pipeline={"years": [1, 2, 3]},
        files={"notice": FileRef("NOTICE", hashlib.sha256(notice).hexdigest())},
        metrics=({"metric": "MAE", "value": 1.5},),
        provenance={"tool": "tests"},
    )


@pytest.fixture
def linear_parts(linear_graph: bytes) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest and the files of a small, honest bundle."""
    cases = linear_cases()
    golden, notice = golden_to_npz(cases), b"made by tests\n"
    files = {"linear.onnx": linear_graph, "linear.golden.npz": golden, "NOTICE": notice}
    return linear_manifest(linear_graph, golden, notice, len(cases)), files


@pytest.fixture
def linear_bundle(tmp_path: Path, linear_parts: tuple[Manifest, dict[str, bytes]]) -> Bundle:
    return write_bundle(tmp_path / "linear.edge", *linear_parts)


@pytest.fixture
def rewrite(linear_parts: tuple[Manifest, dict[str, bytes]]) -> Callable[..., tuple[Manifest, dict[str, bytes]]]:
    """The small bundle's parts with other golden cases."""

    def with_cases(cases: list[GoldenCase]) -> tuple[Manifest, dict[str, bytes]]:
        files = dict(linear_parts[1])
        files["linear.golden.npz"] = golden_to_npz(cases)
        manifest = linear_manifest(files["linear.onnx"], files["linear.golden.npz"], files["NOTICE"], len(cases))
        return manifest, files

    return with_cases
