"""The verbs that read a bundle: inspect, verify, predict, pack, bench, doctor."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from edgedl.cli import predict
from runtime import doctor, pipelines
from runtime.bundle import Bundle
from runtime.doctor import Check, Report
from runtime.errors import InputError
from runtime.pipelines.base import PicturePipeline
from tests.bundles import SCALE


def test_inspect_shows_the_manifest(edgedl, scale_bundle):
    result = edgedl("inspect", scale_bundle)
    assert (result.status, result.err) == (0, "")
    for expected in (
        "scale 2.0.1, task scaling",
        "CC0-1.0",
        "model scale, 4 recorded answers",
        "scale.onnx",
        "[N, 3]",
        "metre",
        "|a-b| <= atol + rtol*|b|, against numpy float64",
        "made up",
        "arm64/cortex-a72",
        "0, 1 … 19 (20 values)",
    ):
        assert expected in result.out


def test_inspect_gives_the_manifest_itself_with_json(edgedl, scale_bundle):
    document = edgedl("inspect", scale_bundle, "--json").document
    assert document["ok"] is True
    assert document["manifest"] == json.loads((scale_bundle / "manifest.json").read_text())


def test_inspect_refuses_a_tampered_bundle(edgedl, scale_bundle):
    graph = scale_bundle / "scale.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    result = edgedl("inspect", scale_bundle)
    assert (result.status, result.out) == (2, "")
    assert "tampered" in result.err


def test_verify_says_yes(edgedl, scale_bundle):
    result = edgedl("verify", scale_bundle)
    assert result.status == 0
    assert "the same answers on cpu (CPUExecutionProvider)" in result.out
    document = edgedl("verify", scale_bundle, "--json").document
    assert document["ok"] is True
    assert document["provider"] == "CPUExecutionProvider"
    (check,) = document["checks"]
    assert {"model", "variant", "output", "cases", "max_abs", "max_rel", "allowed", "ok"} <= set(check)
    assert (check["output"], check["cases"], check["ok"]) == ("y", 4, True)


def test_verify_says_no(edgedl, wrong_bundle):
    result = edgedl("verify", wrong_bundle)
    assert result.status == 1
    assert "not the same answers" in result.out
    result = edgedl("verify", wrong_bundle, "--json")
    assert (result.status, result.document["ok"]) == (1, False)


def test_verify_says_why_a_device_cannot_be_had(edgedl, scale_bundle):
    result = edgedl("verify", scale_bundle, "--device", "nothing")
    assert (result.status, result.out) == (2, "")
    assert "nothing" in result.err


def test_verify_explains_what_differs_only(edgedl, scale_bundle):
    result = edgedl("verify", scale_bundle, "--explain")
    assert (result.status, result.err) == (0, "")
    assert "nothing to explain" in result.out
    assert edgedl("verify", scale_bundle, "--explain", "--json").document["explanations"] == []


def test_the_verdict_stands_where_there_is_no_trace_to_explain_it(edgedl, wrong_bundle):
    result = edgedl("verify", wrong_bundle, "--explain")
    assert result.status == 1
    assert "scale fp32: " in result.out
    assert "has no trace" in result.out
    (explanation,) = edgedl("verify", wrong_bundle, "--explain", "--json").document["explanations"]
    assert (explanation["model"], explanation["difference"]) == ("scale", None)


def test_without_the_extra_the_output_and_the_case_are_named(edgedl, wrong_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "exporters.explain", None)
    result = edgedl("verify", wrong_bundle, "--explain")
    assert result.status == 1
    assert "y is furthest off on case '" in result.out
    assert "the extra train" in result.out


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    folder = tmp_path / "arrays"
    folder.mkdir()
    for name in ("b", "a"):
        np.save(folder / f"{name}.npy", np.ones((1, 3), np.float32))
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_predict_answers_each_input(edgedl, scale_bundle, arrays):
    document = edgedl("predict", scale_bundle, arrays / "a.npy", "--json").document
    assert document["ok"] is True
    assert document["results"] == [{"input": str(arrays / "a.npy"), "outputs": {"y": [SCALE.tolist()]}}]
    assert "y: [[2.0, -1.0, 0.5]]" in edgedl("predict", scale_bundle, arrays / "a.npy").out


def test_predict_goes_on_after_an_input_that_cannot_be_read(edgedl, scale_bundle, arrays):
    (arrays / "bad.npy").write_bytes(b"nonsense")
    missing = arrays / "missing.npy"
    result = edgedl("predict", scale_bundle, missing, arrays / "bad.npy", arrays / "a.npy", "--json")
    assert result.status == 2
    document = result.document
    assert document["ok"] is False
    assert ["error" in item for item in document["results"]] == [True, True, False]
    assert str(missing) in document["results"][0]["error"]["message"]
    assert str(missing) in result.err
    result = edgedl("predict", scale_bundle, arrays / "bad.npy", arrays / "a.npy")
    assert result.status == 2
    assert "a.npy\n  y: " in result.out


@pytest.mark.parametrize("pattern", [False, True], ids=["folder", "pattern"])
def test_predict_takes_folders_and_patterns(edgedl, scale_bundle, arrays, pattern):
    document = edgedl("predict", scale_bundle, arrays / "*.npy" if pattern else arrays, "--json").document
    assert [item["input"] for item in document["results"]] == [str(arrays / "a.npy"), str(arrays / "b.npy")]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(arrays):
    strange = arrays / "a[1].npy"
    strange.write_bytes(b"")
    assert predict.expand([str(strange)]) == ([str(strange)], {})


@pytest.mark.parametrize("name", ["empty", "arrays/*.jpg"])
def test_predict_says_when_there_is_nothing_to_do(edgedl, scale_bundle, tmp_path, arrays, name):
    (tmp_path / "empty").mkdir()
    result = edgedl("predict", scale_bundle, tmp_path / name)
    assert (result.status, result.out) == (2, "")
    assert str(tmp_path / name) in result.err


def test_predict_reads_standard_input(edgedl, scale_bundle, arrays, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((arrays / "a.npy").read_bytes())))
    document = edgedl("predict", scale_bundle, "-", "--json").document
    assert document["results"] == [{"input": "-", "outputs": {"y": [SCALE.tolist()]}}]


class Faces(PicturePipeline):
    """Answers every picture with two faces and draws them white."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.engines = {}
        self.closed = False

    def open_picture(self, source, **_limits):
        return source

    def predict(self, source, **_options):
        if isinstance(source, Path) and source.stat().st_size == 0:
            raise InputError(f"{source} is empty")
        face = {"box": [1.4, 2.0, 30.6, 41.0], "score": 0.987654, "age": 43.21, "keypoints": [[1.0, 2.0]]}
        return {"faces": [face, {**face, "age": 7.0}]}

    def draw(self, _source, _result):
        return np.full((4, 5, 3), 255, np.uint8)

    def close(self):
        self.closed = True


@pytest.fixture
def faces(scale_bundle, monkeypatch):
    pipeline = Faces(Bundle.open(scale_bundle))
    monkeypatch.setattr(pipelines, "load", lambda *_args, **_options: pipeline)
    return pipeline


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "me.jpg"
    path.write_bytes(b"any")
    return path


def test_predict_prints_things_as_a_table(edgedl, faces, scale_bundle, photo):
    lines = edgedl("predict", scale_bundle, photo).out.splitlines()
    assert lines[0] == str(photo)
    assert lines[1].split() == ["box", "score", "age"]
    assert lines[2].split() == ["1", "2", "31", "41", "0.988", "43.2"]
    assert len(lines) == 4
    assert faces.closed


def test_predict_saves_pictures_without_writing_over_any(edgedl, faces, scale_bundle, photo, tmp_path):
    folder = tmp_path / "out" / "deep"
    for _ in range(2):
        document = edgedl("predict", scale_bundle, photo, photo, "--save", folder, "--json").document
    assert [Path(item["saved"]).name for item in document["results"]] == ["me-scale-3.jpg", "me-scale-4.jpg"]
    assert len(list(folder.iterdir())) == 4
    assert (folder / "me-scale.jpg").read_bytes().startswith(b"\xff\xd8\xff")
    assert photo.read_bytes() == b"any"


def test_the_pipeline_is_closed_when_something_breaks(edgedl, faces, scale_bundle, photo, monkeypatch):
    def broken(_source, **_options):
        raise RuntimeError("broken")

    monkeypatch.setattr(faces, "predict", broken)
    assert edgedl("predict", scale_bundle, photo).status == 70
    assert faces.closed


def test_pack_makes_one_file_that_verifies(edgedl, scale_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = edgedl("pack", scale_bundle, "--json").document
    assert document["bundle"] == "scale-2.0.1.edge"
    assert document["bytes"] == Path("scale-2.0.1.edge").stat().st_size
    assert edgedl("verify", "scale-2.0.1.edge").status == 0
    assert edgedl("pack", scale_bundle, "-o", "other.edge").out.startswith("other.edge: ")
    assert Path("other.edge").read_bytes() == Path("scale-2.0.1.edge").read_bytes()


def test_bench_measures(edgedl, scale_bundle):
    document = edgedl("bench", scale_bundle, "--threads", "1", "--json").document
    assert document["ok"] is True
    for batch in ("1", "8"):
        figures = document["variants"]["fp32"][batch]
        assert 0 < figures["p50_ms"] <= figures["p95_ms"]
        assert figures["per_s"] > 0
    assert {"overhead", "cold_start_s", "rss_mb"} <= set(document)


def test_bench_prints_a_table(edgedl, scale_bundle, monkeypatch):
    from runtime import bench

    figures = {"p50_ms": 1.5, "p95_ms": 2.5, "per_s": 400.0}
    measured = {
        "variants": {"fp32": {"1": figures}},
        "models": {"scale": {"fp32": {"1": figures}}},
        "overhead": 3.2,
        "cold_start_s": 0.4,
        "rss_mb": 60.2,
        "device": "cpu",
        "provider": "CPUExecutionProvider",
        "threads": 2,
    }
    monkeypatch.setattr(bench, "bench", lambda *_args, **_options: measured)
    out = edgedl("bench", scale_bundle).out
    assert out.splitlines()[1].split() == ["scale", "fp32", "1", "1.5", "2.5", "400.0"]
    assert "3.2 µs" in out


@pytest.mark.parametrize("ok", [True, False])
def test_doctor_exits_with_what_it_found(edgedl, monkeypatch, ok):
    report = Report(ok, (Check("python", True, "3.11"), Check("wheels", ok, "both", "remove one")))
    monkeypatch.setattr(doctor, "diagnose", lambda **_options: report)
    result = edgedl("doctor")
    assert result.status == (0 if ok else 1)
    assert "wheels" in result.out
    result = edgedl("doctor", "--json")
    assert result.document["ok"] is ok
    assert result.document["checks"][1] == {"name": "wheels", "ok": ok, "found": "both", "advice": "remove one"}
