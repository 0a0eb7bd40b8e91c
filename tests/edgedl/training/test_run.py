"""The run folder."""

from __future__ import annotations

import json
import pickle

import pytest
import torch

from edgedl.training import run as run_module
from edgedl.training.run import Run
from runtime.errors import InputError

CONFIG = {"task": "age", "network": {"name": "resnet10", "years": [0, 1, 2]}, "seed": 3}


def test_create_then_open(tmp_path):
    created = Run.create(tmp_path / "run", CONFIG)
    opened = Run.open(tmp_path / "run")
    assert opened == created
    assert opened.config["network"]["years"] == [0, 1, 2]
    assert opened.config["schema_version"] == 1
    assert opened.config["versions"]["torch"] == torch.__version__
    assert created.checkpoints.is_dir()


def test_create_takes_an_empty_folder_and_no_other(tmp_path):
    (tmp_path / "empty").mkdir()
    Run.create(tmp_path / "empty", CONFIG)
    with pytest.raises(InputError, match="already holds a run"):
        Run.create(tmp_path / "empty", CONFIG)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        Run.create(tmp_path / "used", CONFIG)
    assert [file.name for file in (tmp_path / "used").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "config", [{"network": "x"}, {"task": "age", "x": object()}, {"task": "age", "x": float("nan")}]
)
def test_configurations_that_cannot_be_kept(tmp_path, config):
    with pytest.raises(InputError):
        Run.create(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_a_run_whose_data_are_unusable_leaves_its_folder_free(tmp_path):
    with pytest.raises(InputError, match="no picture"), Run.create(tmp_path / "run", CONFIG).provisional():
        raise InputError("no picture")
    assert not (tmp_path / "run").exists()
    with Run.create(tmp_path / "run", CONFIG).provisional() as run:
        pass
    assert Run.open(tmp_path / "run") == run


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_that_is_interrupted_stays(tmp_path, error):
    with pytest.raises(error), Run.create(tmp_path / "run", CONFIG).provisional():
        raise error
    assert Run.open(tmp_path / "run").config["task"] == "age"


def test_what_somebody_put_into_the_folder_stays(tmp_path):
    run = Run.create(tmp_path / "run", CONFIG)
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="no picture"), run.provisional():
        raise InputError("no picture")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_what_is_found_out_later_is_written(tmp_path):
    run = Run.create(tmp_path / "run", CONFIG)
    later = run.amended(data={"n": 9}, seed=4)
    assert Run.open(tmp_path / "run") == later
    assert (later.config["data"], later.config["seed"], later.config["created"]) == ({"n": 9}, 4, run.config["created"])
    with pytest.raises(InputError, match="must be plain JSON"):
        run.amended(data=object())
    assert Run.open(tmp_path / "run") == later


def test_other_processes_do_not_write(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    run = Run.create(tmp_path / "run", CONFIG)
    assert run.amended(seed=4).config["seed"] == 4
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "has no config.json"),
        ("{", "not valid JSON"),
        ("[]", "not a run's configuration"),
        ('{"schema_version": 1}', "not a run's configuration"),
        ('{"schema_version": 9, "task": "age"}', "schema_version 9"),
    ],
    ids=["none", "broken", "list", "no task", "newer"],
)
def test_folders_that_are_not_runs(tmp_path, content, part):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=part):
        Run.open(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        Run.open(tmp_path / "nowhere")


def test_best_weights(tmp_path):
    run = Run.create(tmp_path / "run", CONFIG)
    with pytest.raises(InputError, match="has not finished an epoch"):
        run.best_weights()
    weights = {"conv.weight": torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last), "n": torch.tensor(7)}
    run.save_best(weights, epoch=3, metric="MAE", value=4.5)
    loaded = run.best_weights()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    assert loaded["conv.weight"].is_contiguous()


class Payload:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_a_checkpoint_executes_nothing(tmp_path):
    run = Run.create(tmp_path / "run", CONFIG)
    torch.save({"weights": {"x": Payload()}}, run.best)
    with pytest.raises(InputError, match="not a checkpoint"):
        run.best_weights()
    run.best.write_bytes(pickle.dumps({"weights": 1}))
    with pytest.raises(InputError, match="not a checkpoint"):
        run.best_weights()


def test_history_round_trip(tmp_path):
    run = Run.create(tmp_path / "run", CONFIG)
    assert run.history() == []
    rows = [{"epoch": 1, "lr": 0.1, "MAE": 1 / 3}, {"epoch": 2, "lr": 0.05, "MAE": 7.0, "new/MAE": 2.5}]
    run.write_history(rows)
    assert run.history() == rows
    assert run.metrics.read_text().splitlines()[0] == "epoch,lr,MAE,new/MAE"
    assert run.metrics.read_text().splitlines()[1].startswith("1,0.1,0.333333333")
    run.metrics.write_text("epoch,MAE\n1,high\n")
    with pytest.raises(InputError, match="not a number"):
        run.history()


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    run = Run.create(tmp_path / "run", CONFIG)
    run.write_history([{"epoch": 1}])

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        run.write_history([{"epoch": 1}, {"epoch": 2}])
    assert run.history() == [{"epoch": 1}]
    assert sorted(file.name for file in run.path.iterdir()) == ["checkpoints", "config.json", "metrics.csv"]


def test_config_is_readable_json(tmp_path):
    run = Run.create(tmp_path / "run", {**CONFIG, "data": "Gesichter für λ"})
    text = (run.path / "config.json").read_text(encoding="utf-8")
    assert "Gesichter für λ" in text
    assert json.loads(text) == dict(run.config)
