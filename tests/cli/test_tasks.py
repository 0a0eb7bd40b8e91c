"""The verbs that work through a task: pull, train, evaluate, plot, and export of a run. The task is a stand-in."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edgedl import tasks
from runtime.bundle import Bundle
from runtime.errors import InputError
from tests.bundles import write_scale_bundle


class Scaling:
    """Records what it was asked for."""

    name = "scaling"
    resumes = True

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def add_train_arguments(self, parser):
        parser.add_argument("--epochs", type=int, default=3)
        parser.add_argument("--resume", action="store_true")

    def train(self, args, run_path):
        self.asked.append(("train", args.data, args.epochs, Path(run_path)))
        Path(run_path).mkdir(parents=True, exist_ok=True)
        (Path(run_path) / "config.json").write_text('{"schema_version": 1, "task": "scaling"}')
        print("Lightning says something")
        return {"MAE": 4.75, "history": [1, 2]}

    def export(self, run_path, path, **options):
        self.asked.append(("export", Path(run_path), options))
        return write_scale_bundle(Path(path))

    def pull(self, path, **options):
        self.asked.append(("pull", options))
        return write_scale_bundle(Path(path))

    def evaluate(self, bundle, data, split, device, threads, **options):
        self.asked.append(("evaluate", data, split, device, threads, options))
        return {
            "n": 3,
            "metrics": {"MAE": 1.8333, "CS@5": 1.0},
            "by_age": {"0-9": {"MAE": 1.5, "n": 2}, "10-19": {"MAE": 2.5, "n": 1}},
            "skipped": {},
            "mode": "as deployed",
            "not_computed": {"RMSE": "no root", "R2": "no square", "R4": "no square"},
            "examples": [{"clip": "a.jpg", "age": 3.25}, {"clip": "b.jpg", "age": 41.0}],
        }

    def plot(self, path, output, **options):
        self.asked.append(("plot", Path(path), output, *options.items()))
        return [Path(output or Path(path) / "curves.png")]


@pytest.fixture(autouse=True)
def scaling(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    known = Scaling()

    def task(name):
        if name != "scaling":
            raise InputError(f"unknown task {name!r}; there is scaling")
        return known

    monkeypatch.setattr(tasks, "task", task)
    monkeypatch.setattr(tasks, "task_names", lambda: ("scaling",))
    return known


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text('{"schema_version": 1, "task": "scaling"}')
    return folder


def test_pull_writes_a_bundle(edgedl, scaling):
    result = edgedl("pull", "scaling")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("scaling.edge: scale 2.0.1")
    assert Bundle.open("scaling.edge").manifest.name == "scale"
    document = edgedl("pull", "scaling", "-o", "other.edge", "--json").document
    assert document["bundle"] == "other.edge"
    assert document["manifest"]["license"] == "CC0-1.0"


def test_train_numbers_its_runs(edgedl, scaling):
    for number in (1, 2):
        assert edgedl("train", "scaling").status == 0
        assert scaling.asked[-1] == ("train", None, 3, Path("runs") / f"scaling-{number}")


def test_processes_of_one_training_share_its_run(edgedl, scaling, monkeypatch):
    monkeypatch.setenv("EDGEDL_RUN", "runs/scaling-1")
    Path("runs/scaling-1").mkdir(parents=True)
    assert edgedl("train", "scaling").status == 0
    assert scaling.asked[-1][-1] == Path("runs/scaling-1")


def test_nothing_stays_in_the_environment_after_a_training(edgedl):
    assert edgedl("train", "scaling").status == 0
    assert "EDGEDL_RUN" not in os.environ


def test_train_takes_the_options_of_its_task(edgedl, scaling):
    result = edgedl("train", "scaling", "--epochs", "7", "--data", "faces.zip", "-o", "mine", "--json")
    assert scaling.asked == [("train", "faces.zip", 7, Path("mine"))]
    assert result.document == {"schema_version": 1, "ok": True, "run": "mine", "MAE": 4.75, "history": [1, 2]}
    assert result.err == "Lightning says something\n"


def test_train_help_knows_the_options_of_the_task(edgedl):
    assert "--epochs" in edgedl("train", "scaling", "--help").out
    assert "--epochs" not in edgedl("train", "--help").out


def test_train_refuses_an_option_that_no_task_has(edgedl):
    result = edgedl("train", "scaling", "--epoch", "3")
    assert result.status == 2
    assert "--epoch" in result.err.splitlines()[-1]


def test_resuming_needs_a_run(edgedl, scaling):
    result = edgedl("train", "scaling", "--resume")
    assert (result.status, scaling.asked) == (2, [])
    assert "-o RUN" in result.err


@pytest.mark.parametrize("words", [("train", "nothing"), ("pull", "nothing")], ids=" ".join)
def test_an_unknown_task_is_named(edgedl, words):
    result = edgedl(*words)
    assert result.status == 2
    assert "unknown task 'nothing'; there is scaling" in result.err


def test_export_finds_the_task_of_a_run(edgedl, scaling, run_folder):
    result = edgedl("export", run_folder, "-o", "mine.edge", "--name", "mine", "--untrained")
    assert result.status == 0
    assert scaling.asked == [("export", run_folder, {"name": "mine", "untrained": True})]
    assert "mine.edge: scale 2.0.1" in result.out
    assert edgedl("export", run_folder, "--json").document["bundle"] == "scaling.edge"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "it has no config.json"),
        ("{", "not valid JSON"),
        ("{}", "`task` and `schema_version` are expected"),
        ("[]", "`task` and `schema_version` are expected"),
        (json.dumps({"task": 3, "schema_version": 1}), "`task` and `schema_version` are expected"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(edgedl, tmp_path, content, found):
    folder = tmp_path / "folder"
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content)
    for verb in ("export", "plot"):
        result = edgedl(verb, folder)
        assert (result.status, result.out) == (2, "")
        assert found in result.err


def test_evaluate_judges_the_bundle(edgedl, scaling, scale_bundle):
    document = edgedl("evaluate", scale_bundle, "--data", "faces.zip", "--json").document
    assert scaling.asked == [("evaluate", "faces.zip", None, "cpu", None, {})]
    assert (document["n"], document["metrics"]) == (3, {"MAE": 1.8333, "CS@5": 1.0})


def test_evaluate_without_data_leaves_the_choice_to_the_task(edgedl, scaling, scale_bundle):
    assert edgedl("evaluate", scale_bundle, "--split", "val").status == 0
    assert scaling.asked == [("evaluate", None, "val", "cpu", None, {})]


def test_evaluate_hands_on_what_was_asked_for(edgedl, scaling, scale_bundle):
    options = ("--split", "val", "--aligned", "--threads", "2", "--variant", "fp32", "--device", "auto")
    assert edgedl("evaluate", scale_bundle, "--data", "x", *options).status == 0
    assert scaling.asked == [("evaluate", "x", "val", "auto", 2, {"aligned": True, "variant": "fp32"})]


def test_evaluate_prints_tables(edgedl, scale_bundle):
    lines = edgedl("evaluate", scale_bundle, "--data", "x").out.splitlines()
    assert lines[0] == "3 samples"
    assert lines[2].split() == ["MAE", "1.83"]
    assert ["by_age", "MAE", "n"] in [line.split() for line in lines]
    assert ["10-19", "2.5", "1"] in [line.split() for line in lines]
    assert "skipped: none" in lines
    assert "mode: as deployed" in lines
    assert "not_computed: RMSE (no root); R2, R4 (no square)" in lines
    assert lines[-3:] == ["clip    age", "a.jpg  3.25", "b.jpg  41.0"]


def test_plot_draws_a_run(edgedl, scaling, run_folder):
    assert edgedl("plot", run_folder).out == f"{run_folder / 'curves.png'}\n"
    assert edgedl("plot", run_folder, "-o", "a.png", "--json").document["pictures"] == ["a.png"]
    assert scaling.asked == [("plot", run_folder, None), ("plot", run_folder, "a.png")]


def test_plot_hands_a_clip_on(edgedl, scaling, run_folder):
    assert edgedl("plot", run_folder, "--clip", "a.mp4", "-o", "a.png").out == "a.png\n"
    assert scaling.asked == [("plot", run_folder, "a.png", ("clip", "a.mp4"))]


def test_plot_takes_a_bundle_for_a_clip_only(edgedl, scaling, scale_bundle, tmp_path):
    packed = tmp_path / "packed.edge"
    assert edgedl("pack", scale_bundle, "-o", packed).status == 0
    for bundle in (scale_bundle, packed):
        result = edgedl("plot", bundle)
        assert (result.status, result.out) == (2, "")
        assert "is a bundle and has no curves" in result.err
        assert edgedl("plot", bundle, "--clip", "a.mp4", "-o", "a.png").status == 0
        assert scaling.asked[-1] == ("plot", bundle, "a.png", ("clip", "a.mp4"))


def test_plot_refuses_a_file_that_is_neither(edgedl, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"no bundle")
    result = edgedl("plot", tmp_path / "photo.jpg")
    assert (result.status, result.out) == (2, "")
    assert "photo.jpg" in result.err


def test_plot_asks_any_bundle_for_occlusion_and_runs_for_features(edgedl, monkeypatch, scale_bundle, run_folder):
    from edgedl.tasks.features import plot as features
    from edgedl.tasks.occlusion import plot as occlusion

    asked = []
    monkeypatch.setattr(occlusion, "plot_occlusion", lambda *given: asked.append(given) or Path("a.png"))
    monkeypatch.setattr(features, "plot_features", lambda *given: asked.append(given) or Path("b.png"))
    assert edgedl("plot", scale_bundle, "--occlusion", "x.jpg").out == "a.png\n"
    assert edgedl("plot", "efficientnet-lite0", "--features", "x.jpg", "-o", "b.png", "--json").document[
        "pictures"
    ] == ["b.png"]
    assert asked == [(scale_bundle, "x.jpg", None), ("efficientnet-lite0", "x.jpg", "b.png")]
    for source, option, message in (
        (run_folder, "--occlusion", "is a run; --occlusion asks the graph of a bundle"),
        (scale_bundle, "--features", "is a bundle, whose graph hides what is inside"),
    ):
        result = edgedl("plot", source, option, "x.jpg")
        assert (result.status, result.out) == (2, "")
        assert message in result.err
    assert "not allowed with argument" in edgedl("plot", run_folder, "--clip", "a", "--features", "b").err


@pytest.mark.parametrize("verb", [("verify",), ("inspect",), ("predict", "x.jpg"), ("bench",), ("evaluate",)], ids=str)
def test_a_run_where_a_bundle_is_wanted_is_to_be_exported_first(edgedl, run_folder, verb):
    result = edgedl(verb[0], run_folder, *verb[1:])
    assert (result.status, result.out) == (2, "")
    assert f"{run_folder} is a run, not a bundle; export it first: edgedl export {run_folder} -o" in result.err


def test_an_interrupted_training_says_how_to_go_on(edgedl, scaling, monkeypatch, tmp_path):
    def train(args, path):
        path.mkdir()
        (path / "config.json").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(scaling, "train", train)
    result = edgedl("train", "scaling", "-o", "mine", "--data", "my faces")
    how = "edgedl train scaling --data 'my faces' -o mine --resume"
    assert result.status == 130
    assert f"to go on with this training: {how}" in result.err
    again = edgedl("train", "scaling", "-o", "mine", "--data", "my faces")
    assert again.status == 2
    assert f"mine already holds a run; go on with it, {how}, or choose another folder with -o" in again.err
    monkeypatch.setattr(scaling, "resumes", False)
    assert "--resume" not in edgedl("train", "scaling", "-o", "mine").err
    (tmp_path / "mine" / "config.json").unlink()
    (tmp_path / "mine").rmdir()
    assert "--resume" not in edgedl("train", "scaling", "-o", "mine").err
