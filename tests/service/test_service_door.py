"""Truth at the door: a bundle that answers otherwise than recorded is kept out, or withdrawn."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask

from runtime.bundle import Bundle
from runtime.door import Door
from runtime.errors import BundleError, CheckFailedError, InputError
from runtime.machine import installed, processor_name
from runtime.pipelines import load
from service.app import create_app
from service.bundles import door
from service.bundles.opening import Opening
from service.bundles.served import Served
from tests.bundles import SCALE, write_scale_bundle, write_sums_bundle
from tests.service.fake_pipeline import FakePipeline
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
X = {"inputs": {"x": [[1, 2, 3]]}}


def readyz(app: Flask) -> Any:
    return app.test_client().get("/readyz").json


def test_a_wrong_bundle_is_kept_out_at_the_start(tmp_path: Path) -> None:
    """Its weights were changed and its hashes adapted, so only its answers give it away."""
    wrong = write_scale_bundle(tmp_path / "wrong.edge", SCALE * 2)
    right = write_scale_bundle(tmp_path / "right.edge")
    with pytest.raises(CheckFailedError, match=r"model scale, output y: error 4\.08e\+00, allowed 1\.00e-05"):
        create_app([("right", right), wrong.path], threads=1)


def test_the_server_does_not_start_with_a_wrong_bundle(tmp_path: Path) -> None:
    wrong = write_scale_bundle(tmp_path / "wrong.edge", SCALE * 2).path
    command = [sys.executable, "-m", "edgedl", "serve", str(wrong), "--port", "0", "--threads", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"edgedl serve: {wrong}: scale 2.0.1 does not answer here as it was recorded: model scale, ")


def test_a_fake_engine_is_kept_out_whatever_it_was_loaded_by(tmp_path: Path) -> None:
    pipeline = load(write_scale_bundle(tmp_path / "scale.edge"), threads=1)
    answer = pipeline.engines["scale"].run

    def off_by_a_thousandth(*inputs: Any, **options: Any) -> dict[str, np.ndarray]:
        return {name: value + np.float32(1e-3) for name, value in answer(*inputs, **options).items()}

    pipeline.engines["scale"].run = off_by_a_thousandth  # type: ignore[method-assign]
    with pytest.raises(CheckFailedError, match=r"error 1\.00e-03, allowed 1\.00e-05"):
        create_app([pipeline])


def test_what_was_proven_is_told(tmp_path: Path) -> None:
    app = create_app(
        [write_scale_bundle(tmp_path / "scale.edge"), write_sums_bundle(tmp_path / "sums.edge")], threads=1
    )
    until(lambda: readyz(app)["bundles"][0]["cases"] == 4)
    told = readyz(app)
    assert told["status"] == "ready"
    scale, sums = told["bundles"]
    assert scale == {
        "name": "scale", "version": "2.0.1", "ready": True, "failure": None, "withdrawn": False,
        "proven": "4 of 4 recorded cases, at most 0 of the tolerance", "cases": 4, "recorded": 4, "share": 0.0,
        "onnxruntime": installed("onnxruntime"), "provider": "CPUExecutionProvider", "processor": processor_name(),
        "last_proof": {
            "target": "arm64/cortex-a72", "onnxruntime": "1.32.0", "processor": "Cortex-A72", "date": "2026-11-28",
        },
        "differs": scale["differs"], "unjudged": [], "stackable": {"scale": True},
    }  # fmt: skip
    assert "processor" in scale["differs"]
    assert (sums["proven"], sums["share"], sums["recorded"]) == ("nothing recorded", None, 0)


def spoilt_app(path: Path, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setattr(door, "AGAIN_SECONDS", 0.0)
    return create_app([write_scale_bundle(path / "scale.edge", spoilt=3)], threads=1)


def test_a_bundle_whose_later_case_fails_is_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "edgedl.service"):
        app = spoilt_app(tmp_path, monkeypatch)
        until(lambda: readyz(app)["status"] == "unready")
    client = app.test_client()
    assert client.get("/readyz").status_code == client.get("/health").status_code == 503
    assert client.get("/livez").status_code == 200
    (told,) = readyz(app)["bundles"]
    assert (told["withdrawn"], told["cases"]) == (True, 3)
    for words in (told["failure"], caplog.text):
        assert "model scale, output y: error 1.00e+00, allowed 1.00e-05 (case 'batch 32'" in words
    response = client.post("/v1/scale", json=X)
    assert response.status_code == 503
    assert "was withdrawn" in response.json["detail"]
    assert "batch 32" not in response.text
    assert int(response.headers["Retry-After"]) >= 60


def test_what_is_withdrawn_does_not_come_back_by_a_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = spoilt_app(tmp_path, monkeypatch)
    one: Served = app.extensions["edgedl"]["scale"]
    until(lambda: one.health.withdrawn)
    one.health.warm_up()
    assert not one.ready()


def test_a_case_that_fails_once_withdraws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where memory is short for a moment: the engine refuses, and answers when it is asked again."""
    monkeypatch.setattr(door, "AGAIN_SECONDS", 0.0)
    pipeline = load(write_scale_bundle(tmp_path / "scale.edge"), threads=1)
    answer, refused = pipeline.engines["scale"].run, []

    def short_of_memory(inputs: Any) -> dict[str, np.ndarray]:
        if len(inputs["x"]) == 32 and len(refused) < door.TRIES - 1:
            refused.append(inputs)
            raise InputError("ONNX Runtime refused the input: failed to allocate memory")
        return answer(inputs)

    pipeline.engines["scale"].run = short_of_memory  # type: ignore[method-assign, assignment]
    app = create_app([pipeline])
    until(lambda: readyz(app)["bundles"][0]["cases"] == 4)
    assert len(refused) == door.TRIES - 1
    assert readyz(app)["status"] == "ready"


def test_a_broken_engine_is_proven_once_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.bundles.health.RETRY_SECONDS", 0.01)
    monkeypatch.setattr(door, "BROKEN_SECONDS", 0.01)
    pipeline = load(write_scale_bundle(tmp_path / "scale.edge"), threads=1)
    working = pipeline.engines["scale"].run

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the accelerator is gone")

    pipeline.engines["scale"].run = broken  # type: ignore[method-assign]
    app = create_app([pipeline])
    assert readyz(app)["unready"] == ["scale"]
    assert readyz(app)["bundles"][0]["failure"] == "RuntimeError"
    pipeline.engines["scale"].run = working  # type: ignore[method-assign]
    until(lambda: readyz(app)["status"] == "ready" and readyz(app)["bundles"][0]["cases"] == 4)
    assert readyz(app)["bundles"][0]["stackable"] == {"scale": True}


def test_recorded_cases_wait_for_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They go on once nobody asks any more."""
    monkeypatch.setattr(door, "IDLE_SECONDS", 600.0)
    requests, looks = [object()], []

    def busy() -> bool:
        looks.append(None)
        return bool(requests)

    with load(write_scale_bundle(tmp_path / "scale.edge"), threads=1) as pipeline:
        replayed = Door(pipeline.bundle, pipeline.engines)
        replayed.first()
        thread = door.Proving(replayed, "scale", busy, pytest.fail).start()
        until(lambda: len(looks) > 5)
        assert replayed.proven.cases == 1
        requests.clear()
        until(lambda: replayed.proven.cases == 4)
        until(lambda: not thread.running)


def test_a_busy_service_is_proven_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "IDLE_SECONDS", 0.01)
    with load(write_scale_bundle(tmp_path / "scale.edge"), threads=1) as pipeline:
        replayed = Door(pipeline.bundle, pipeline.engines)
        thread = door.Proving(replayed, "scale", lambda: True, pytest.fail).start()
        until(lambda: replayed.proven.cases == 4)
        thread.stop()
        assert not thread.running


@pytest.mark.parametrize("source", [lambda bundle: bundle.path, lambda bundle: bundle, lambda bundle: load(bundle)])
def test_each_bundle_passes_the_one_who_admits(tmp_path: Path, source: Callable[[Bundle], Any]) -> None:
    bundle = write_scale_bundle(tmp_path / "scale.edge")
    seen = []

    def refuse(one: Bundle) -> None:
        seen.append(one.digest)
        raise BundleError("it is signed by nobody")

    with pytest.raises(BundleError, match="signed by nobody"):
        Opening(threads=1, admit=refuse).open(source(bundle))
    assert seen == [bundle.digest]


def test_a_pipeline_without_a_graph_has_nothing_to_prove() -> None:
    (told,) = readyz(create_app([FakePipeline()]))["bundles"]
    assert (told["proven"], told["onnxruntime"], told["stackable"]) == ("nothing recorded", None, {})


def test_a_service_proves_what_was_proven_elsewhere_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle = write_scale_bundle(tmp_path / "scale.edge")
    create_app([bundle.path], threads=1)
    assert "--reprove" in caplog.text  # it is said, and nothing is written
    before = len(Bundle.open(bundle.path).proofs)
    assert before == 1
    create_app([bundle.path], threads=1, reprove=True)
    until(lambda: len(Bundle.open(bundle.path).proofs) > before)
    made = Bundle.open(bundle.path).proofs[-1]
    assert (made.target, made.ok, made.cases) == ("here", True, 4)
    assert readyz(create_app([bundle.path], threads=1))["bundles"][0]["differs"] == []


def test_a_proof_that_cannot_be_kept_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise BundleError("scale.edge: cannot be written: Read-only file system")

    monkeypatch.setattr("service.bundles.health.keep_proof", refuse)
    app = create_app([write_scale_bundle(tmp_path / "scale.edge").path], threads=1, reprove=True)
    until(lambda: "Read-only file system" in caplog.text)
    assert readyz(app)["status"] == "ready"
