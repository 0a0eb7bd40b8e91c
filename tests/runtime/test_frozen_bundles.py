"""What an older edgedl wrote: it loads, verifies and answers."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from runtime.bench import bench
from runtime.bundle import GoldenCase, golden_to_npz, write_bundle
from runtime.errors import InputError
from runtime.manifest import CRITERION, GoldenRef, Manifest, ModelSpec, OutputParity, Parity, TensorSpec, Variant
from runtime.pipelines import load
from runtime.verify import verify
from service.app import create_app
from tests.frozen_bundles import NAMES, unpack, with_manifest
from tests.runtime.conftest import graph_bytes

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def question(task: str, bundle: Any) -> Any:
    """Something that a user asks."""
    if task in ("age", "digits", "caption"):
        return PICTURE
    if task == "chars":
        return b"once upon"
    (model,) = bundle.manifest.models
    carried = {state.input for state in bundle.manifest.models[model].state}
    case = bundle.golden(model)[0]
    return npz(**{name: array for name, array in case.inputs.items() if name not in carried})


ANSWERS = {
    "age": {"faces", "interval"},
    "digits": {"digit", "probability", "probabilities"},
    "caption": {"caption", "score", "frames", "alternatives"},
    "chars": {"text", "unknown", "length", "temperature", "top_k", "seed"},
}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_verified_and_answers(name: str, tmp_path: Path) -> None:
    bundle = unpack(name, tmp_path)
    assert all(not model.dimensions for model in bundle.manifest.models.values())
    report = verify(bundle, threads=1)
    assert report.ok, str(report)
    task = bundle.manifest.task
    with load(bundle, threads=1) as pipeline:
        answer = pipeline.predict(question(task, bundle))
    assert set(answer) == ANSWERS.get(task, {"outputs"})


def test_there_is_one_of_each_task() -> None:
    from edgedl.tasks import task_names

    assert {name.partition("-")[0] for name in NAMES} == set(task_names())


def test_recorded_infinities_are_replayed_and_others_refused(tmp_path: Path) -> None:
    """A bundle from before an input could be declared to take them: verified, measured and served as ever."""
    graph = graph_bytes(
        [helper.make_node("Add", ["x", "mask"], ["sum"]), helper.make_node("Softmax", ["sum"], ["y"], axis=1)],
        [("x", TensorProto.FLOAT, ["N", "T"]), ("mask", TensorProto.FLOAT, ["N", "T"])],
        [("y", TensorProto.FLOAT, ["N", "T"])],
    )
    x, mask = np.zeros((2, 4), np.float32), np.array([[0, 0, -np.inf, -np.inf]] * 2, np.float32)
    half = np.array([[0.5, 0.5, 0, 0]] * 2)
    golden = golden_to_npz([GoldenCase("masked", {"x": x, "mask": mask}, {"y": half})])
    tensors = {name: TensorSpec(name, "float32", ("N", "T")) for name in ("x", "mask", "y")}
    model = ModelSpec(
        variants={"fp32": Variant("m.onnx", hashlib.sha256(graph).hexdigest(), len(graph))},
        inputs=(tensors["x"], tensors["mask"]),
        outputs=(tensors["y"],),
        golden=GoldenRef("m.golden.npz", hashlib.sha256(golden).hexdigest(), 1),
        parity=Parity(CRITERION, "numpy", {"y": OutputParity(1e-6, 0.0)}),
    )
    files = {"m.onnx": graph, "m.golden.npz": golden}
    manifest = Manifest("m", "1.0.0", "masking", "CC0-1.0", "a mask", {"m": model})
    bundle = write_bundle(tmp_path / "m.edge", manifest, files)
    assert verify(bundle, threads=1).ok
    assert bench(bundle, threads=1, seconds=0.01)["variants"]["fp32"]["8"]["per_s"] > 0
    assert create_app([bundle], threads=1).test_client().get("/readyz").status_code == 200
    with load(bundle, threads=1) as pipeline, pytest.raises(InputError, match=r"'mask' holds -inf at \[0, 2\]"):
        pipeline.predict({"x": x, "mask": mask})
    declared = replace(model, inputs=(tensors["x"], replace(tensors["mask"], finite=False)))
    bundle = with_manifest(bundle, replace(manifest, models={"m": declared}))
    with load(bundle, threads=1) as pipeline:
        assert pipeline.predict({"x": x, "mask": mask})["outputs"]["y"] == half.tolist()
