"""A sample of inputs is kept where that is asked for, within its bounds, and nothing that tells the sender."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from scipy.stats import ks_2samp

from edgedl.cli import main
from edgedl.tasks.age.data.formats import open_faces
from runtime.bundle import Bundle
from runtime.errors import InputError
from runtime.npy import dump_npy, load_npz
from runtime.pipelines import load
from service.app import create_app
from service.operations import recording
from service.operations.drift import distance, distances, telling_numbers
from service.operations.recording import Recorder, Recording
from tests.bundles import write_scale_bundle

Start = Callable[..., Flask]
NPY = {"Content-Type": "application/x-npy"}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_scale_bundle(tmp_path / "scale.edge")


@pytest.fixture
def start(bundle: Bundle, tmp_path: Path) -> Iterator[Start]:
    """A service that keeps what it is asked in the folder `kept`."""
    opened: list[Recorder] = []

    def started(**settings: Any) -> Flask:
        app = create_app([bundle.path], threads=1, **{"record": tmp_path / "kept", **settings})
        opened.append(app.extensions["edgedl.parts"].recorder)
        return app

    yield started
    for recorder in opened:
        recorder.close()


def ask(app: Flask, value: float, **headers: str) -> Any:
    body = dump_npy(np.full((1, 3), value, np.float32))
    answer = app.test_client().post("/v1/scale", data=body, headers=NPY | headers)
    assert answer.status_code == 200, answer.text
    return answer.json["results"][0]


def kept(folder: Path) -> dict[str, Any]:
    """The answers by the names of their inputs."""
    answers = [json.loads(path.read_bytes()) for path in sorted((folder / "scale").glob("*.json"))]
    return {answer["file"]: answer for answer in answers}


def flush(app: Flask) -> None:
    app.extensions["edgedl.parts"].recorder.flush()


def test_nothing_is_kept_unless_it_is_asked_for(bundle, tmp_path):
    app = create_app([bundle.path], threads=1)
    ask(app, 1.0)
    assert app.test_client().get("/v1").json["recording"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scale.edge"]
    assert "edgedl_recorded" not in app.test_client().get("/metrics").text


def test_an_input_lies_beside_its_answer_and_its_owner_alone_reads_them(start, tmp_path, bundle):
    app = start()
    result = ask(app, 2.0)
    flush(app)
    ((name, answer),) = kept(tmp_path / "kept").items()
    assert answer["result"] == result
    assert (answer["version"], answer["digest"], answer["variant"]) == ("2.0.1", bundle.digest, "fp32")
    assert np.load(tmp_path / "kept" / "scale" / name).tolist() == [[2.0, 2.0, 2.0]]
    for path in (tmp_path / "kept" / "scale").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o700


def test_arrays_in_json_are_kept_as_npz_that_predict_reads(start, tmp_path, bundle):
    app = start()
    answer = app.test_client().post("/v1/scale", json={"inputs": {"x": [[1, 2, 3]]}})
    flush(app)
    ((name, recorded),) = kept(tmp_path / "kept").items()
    arrays = load_npz((tmp_path / "kept" / "scale" / name).read_bytes(), most=1 << 20)
    with load(bundle.path) as pipeline:
        assert (
            pipeline.predict(arrays)["outputs"] == answer.json["results"][0]["outputs"] == recorded["result"]["outputs"]
        )


def test_nothing_tells_the_sender(start, tmp_path):
    app = start()
    secret = "edgedl_Kirschbluete7f3a"
    ask(app, 2.0, Authorization=f"Bearer {secret}", **{"User-Agent": secret, "X-Request-ID": secret, "Cookie": secret})
    flush(app)
    files = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert len(files) == 2
    assert not any(secret.encode() in path.read_bytes() or secret in path.name for path in files)


def test_no_more_inputs_are_kept_than_may_be(start, tmp_path, monkeypatch):
    """Those with the smallest keys: each input has the same chance."""
    drawn: list[str] = []
    chance = np.random.default_rng(5)

    def draw(count: int) -> bytes:
        value = chance.bytes(count)
        drawn.append(value.hex())
        return value

    app = start(record_most=5)
    monkeypatch.setattr(recording.os, "urandom", draw)
    for value in range(40):
        ask(app, float(value))
        flush(app)
    keys = sorted(key for key in drawn if len(key) == 16)[:5]  # temporary names have shorter ones
    assert sorted(name.partition(".")[0] for name in kept(tmp_path / "kept")) == keys
    assert len(list((tmp_path / "kept" / "scale").iterdir())) == 10


def test_no_more_bytes_are_kept_than_may_be(start, tmp_path):
    app = start(record_bytes=5_000)
    for value in range(30):
        ask(app, float(value))
        flush(app)
    sizes = [path.stat().st_size for path in (tmp_path / "kept" / "scale").iterdir()]
    assert 2_000 < sum(sizes) <= 5_000


def test_an_input_that_would_drive_out_the_others_is_not_kept(start, tmp_path):
    app = start(record_bytes=5_000)
    body = dump_npy(np.ones((100, 3), np.float32))
    assert app.test_client().post("/v1/scale", data=body, headers=NPY).status_code == 200
    flush(app)
    assert not (tmp_path / "kept" / "scale").exists()


def test_a_restart_goes_on_with_what_is_there(start, tmp_path):
    first = start(record_most=3)
    for value in range(6):
        ask(first, float(value))
    flush(first)
    (tmp_path / "kept" / "scale" / "mine.txt").write_text("somebody's own")
    (tmp_path / "kept" / "scale" / "0123456789abcdef.json").write_text("{}")
    again = start(record_most=3)
    for value in range(6):
        ask(again, float(value))
        flush(again)
    answers = [path for path in (tmp_path / "kept" / "scale").glob("*.json") if path.stem != "0123456789abcdef"]
    assert len(answers) == 3
    assert (tmp_path / "kept" / "scale" / "mine.txt").is_file()


def test_a_full_disk_harms_nobody(start, tmp_path, monkeypatch, caplog):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording, "write_private", full)
    app = start()
    for value in range(3):
        ask(app, float(value))
        flush(app)
    assert caplog.text.count("No space left on device") == 1
    assert not kept(tmp_path / "kept")


def test_a_refused_input_is_not_kept(start, tmp_path):
    app = start()
    body = dump_npy(np.full((1, 4), 1, np.float32))
    assert app.test_client().post("/v1/scale", data=body, headers=NPY).status_code == 422
    flush(app)
    assert not list((tmp_path / "kept").iterdir())


@pytest.mark.parametrize("path", ["here", "here/below"], ids=["a file", "below a file"])
def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, path):
    (tmp_path / "here").write_text("a file")
    with pytest.raises(InputError, match="no inputs can be kept there"):
        Recorder(Recording(tmp_path / path))


def test_several_workers_keep_nothing(bundle, tmp_path):
    with pytest.raises(InputError, match="2 workers"):
        create_app([bundle.path], threads=1, workers=2, record=tmp_path / "kept")


def test_bounds_without_a_folder_are_refused(bundle, capsys):
    assert main(["serve", str(bundle.path), "--record-most", "5"]) == 2
    assert "--record DIR" in capsys.readouterr().err


def test_v1_and_metrics_say_what_is_kept(start):
    app = start(record_most=7, record_bytes=90_000)
    for value in range(40):
        ask(app, value / 40)
    flush(app)
    assert app.test_client().get("/v1").json["recording"] == {"inputs": 7, "bytes": 90_000}
    text = app.test_client().get("/metrics").text
    assert 'edgedl_recorded_inputs{bundle="scale"} 7.0' in text
    assert 'edgedl_recorded_bytes{bundle="scale"}' in text


def test_drift_shows_in_the_metrics(start):
    app = start()
    rng = np.random.default_rng(0)
    for value in rng.normal(size=300):
        ask(app, float(value))
        flush(app)

    def drift() -> float:
        lines = app.test_client().get("/metrics").text.splitlines()
        (line,) = [one for one in lines if one.startswith('edgedl_drift{bundle="scale",of="mean"}')]
        return float(line.rpartition(" ")[2])

    alike = drift()
    recorder = app.extensions["edgedl.parts"].recorder
    for value in rng.normal(size=256) + 2:  # as if other inputs came, none of which is kept
        numbers = telling_numbers(140, {"outputs": {"y": [[2 * value, -value, value / 2]]}})
        recorder.shelves["scale"].recent.append(numbers)
    assert alike < 0.2
    assert drift() > 0.6


@pytest.mark.parametrize("sizes", [(40, 40), (33, 500)], ids=str)
def test_the_distance_is_that_of_kolmogorov_and_smirnov(sizes):
    rng = np.random.default_rng(1)
    first, second = np.sort(rng.normal(size=sizes[0])), np.sort(rng.normal(0.3, 2, size=sizes[1]).round(1))
    assert distance(first, second) == pytest.approx(ks_2samp(first, second).statistic, abs=1e-12)


def test_few_answers_say_nothing():
    numbers = [telling_numbers(100, {"digit": 3, "probability": 0.9})] * 31
    assert distances(numbers, numbers) == {}
    assert distances([*numbers, numbers[0]], numbers * 2) == {"bytes": 0.0, "probability": 0.0}


@pytest.mark.parametrize(
    ("result", "numbers"),
    [
        ({"faces": [{"age": 30.5, "score": 0.9}, {"age": 8, "score": 0.7}]},
         {"found": (2.0,), "age": (30.5, 8.0), "score": (0.9, 0.7)}),
        ({"faces": []}, {"found": (0.0,)}),
        ({"caption": "a dog", "score": -0.5, "alternatives": [{"score": -0.7}]}, {"score": (-0.5,)}),
        ({"outputs": {"y": [[1, 3]], "name": ["a"], "none": [], "bad": [float("nan")]}}, {"mean": (2.0,)}),
    ],
    ids=["faces", "no face", "caption", "arrays"],
)  # fmt: skip
def test_the_numbers_of_an_answer(result, numbers):
    assert telling_numbers(7, result) == {"bytes": (7.0,), **numbers}


def test_evaluate_reads_what_was_kept(tmp_path, age_bundle, portrait_path, capsys):
    """The same bundle answers as before, so the error is that of rounding."""
    folder = tmp_path / "kept"
    app = create_app([("ages", age_bundle)], threads=1, record=folder)
    photo = portrait_path.read_bytes()
    for _ in range(3):
        client = app.test_client()
        assert client.post("/v1/ages", data=photo, headers={"Content-Type": "image/jpeg"}).status_code == 200
    flush(app)
    app.extensions["edgedl.parts"].recorder.close()
    dataset = open_faces(folder / "ages")
    assert (dataset.name, len(dataset)) == ("recorded", 3)
    assert dataset[0].read() == photo
    assert main(["evaluate", str(age_bundle), "--data", str(folder / "ages"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["n"] == 3
    assert told["metrics"]["MAE"] < 0.02


def test_photos_with_no_face_or_several_are_no_samples(tmp_path):
    face = {"box": [1, 2, 3, 4], "age": 30.0}
    for place, faces in enumerate(([face], [], [face, face], None)):
        key = f"{place:016x}"
        (tmp_path / f"{key}.jpg").write_bytes(b"x")
        if faces is not None:
            (tmp_path / f"{key}.json").write_text(json.dumps({"result": {"faces": faces}, "file": f"{key}.jpg"}))
    dataset = open_faces(tmp_path)
    assert [(sample.age, sample.box) for sample in dataset] == [(30.0, (1.0, 2.0, 3.0, 4.0))]
    assert sum(dataset.skipped.values()) == 3


def test_private_files_are_whole_or_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("cut")))
    with pytest.raises(OSError, match="cut"):
        recording.write_private(tmp_path / "x", b"data")
    assert list(tmp_path.glob("*")) == []
