"""Train, export, verify, stream, evaluate and plot a timer, all through the command line."""

from __future__ import annotations

import csv
import io
import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.cli import main
from edgedl.tasks import task, task_names
from edgedl.tasks.timer.bundle import timer_bundle, timer_cases
from edgedl.tasks.timer.config import TimerConfig, recipe
from edgedl.tasks.timer.data import draw_sequences
from edgedl.tasks.timer.figure import timer_figure
from edgedl.tasks.timer.network import STATES, TimerNetwork, let_starts_overwrite
from edgedl.tasks.timer.plot import lively_sequence
from edgedl.tasks.timer.training import network_of, trained_network
from edgedl.training.run import Run
from exporters.errors import ParityError
from runtime.bundle import Bundle
from runtime.pipelines import load
from tests.frozen_bundles import MINIMA, least_sizes

pytestmark = pytest.mark.xdist_group("timer")

Call = Callable[..., tuple[int, str, str]]
QUICK = ("--network", "lstm", "--hidden", "12", "--epochs", "5", "--batch-size", "16", "--lr", "0.03")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("timer")


@pytest.fixture(scope="module")
def trained(folder) -> Path:
    assert main(["train", "timer", *QUICK, "-o", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def exported(trained, folder) -> Path:
    assert main(["export", str(trained), "-o", str(folder / "timer.edge")]) == 0
    return folder / "timer.edge"


def test_it_is_a_task():
    assert "timer" in task_names()
    assert task("timer").name == "timer"


def test_a_short_training_has_learnt_something(trained):
    history = Run.open(trained).history()
    assert history[-1]["MSE"] < 0.25 * history[0]["MSE"]
    assert history[-1]["exact"] > 0.3


def test_the_bundle_declares_its_state_and_is_proven(call, exported):
    manifest = Bundle.open(exported).manifest
    spec = manifest.models["timer"]
    assert [(part.input, part.output, part.shape) for part in spec.state] == [
        ("h0", "hn", (1, "B", 12)),
        ("c0", "cn", (1, "B", 12)),
    ]
    assert least_sizes(spec) == MINIMA["timer"]
    assert manifest.pipeline == {"scale": 10}
    assert call("verify", exported)[0] == 0


def test_lines_answer_as_the_network_does(call, trained, exported, monkeypatch):
    inputs = draw_sequences(1, steps=40, split="test").inputs
    text = "".join(f"{a:g} {b:g}\n" for a, b in inputs[0])
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    status, out, _ = call("predict", exported, "--stream")
    run = Run.open(trained)
    network = trained_network(run)
    with torch.no_grad():
        expected = network.double()(torch.from_numpy(inputs).double(), *network.initial_state(1))[0][0].numpy()
    assert status == 0
    np.testing.assert_allclose([float(line) for line in out.splitlines()], expected, atol=1e-5)


def test_it_is_judged_on_fresh_sequences_against_saying_nothing(call, exported):
    status, out, _ = call("evaluate", exported, "--json")
    found = json.loads(out)
    metrics = found["metrics"]
    assert (status, found["n"], found["split"]) == (0, 500, "test")
    assert set(metrics) == {"exact", "exact_restarted", "MSE", "MSE_always_0"}
    assert metrics["MSE"] < metrics["MSE_always_0"]
    assert 0.04 < metrics["MSE_always_0"] < 0.08  # .25 times the duty, about .25
    assert found["pulses"]["whole"] > 1000
    assert json.loads(call("evaluate", exported, "--split", "val", "--json")[1])["metrics"] != metrics


def test_a_right_clock_is_found_exact(exported):
    """The evaluation itself: answers that are right, one step late, or 0 throughout."""
    from edgedl.tasks.timer import evaluation as timer_evaluation
    from edgedl.tasks.timer.data import timer_targets

    with load(exported) as pipeline, pytest.MonkeyPatch.context() as patch:
        for change, exact in ((lambda y: y, 1.0), (lambda y: np.roll(y, 1, 1), 0.0), (np.zeros_like, 0.0)):
            patch.setattr(timer_evaluation, "answer", lambda _, u, change=change: change(timer_targets(u, 10)))
            metrics = timer_evaluation.evaluate_timer(pipeline, "test", 50)["metrics"]
            assert metrics["exact"] == exact
        assert metrics["MSE"] == pytest.approx(metrics["MSE_always_0"])


def test_plot_shows_what_goes_in_and_what_comes_out(call, trained, folder):
    status, out, _ = call("plot", trained)
    assert (status, out.split()) == (0, [str(trained / "timer.png"), str(trained / "curves.png")])
    with (trained / "timer.csv").open() as file:
        rows = list(csv.DictReader(file))
    inputs, targets = lively_sequence(10)
    assert [float(row["target"]) for row in rows] == targets.tolist()
    assert [float(row["u1"]) for row in rows] == inputs[:, 0].tolist()
    assert call("plot", trained, "-o", folder / "other.png")[0] == 0
    assert (folder / "other.png").read_bytes() == (trained / "timer.png").read_bytes()


def test_the_figure_names_its_axes_and_draws_the_answer():
    inputs, targets = lively_sequence(10)
    answers = targets + np.float32(0.01)
    figure = timer_figure(inputs, targets, answers, "title")
    first, second, third = figure.axes
    assert [axes.get_ylabel().split("\n")[0] for axes in (first, second, third)] == ["u1", "u2", "output"]
    assert third.get_xlabel() == "time (steps)"
    np.testing.assert_array_equal(third.lines[0].get_ydata(), answers)
    np.testing.assert_array_equal(second.lines[0].get_ydata(), inputs[:, 1])


@pytest.mark.parametrize("kind", STATES)
def test_cases_hold_what_the_gate_asks_for(kind):
    torch.manual_seed(0)
    cases = timer_cases(TimerNetwork(kind, 5), 10)
    assert {case.inputs["u"].shape[0] for case in cases} >= {1, 2, 7, 32}
    assert {case.inputs["u"].shape[1] for case in cases} >= {1, 33, 200}
    for part in STATES[kind]:
        assert any(np.abs(case.inputs[part.given]).min() > 0 for case in cases)
        assert any(not case.inputs[part.given].any() for case in cases)


class Forgetful(nn.Module):
    """A mutant: the state that comes in is not used."""

    def __init__(self, network: TimerNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs, hidden, cell):
        return self.network(inputs, 0 * hidden, 0 * cell)


def test_an_ignored_state_is_caught(trained, tmp_path, monkeypatch):
    from exporters import export as exporter

    run, convert = Run.open(trained), exporter.convert
    monkeypatch.setattr(exporter, "convert", lambda network, *rest: convert(Forgetful(network).eval(), *rest))
    with pytest.raises(ParityError):
        timer_bundle(run, tmp_path / "b.edge")
    assert list(tmp_path.iterdir()) == []


def test_truncation_and_resuming(call, tmp_path):
    run = tmp_path / "run"
    options = ("--network", "jordan", "--hidden", "4", "--self-weight", "0.75", "--scale", "20", "--steps", "30")
    more = ("--truncate", "10", "--spacing", "0.5", "--epochs", "1")
    status, _, err = call("train", "timer", *options, *more, "-o", run)
    assert status == 0, err
    config = json.loads((run / "config.json").read_text())
    told = {
        name: config[name] for name in ("network", "hidden", "self_weight", "scale", "steps", "spacing", "truncate")
    }
    assert told == {
        "network": "jordan", "hidden": 4, "self_weight": 0.75, "scale": 20, "steps": 30, "spacing": 0.5,
        "truncate": 10,
    }  # fmt: skip
    status, _, err = call("train", "timer", "--truncate", "5", "--resume", "-o", run)
    assert (status, "was begun with --truncate 10" in err) == (2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--network", "rnn"), "invalid choice: 'rnn'"),
        (("--scale", "15"), "multiple of 10"),
        (("--spacing", "0"), "--spacing must be above 0"),
        (("--truncate", "0"), "--truncate must be at least 1"),
        (("--hidden", "0"), "--hidden must be at least 1"),
        (("--self-weight", "0.5"), "add --network jordan"),
        (("--network", "jordan", "--self-weight", "1"), "from 0 to below 1"),
        (("--data", "x.csv"), "--data is not read"),
    ],
    ids=["network", "scale", "spacing", "truncate", "hidden", "self-weight", "self-weight 1", "data"],
)
def test_what_does_not_fit_is_refused_before_a_folder_is_made(call, tmp_path, options, message):
    status, out, err = call("train", "timer", *options, "-o", tmp_path / "run")
    assert (status, out) == (2, "")
    assert message in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_start_overwrites_what_a_long_timer_holds_and_nothing_else_does(kind):
    """Twenty states with up to 1 between them: in silence they stay apart, a start makes one of them."""
    torch.manual_seed(3)
    network = TimerNetwork(kind, 6)
    let_starts_overwrite(network, 1000)
    state = [torch.rand(1, 20, 6) for _ in STATES[kind]]
    apart = []
    for u1 in (0, 1):
        inputs = torch.tensor([[[u1, 0.3]]]).expand(20, 1, 2).float()
        with torch.no_grad():
            memory = network(inputs, *state)[-1]
        apart.append((memory.amax(1) - memory.amin(1)).max())
    assert apart[0] > 0.5
    assert apart[1] < 0.003


@pytest.mark.parametrize(("scale", "prepared"), [(10, False), (20, True)])
def test_only_long_timers_begin_so(scale, prepared):
    config = TimerConfig.asked(Namespace(network="lstm", scale=scale), recipe("lstm"))
    torch.manual_seed(0)
    begun = network_of(config).recurrent.weight_ih_l0[:, 0]
    torch.manual_seed(0)
    chance = TimerNetwork("lstm", config.hidden).recurrent.weight_ih_l0[:, 0]
    assert torch.equal(begun, chance) is not prepared


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pull", "timer"), "no public weights to pull for timer"),
        (("plot", "{run}", "--clip", "a.mp4"), "--clip shows how a caption came about"),
        (("evaluate", "{bundle}", "--aligned"), "not with --aligned"),
        (("evaluate", "{bundle}", "--split", "all"), "no split 'all'"),
        (("evaluate", "{bundle}", "--data", "x"), "--data is not read"),
    ],
    ids=["pull", "clip", "aligned", "split", "data"],
)
def test_verbs_say_what_they_cannot_do(call, trained, exported, arguments, message):
    status, out, err = call(*(word.format(run=trained, bundle=exported) for word in arguments))
    assert (status, out) == (2, "")
    assert message in err
