"""Measuring: the form of the result, and that the figures are of what they say."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from runtime import bench as bench_module
from runtime.bench import bench, cold_start, overhead_us
from runtime.bundle import Bundle, GoldenCase, golden_to_npz, write_bundle
from runtime.checks import InputCheck
from runtime.devices import PROBE_GRAPH
from runtime.engine import Engine
from runtime.errors import BundleError, DeviceError
from runtime.feeds import main_model
from runtime.machine import describe_machine, peak_memory_mb
from runtime.manifest import GoldenRef, ModelSpec, TensorSpec, Variant
from tests.runtime.conftest import graph_bytes


def test_the_form_of_the_result(linear_bundle: Bundle) -> None:
    result = json.loads(json.dumps(bench(linear_bundle.path, threads=1, seconds=0.05)))
    assert result["variants"] == result["models"]["linear"]
    assert set(result["variants"]) == {"fp32"}
    assert set(result["variants"]["fp32"]) == {"1", "8"}
    for figures in result["variants"]["fp32"].values():
        assert 0 < figures["p50_ms"] <= figures["p95_ms"]
        assert figures["per_s"] > 0
    assert 0 < result["cold_start_s"] < 60
    assert 10 < result["rss_mb"] < 1000
    assert (result["device"], result["provider"], result["threads"]) == ("cpu", "CPUExecutionProvider", 1)
    assert result["machine"]["processor"]


def test_throughput_counts_rows(linear_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of one millisecond a call: 1000 calls a second, 8000 rows at batch 8."""
    monkeypatch.setattr(bench_module, "_timed", lambda call, seconds: [call() and 0.001] * 20)
    monkeypatch.setattr(bench_module, "cold_start", lambda *_, **__: (1.0, 50.0))
    figures = bench(linear_bundle, threads=1)["variants"]["fp32"]
    assert figures["1"] == {"p50_ms": 1.0, "p95_ms": 1.0, "per_s": 1000.0}
    assert figures["8"]["per_s"] == 8000.0


def test_the_batches_are_what_the_graph_sees(linear_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    run = Engine.run
    monkeypatch.setattr(Engine, "run", lambda self, feed: seen.append(feed[next(iter(feed))].shape) or run(self, feed))
    monkeypatch.setattr(bench_module, "cold_start", lambda *_, **__: (1.0, 50.0))
    bench(linear_bundle, threads=1, seconds=0.0)
    assert {(1, 3), (8, 3)} <= set(seen)


def test_the_overhead_of_the_engine_is_below_its_limit() -> None:
    """The limit is 20 µs; benchmarks/engine_overhead.py is the measurement, this only notices a blunder.

    It counts the functions that a call enters, Python's and C's: they are as many on a slow machine or a busy one.
    """
    engine, feed = Engine(PROBE_GRAPH, threads=1), {"x": np.zeros((1, 1, 4, 4), np.float32)}
    engine.run(feed)
    entered: list[str] = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, _: entered.append(f"{event} {frame.f_code.co_name}"))
    try:
        engine.run(feed)
    finally:
        sys.setprofile(before)
    assert sum(event.startswith(("call ", "c_call ")) for event in entered) <= 40, entered


def test_the_overhead_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    check = InputCheck.__call__

    def slow(self: InputCheck, *arguments: Any, **options: Any) -> Any:
        end = time.perf_counter() + 100e-6
        while time.perf_counter() < end:
            pass
        return check(self, *arguments, **options)

    monkeypatch.setattr(InputCheck, "__call__", slow)
    assert overhead_us(runs=100) > 90


def test_a_model_without_a_batch_is_measured_at_one(linear_parts, tmp_path: Path, monkeypatch) -> None:
    """An image [H, W, 3]: eight of them are not one of eight times the height."""
    graph = graph_bytes(
        [helper.make_node("ReduceMax", ["image"], ["top"], keepdims=0)],
        [("image", TensorProto.UINT8, ["H", "W", 3])],
        [("top", TensorProto.UINT8, [])],
    )
    golden = golden_to_npz([GoldenCase("grey", {"image": np.full((4, 5, 3), 7, np.uint8)}, {"top": np.array(7)})])
    model = ModelSpec(
        variants={"fp32": Variant("top.onnx", hashlib.sha256(graph).hexdigest(), len(graph))},
        inputs=(TensorSpec("image", "uint8", ("H", "W", 3)),),
        outputs=(TensorSpec("top", "uint8", ()),),
        golden=GoldenRef("top.npz", hashlib.sha256(golden).hexdigest(), 1),
    )
    manifest = replace(linear_parts[0], models={"top": model}, files={})
    bundle = write_bundle(tmp_path / "top.edge", manifest, {"top.onnx": graph, "top.npz": golden})
    monkeypatch.setattr(bench_module, "cold_start", lambda *_, **__: (1.0, 50.0))
    assert set(bench(bundle, threads=1, seconds=0.01)["variants"]["fp32"]) == {"1"}


def test_a_bundle_without_recorded_cases(linear_parts, tmp_path: Path) -> None:
    manifest, files = linear_parts
    files.pop("linear.golden.npz")
    model = replace(manifest.models["linear"], golden=None)
    bundle = write_bundle(tmp_path / "b.edge", replace(manifest, models={"linear": model}), files)
    with pytest.raises(BundleError, match="holds no recorded case to measure with"):
        bench(bundle)


def test_the_main_model(linear_bundle: Bundle) -> None:
    model = linear_bundle.model("linear")

    def named(task: str, name: str, *models: str) -> str:
        manifest = replace(linear_bundle.manifest, task=task, name=name, models=dict.fromkeys(models, model))
        linear_bundle.manifest = manifest
        return main_model(linear_bundle)

    assert named("age", "mine", "faces", "age") == "age"
    assert named("tensor", "age", "faces", "age") == "age"
    assert named("tensor", "mine", "faces", "age") == "faces"


def test_a_cold_start_that_fails_says_why(linear_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"a fresh process gave no answer: .*got float64"):
        cold_start(linear_bundle, "linear", {"x": np.zeros((1, 3))})
    with pytest.raises(DeviceError):
        bench(linear_bundle, device="abacus")


def test_peak_memory_grows_with_what_is_held() -> None:
    before = peak_memory_mb()
    block = np.ones(60_000_000, np.uint8)
    assert peak_memory_mb() >= max(before, 60.0)
    assert block.sum() == 60_000_000


def test_the_machine_is_described() -> None:
    machine = describe_machine()
    assert machine["onnxruntime"]
    assert machine["threads"] >= 1
    json.dumps(machine)
