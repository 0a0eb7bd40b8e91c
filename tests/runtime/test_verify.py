"""Replaying recorded answers: within the tolerance it passes, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from runtime.bundle import Bundle, GoldenCase, pack, write_bundle
from runtime.child import run_python
from runtime.errors import BundleError, DeviceError, InputError
from runtime.manifest import Manifest, OutputParity, Variant
from runtime.verify import VerifyReport, verify
from tests.runtime.conftest import WEIGHTS, graph_bytes, linear_cases

Parts = tuple[Manifest, dict[str, bytes]]


def with_tolerance(manifest: Manifest, **tolerance: Any) -> Manifest:
    model = manifest.models["linear"]
    assert model.parity is not None
    outputs = {name: replace(value, **tolerance) for name, value in model.parity.outputs.items()}
    return replace(manifest, models={"linear": replace(model, parity=replace(model.parity, outputs=outputs))})


def write(path: Path, parts: Parts) -> Bundle:
    return write_bundle(path / "v.edge", *parts)


def test_an_honest_bundle_passes(linear_bundle: Bundle, tmp_path: Path) -> None:
    for source in (linear_bundle, linear_bundle.path, str(pack(linear_bundle, tmp_path / "p.edge").path)):
        report = verify(source, threads=1)
        assert report
        assert (report.device, report.provider) == ("cpu", "CPUExecutionProvider")
        assert [(check.output, check.cases, check.ok) for check in report.checks] == [
            ("y", 4, True),
            ("total", 4, True),
        ]
        for check in report.checks:
            assert 0 < check.max_abs <= check.allowed < 1e-3
            assert 0 < check.max_rel < 1e-3


def test_the_numbers_are_the_errors_themselves(rewrite: Callable[..., Parts], tmp_path: Path) -> None:
    """One input, an answer shifted by 0.25 and 0.5: errors known in closed form."""
    x = np.array([[2.0, 0.0, 0.0]], np.float32)
    exact = x.astype(np.float64) @ WEIGHTS  # [2, -4]
    case = GoldenCase("shifted", {"x": x}, {"y": exact + np.array([0.25, 0.5]), "total": exact.sum(1)})
    manifest, files = rewrite([case])
    report = verify(write(tmp_path, (with_tolerance(manifest, atol=0.1, rtol=0.1), files)), threads=1)
    y, total = report.checks
    assert not report
    assert not y.ok
    assert total.ok
    assert y.max_abs == 0.5
    assert y.max_rel == pytest.approx(0.5 / 3.5)
    assert y.allowed == pytest.approx(0.1 + 0.1 * 3.5)
    assert y.worst_case == "shifted"
    assert "FAILED in case 'shifted'" in str(report)


@pytest.mark.parametrize(("shift", "ok"), [(0.0999, True), (0.1001, False)], ids=["inside", "outside"])
def test_the_limit_is_sharp(rewrite: Callable[..., Parts], tmp_path: Path, shift: float, ok: bool) -> None:
    cases = linear_cases()
    cases[2].outputs["y"][3, 1] += shift
    manifest, files = rewrite(cases)
    report = verify(write(tmp_path, (with_tolerance(manifest, atol=0.1, rtol=0.0), files)), threads=1)
    assert report.ok is ok
    assert report.checks[0].worst_case == "batch 7"
    assert report.checks[0].cases == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda case: case.outputs["y"].fill(np.nan), "NaN"),
        (lambda case: case.outputs["y"].fill(np.inf), "where the reference is inf"),
        (lambda case: case.outputs.update(y=case.outputs["y"][:, :1]), r"shape \[1, 2\], the reference has \[1, 1\]"),
        (lambda case: case.outputs.update(y=case.outputs["y"][0]), r"the reference has \[2\]"),
        (lambda case: case.outputs.pop("y"), "no recorded answer"),
        (lambda case: case.inputs.update(x=case.inputs["x"].astype(np.float64)), "got float64"),
        (lambda case: case.inputs.pop("x"), "'x' is missing"),
        (lambda case: case.outputs.update(y=np.array([["a", "b"]])), "where the reference is"),
    ],
    ids=["nan", "inf", "narrower", "rank", "not recorded", "input type", "no input", "text"],
)
def test_what_never_passes(rewrite: Callable[..., Parts], tmp_path: Path, change: Any, words: str) -> None:
    cases = linear_cases()
    change(cases[0])
    manifest, files = rewrite(cases)
    report = verify(write(tmp_path, (with_tolerance(manifest, atol=1e6, rtol=1e6), files)), threads=1)
    assert not report
    check = report.checks[0]
    assert not check.ok
    assert check.worst_case == "batch 1"
    assert re.search(words, check.note), check.note
    document = report.to_json()
    assert document["checks"][0]["max_abs"] is None
    json.dumps(document, allow_nan=False)


def test_a_graph_that_answers_nan_never_passes(linear_parts: Parts, tmp_path: Path) -> None:
    graph = graph_bytes(
        [
            helper.make_node("MatMul", ["x", "w"], ["p"]),
            helper.make_node("Div", ["zero", "zero"], ["nan"]),
            helper.make_node("Add", ["p", "nan"], ["y"]),
            helper.make_node("ReduceSum", ["p", "axes"], ["total"], keepdims=0),
        ],
        [("x", TensorProto.FLOAT, ["N", 3])],
        [("y", TensorProto.FLOAT, ["N", 2]), ("total", TensorProto.FLOAT, ["N"])],
        [("w", WEIGHTS), ("axes", np.array([1], np.int64)), ("zero", np.zeros(1, np.float32))],
    )
    report = verify(write(tmp_path, with_graph(linear_parts, graph)), threads=1)
    assert [check.ok for check in report.checks] == [False, True]


def with_graph(parts: Parts, graph: bytes) -> Parts:
    manifest, files = parts
    variant = Variant("linear.onnx", hashlib.sha256(graph).hexdigest(), len(graph))
    model = replace(manifest.models["linear"], variants={"fp32": variant})
    return replace(manifest, models={"linear": model}), {**files, "linear.onnx": graph}


def linear(weights: np.ndarray) -> bytes:
    return graph_bytes(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("ReduceSum", ["y", "axes"], ["total"], keepdims=0),
        ],
        [("x", TensorProto.FLOAT, ["N", 3])],
        [("y", TensorProto.FLOAT, ["N", 2]), ("total", TensorProto.FLOAT, ["N"])],
        [("w", weights.astype(np.float32)), ("axes", np.array([1], np.int64))],
    )


@pytest.mark.parametrize(
    "mutant", [WEIGHTS[::-1], WEIGHTS * 1.001, WEIGHTS + 1e-3, -WEIGHTS], ids=["swapped", "scaled", "shifted", "sign"]
)
def test_mutants_are_caught(linear_parts: Parts, tmp_path: Path, mutant: np.ndarray) -> None:
    assert not verify(write(tmp_path, with_graph(linear_parts, linear(mutant))), threads=1)


def test_without_recorded_answers_nothing_is_proven(linear_parts: Parts, tmp_path: Path) -> None:
    manifest, files = linear_parts
    files.pop("linear.golden.npz")
    model = replace(manifest.models["linear"], golden=None)
    report = verify(write(tmp_path, (replace(manifest, models={"linear": model}), files)), threads=1)
    assert not report
    assert {check.note for check in report.checks} == {"the bundle holds no recorded answers for it"}


def test_an_output_without_a_tolerance_must_be_exact(linear_parts: Parts, tmp_path: Path) -> None:
    manifest, files = linear_parts
    model = replace(manifest.models["linear"], parity=None)
    report = verify(write(tmp_path, (replace(manifest, models={"linear": model}), files)), threads=1)
    assert not report  # float32 is never exactly float64
    assert report.checks[0].allowed == 0.0


def test_variants(linear_parts: Parts, tmp_path: Path) -> None:
    manifest, files = linear_parts
    coarse = linear(WEIGHTS * 1.01)
    model = manifest.models["linear"]
    variants = {**model.variants, "int8": Variant("c.onnx", hashlib.sha256(coarse).hexdigest(), len(coarse), {"m": 1})}
    parts = replace(manifest, models={"linear": replace(model, variants=variants)}), {**files, "c.onnx": coarse}
    bundle = write(tmp_path, parts)
    assert {check.variant for check in verify(bundle, threads=1).checks} == {"fp32"}  # int8 declares its own error
    report = verify(bundle, threads=1, variant="int8")
    assert {check.variant for check in report.checks} == {"int8"}
    assert not report
    with pytest.raises(InputError, match="no model has a variant 'int4'; there are fp32, int8"):
        verify(bundle, variant="int4")


# --- decisions -----------------------------------------------------------------------------------------------------


def decided(rewrite: Any, tmp_path: Path, answer: np.ndarray, recorded: np.ndarray, atol: float, decision: str) -> Any:
    """A check of output y whose graph answers `answer` [1, 2] where `recorded` was recorded."""
    x = np.linalg.lstsq(WEIGHTS.astype(np.float64).T, answer.ravel(), rcond=None)[0].astype(np.float32)[None]
    case = GoldenCase("one", {"x": x}, {"y": recorded, "total": (x.astype(np.float64) @ WEIGHTS).sum(1)})
    manifest, files = rewrite([case])
    manifest = with_tolerance(manifest, atol=atol, rtol=0.0)
    model = manifest.models["linear"]
    parity = replace(model.parity, outputs={**model.parity.outputs, "y": OutputParity(atol, 0.0, decision=decision)})
    manifest = replace(manifest, models={"linear": replace(model, parity=parity)})
    return verify(write(tmp_path, (manifest, files)), threads=1).checks[0]


@pytest.mark.parametrize(
    ("decision", "answer", "recorded", "atol", "changes"),
    [
        ("argmax", [1.0, 1.2], [1.1, 0.95], 0.3, 0),  # margin .15: too close to call
        ("argmax", [1.0, 1.2], [1.24, 0.98], 0.25, 1),  # within the tolerance, but another class with a clear margin
        ("argmax", [1.0, 1.2], [1.0, 1.2], 0.1, 0),
        ("round", [2.45, 3.0], [2.55, 3.0], 0.2, 0),  # .05 from the edge: too close to call
        ("round", [2.40, 3.0], [2.65, 3.0], 0.149, 1),
        ("round", [2.40, 3.0], [2.40, 3.0], 0.01, 0),
        ("exact", [1.0, 1.2], [1.0, 1.3], 0.5, 1),
    ],
)
def test_decisions(rewrite, tmp_path: Path, decision: str, answer, recorded, atol: float, changes: int) -> None:
    check = decided(rewrite, tmp_path, np.array(answer), np.array([recorded]), atol, decision)
    assert check.decision_changes == changes
    if changes:
        assert not check.ok
        assert check.note == f"decisions that differ: {changes}"


# --- rest ----------------------------------------------------------------------------------------------------------


def test_the_report_reads_as_a_table_and_as_json(linear_bundle: Bundle) -> None:
    report = verify(linear_bundle, threads=1)
    lines = str(report).splitlines()
    assert lines[0].split() == ["model", "variant", "output", "cases", "max", "abs", "max", "rel", "allowed"]
    assert lines[1].split()[:4] == ["linear", "fp32", "y", "4"]
    assert lines[1].endswith("ok")
    document = json.loads(json.dumps(report.to_json()))
    assert document["ok"] is True
    assert {"model", "variant", "output", "cases", "max_abs", "max_rel", "allowed", "ok"} <= set(document["checks"][0])


def test_errors_pass_through(linear_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DeviceError):
        verify(linear_bundle, device="abacus")
    with pytest.raises(BundleError):
        verify(tmp_path / "none.edge")
    assert not VerifyReport(False, "cpu", "", ())


def test_verify_needs_numpy_and_onnxruntime_only(linear_bundle: Bundle) -> None:
    code = """
import sys
from runtime.verify import verify
assert verify(sys.argv[1], threads=1)
tops = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(sorted(name for name in tops if not name.startswith("_")))
"""
    done: subprocess.CompletedProcess[str] = run_python(code, str(linear_bundle.path))
    found = set(eval(done.stdout))
    assert found <= {"numpy", "onnxruntime", "runtime", "sitecustomize", "cython_runtime"}, done.stderr
