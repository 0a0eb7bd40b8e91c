"""Train, look at, export, verify, predict and evaluate a run of sgd, all through the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgedl.cli import main
from edgedl.tasks import task, task_names
from edgedl.tasks.sgd.data import embedded_readings
from edgedl.tasks.sgd.methods import METHODS
from edgedl.tasks.sgd.network import START
from edgedl.training.run import Run
from runtime.bundle import Bundle
from tests.frozen_bundles import MINIMA, least_sizes

pytestmark = pytest.mark.xdist_group("sgd")

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sgd")


@pytest.fixture(scope="module")
def trained(folder) -> Path:
    methods = ("full", "online", "l2", "adamw")
    assert main(["train", "sgd", "--method", *methods, "--epochs", "2", "-o", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def exported(trained, folder) -> Path:
    assert main(["export", str(trained), "-o", str(folder / "force.edge"), "--name", "force"]) == 0
    return folder / "force.edge"


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_it_is_a_task():
    assert "sgd" in task_names()
    assert task("sgd").name == "sgd"


def test_every_update_is_recorded(trained):
    rows = table(trained / "paths.csv")
    counts = {name: sum(row["method"] == name for row in rows) for name in ("full", "online", "l2", "adamw")}
    assert counts == {"full": 3, "online": 129, "l2": 3, "adamw": 3}
    for row in rows:
        if row["update"] == "0":
            assert (float(row["w1"]), float(row["w2"]), row["samples"]) == (*START, "0")
    assert {row["samples"] for row in rows if row["method"] == "online"} == {str(n) for n in range(129)}
    assert [row["samples"] for row in rows if row["method"] == "full"] == ["0", "64", "128"]


def test_the_recorded_path_is_the_one_of_the_formula(trained):
    """Full-batch descent in closed form, from the readings themselves; float32 training."""
    data = embedded_readings()
    x, y = data.gauges.astype(np.float64), data.force.astype(np.float64)
    w = np.array(START)
    for row in [row for row in table(trained / "paths.csv") if row["method"] == "full"]:
        np.testing.assert_allclose([float(row["w1"]), float(row["w2"])], w, atol=1e-5)
        assert float(row["cost"]) == pytest.approx(np.square(x @ w - y).mean() / 2, abs=1e-5)
        w = w - 0.9 * x.T @ (x @ w - y) / len(x)


def test_the_last_point_is_what_the_last_checkpoint_holds(trained):
    rows = [row for row in table(trained / "paths.csv") if row["method"] == "l2"]
    last = torch.load(trained / "methods" / "l2" / "checkpoints" / "last.ckpt", weights_only=True)
    weights = last["state_dict"]["network.linear.weight"].flatten().tolist()
    assert [float(rows[-1]["w1"]), float(rows[-1]["w2"])] == pytest.approx(weights, abs=1e-6)


def test_the_run_keeps_the_method_that_validates_best(trained):
    errors = {name: min(row["MSE"] for row in Run.open(trained / "methods" / name).history()) for name in METHODS
              if (trained / "methods" / name).exists()}  # fmt: skip
    best = min(errors, key=errors.__getitem__)
    assert len(errors) == 4
    kept, wanted = Run.open(trained).best_weights(), Run.open(trained / "methods" / best).best_weights()
    assert torch.equal(kept["linear.weight"], wanted["linear.weight"])


def test_the_bundle_answers_as_the_weights_say(call, trained, exported, tmp_path):
    assert least_sizes(Bundle.open(exported).model("force")) == MINIMA["sgd"]
    status, out, _ = call("verify", exported)
    assert (status, "the same answers" in out) == (0, True)
    readings = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, -3.0]], np.float32)
    np.save(tmp_path / "readings.npy", readings)
    status, out, _ = call("predict", exported, tmp_path / "readings.npy", "--json")
    weights = Run.open(trained).best_weights()["linear.weight"].double().numpy()[0]
    assert status == 0
    np.testing.assert_allclose(json.loads(out)["results"][0]["outputs"]["force"], readings @ weights, atol=1e-5)


def test_the_bundle_is_judged_on_readings(call, trained, exported, tmp_path):
    status, out, _ = call("evaluate", exported, "--json")
    found = json.loads(out)
    data = embedded_readings("val")
    weights = Run.open(trained).best_weights()["linear.weight"].double().numpy()[0]
    error = np.square(data.gauges @ weights - data.force).mean()
    assert (status, found["n"]) == (0, 256)
    assert found["metrics"]["MSE"] == pytest.approx(error, abs=1e-5)
    assert found["metrics"]["R2"] == pytest.approx(1 - error / data.force.var(), abs=1e-5)
    own = tmp_path / "own.csv"
    own.write_text("gauge_1_mV,gauge_2_mV,force_N\n" + "1,0,2\n" * 5)
    status, out, _ = call("evaluate", exported, "--data", own, "--json")
    assert json.loads(out)["metrics"] == {"MSE": pytest.approx((weights[0] - 2) ** 2, abs=1e-5)}


def test_plot_draws_the_paths(call, trained, folder):
    (trained / "paths.png").unlink()
    status, out, _ = call("plot", trained)
    assert (status, out) == (0, f"{trained / 'paths.png'}\n")
    assert (trained / "paths.png").read_bytes().startswith(b"\x89PNG")
    assert call("plot", trained, "-o", folder / "other.png")[0] == 0
    assert (folder / "other.png").read_bytes() == (trained / "paths.png").read_bytes()


def test_options_hold_for_every_method(call, tmp_path):
    options = (
        "--epochs",
        "2",
        "--batch-size",
        "16",
        "--momentum",
        "0.5",
        "--nesterov",
        "--l2",
        "3",
        "--dropout",
        "0.1",
    )
    table_file = tmp_path / "own.csv"
    rows = np.random.default_rng(0).normal(size=(40, 3))
    table_file.write_text("gauge_1_mV,gauge_2_mV,force_N\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    run = tmp_path / "run"
    status, out, err = call("train", "sgd", "--method", "mini", *options, "--data", table_file, "-o", run, "--json")
    assert status == 0, err
    assert [row["updates"] for row in json.loads(out)["methods"]] == [4]
    config = json.loads((run / "config.json").read_text())["methods"]["mini"]
    told = {key: config[key] for key in ("batch_size", "momentum", "nesterov", "l2", "dropout")}
    assert told == {"batch_size": 16, "momentum": 0.5, "nesterov": True, "l2": 3.0, "dropout": 0.1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "newton"), "invalid choice: 'newton'"),
        (("--dropout", "1"), "--dropout is from 0 to below 1, not 1.0"),
        (("--method", "adam", "--l2", "1"), "for SGD only"),
        (("--method", "full", "--nesterov"), "full has no momentum"),
        (("--ema", "0.9"), "--ema shows averaged weights"),
        (("--devices", "2"), "recorded in one process"),
        (("--data", "none.csv"), "none.csv: No such file"),
        (("--lr", "0"), "lr must be above 0"),
    ],
    ids=["method", "dropout", "lambda for adam", "nesterov", "ema", "devices", "data", "rate"],
)
def test_what_does_not_fit_is_refused_before_a_folder_is_made(call, tmp_path, options, message):
    status, out, err = call("train", "sgd", *options, "-o", tmp_path / "run")
    assert (status, out) == (2, "")
    assert message in err
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_resumed_and_a_second_one_needs_its_own_folder(call, trained):
    assert "is not resumed" in call("train", "sgd", "--resume", "-o", trained)[2]
    assert "already holds a run" in call("train", "sgd", "-o", trained)[2]


def test_too_large_a_rate_says_so(call, tmp_path):
    status, _, err = call("train", "sgd", "--method", "full", "--lr", "1e25", "--epochs", "3", "-o", tmp_path / "run")
    assert status == 1
    assert "lower the learning rate" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pull", "sgd"), "there are no public weights to pull for"),
        (("plot", "{run}", "--clip", "a.mp4"), "--clip shows how a caption came about"),
        (("plot", "{run}/methods/full"), "is one method of a comparison"),
        (("export", "{run}", "--opset", "17"), "not with --opset"),
        (("evaluate", "{bundle}", "--aligned"), "not with --aligned"),
        (("evaluate", "{bundle}", "--split", "test"), "there is no split 'test'"),
    ],
    ids=["pull", "clip", "one method", "opset", "aligned", "split"],
)
def test_verbs_say_what_they_cannot_do(call, trained, exported, arguments, message):
    status, out, err = call(*(word.format(run=trained, bundle=exported) for word in arguments))
    assert (status, out) == (2, "")
    assert message in err


def test_a_run_whose_table_is_lost_or_broken_says_so(call, trained, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_bytes((trained / "config.json").read_bytes())
    assert "the training did not come to its end" in call("plot", run)[2]
    (run / "paths.csv").write_text("method,samples,w1,w2\nfull,0,a,b\n")
    assert "is no table of paths" in call("plot", run)[2]
