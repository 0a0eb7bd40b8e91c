"""Train, export, verify, evaluate, ask and plot long time lags, all through the command line."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgedl.cli import main
from edgedl.tasks import task, task_names
from edgedl.tasks.longlag import bundle as longlag
from edgedl.tasks.longlag import evaluation as evaluation
from edgedl.tasks.longlag.bundle import longlag_cases
from edgedl.tasks.longlag.config import BUDGETS, NETWORKS, LagConfig
from edgedl.tasks.longlag.data import PROBLEMS, draw_sequences
from edgedl.tasks.longlag.network import LagNetwork
from edgedl.tasks.longlag.objective import LagBatches
from edgedl.tasks.longlag.plot import reach
from edgedl.tasks.longlag.training import best_run, network_of, trained_network
from edgedl.training.run import Run
from exporters.errors import ParityError
from runtime.bundle import Bundle
from runtime.pipelines import load
from tests.frozen_bundles import MINIMA, least_sizes

pytestmark = pytest.mark.xdist_group("longlag")

Call = Callable[..., tuple[int, str, str]]
QUICK = ("--problem", "order", "--length", "20", "--hidden", "12", "--epochs", "6", "--batch-size", "16")
TINY = ("--hidden", "4", "--epochs", "1", "--batch-size", "4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("longlag")


@pytest.fixture(scope="module")
def trained(folder) -> Path:
    """An Elman network and an LSTM, the worse one first."""
    status = main(["train", "longlag", *QUICK, "--network", "elman", "lstm", "-o", str(folder / "run")])
    assert status == 0
    return folder / "run"


@pytest.fixture(scope="module")
def exported(trained, folder) -> Path:
    assert main(["export", str(trained), "-o", str(folder / "order.edge")]) == 0
    return folder / "order.edge"


def test_it_is_a_task():
    assert "longlag" in task_names()
    assert task("longlag").name == "longlag"


def test_a_short_training_learns_the_order_of_two_symbols(trained):
    history = Run.open(trained / "networks" / "lstm").history()
    assert history[0]["nats"] > 0.8 * math.log(4)
    assert history[-1]["nats"] < 0.25 * math.log(4)
    assert history[-1]["right"] > 0.8
    assert best_run(Run.open(trained)).config["network"] == "lstm"


def test_networks_that_are_compared_have_one_budget(call, tmp_path):
    status, out, err = call("train", "longlag", *TINY[2:], "--length", "20", "-o", tmp_path / "run", "--json")
    assert status == 0, err
    rows = json.loads(out)["networks"]
    assert [row["network"] for row in rows] == ["elman", "lstm", "gru", "orthogonal"]
    assert {row["updates"] for row in rows} == {BUDGETS["adding"].batches}
    weights = [row["weights"] for row in rows]
    assert max(weights) == weights[1]
    assert min(weights) > 0.95 * max(weights)
    data = [Run.open(tmp_path / "run" / "networks" / row["network"]).config["data"] for row in rows]
    assert all(one == data[0] for one in data)


def test_the_bundle_takes_ids_and_lengths_and_is_proven(call, exported):
    manifest = Bundle.open(exported).manifest
    spec = manifest.models["longlag"]
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in spec.inputs] == [
        ("symbols", "int64", ("B", "T")),
        ("lengths", "int64", ("B",)),
    ]
    assert [tensor.name for tensor in spec.outputs] == ["order", "probabilities"]
    assert least_sizes(spec) == MINIMA["longlag"]
    assert spec.dimensions["T"].max == 65_536
    assert manifest.pipeline == {"problem": "order", "length": 20}
    assert "lstm, 12 units" in manifest.description
    assert call("verify", exported)[0] == 0


def test_the_bundle_answers_as_torch_does_in_float64_row_by_row(trained, exported):
    network = trained_network(Run.open(trained / "networks" / "lstm")).double()
    drawn = draw_sequences("order", 9, length=20, split="test")
    with load(exported) as pipeline:
        together = pipeline.engine.run({"symbols": drawn.inputs, "lengths": drawn.lengths})
        for row, end in enumerate(drawn.lengths.tolist()):
            symbols = drawn.inputs[row : row + 1, :end]
            alone = pipeline.engine.run({"symbols": symbols, "lengths": np.array([end])})
            with torch.no_grad():
                exact = network(torch.from_numpy(symbols), torch.tensor([end]))[1]
            np.testing.assert_allclose(alone["probabilities"][0], exact[0].numpy(), atol=1e-5)
            np.testing.assert_allclose(together["probabilities"][row], alone["probabilities"][0], atol=1e-5)
    assert len(set(drawn.lengths.tolist())) > 1


def test_it_is_judged_on_2560_fresh_sequences(call, exported):
    status, out, _ = call("evaluate", exported, "--json")
    found = json.loads(out)
    metrics = found["metrics"]
    assert (status, found["n"], found["split"], found["length"]) == (0, 2560, "test", 20)
    assert set(metrics) == {"wrong", "accuracy", "nats", "nats_constant"}
    assert 0 <= metrics["wrong"] < 0.3 * 2560
    assert metrics["accuracy"] > 0.85
    assert metrics["nats_constant"] == pytest.approx(math.log(4))
    assert json.loads(call("evaluate", exported, "--split", "val", "--json")[1])["metrics"] != metrics


@pytest.mark.parametrize("change", [0.0, 0.039, 0.041], ids=["right", "just right", "just wrong"])
def test_adding_is_counted_at_the_papers_tolerance(exported, monkeypatch, change):
    """The evaluation itself: sums that are off by a known amount, on the scale of the targets."""
    monkeypatch.setattr(evaluation, "_settings", lambda pipeline: ("adding", 100))

    class Engine:
        spec = type("Spec", (), {"inputs": [type("I", (), {"name": "pairs"}), type("I", (), {"name": "lengths"})]})

        @staticmethod
        def run(given):
            marked = given["pairs"][..., 1] == 1
            return {"sum": (given["pairs"][..., 0] * marked).sum(axis=1) + 4 * change}

    found = evaluation.evaluate_longlag(type("P", (), {"engine": Engine}), "test", 300)["metrics"]
    assert found["wrong"] == (300 if change > 0.04 else 0)
    assert found["MSE"] == pytest.approx(change**2, abs=1e-6)
    assert found["MSE_constant"] == pytest.approx(PROBLEMS["adding"].constant(100))


def test_copied_symbols_are_counted_by_sequence_and_by_symbol():
    """Blanks are sure, and of the ten symbols the last is always taken for 0: one in eight is."""
    drawn = draw_sequences("copy", 400, length=5, split="test", part=2**32 - 1)

    class Engine:
        spec = type("Spec", (), {"inputs": [type("I", (), {"name": "symbols"})]})

        @staticmethod
        def run(given):
            assert set(given) == {"symbols"}
            said = np.full(given["symbols"].shape, 8)
            said[:, -10:] = given["symbols"][:, :10]
            said[:, -1] = 0
            return {"probabilities": 0.92 * np.eye(9)[said] + 0.01}

    bundle = type("B", (), {"path": "b", "manifest": type("M", (), {"pipeline": {"problem": "copy", "length": 5}})})
    found = evaluation.evaluate_longlag(type("P", (), {"engine": Engine, "bundle": bundle}), "test", 400)["metrics"]
    missed = int((drawn.inputs[:, 9] != 0).sum())
    assert 300 < missed < 400
    assert found["wrong"] == missed
    assert found["accuracy"] == pytest.approx(1 - missed / 4000)
    nats = -(missed * math.log(0.01) + (400 * 25 - missed) * math.log(0.93)) / (400 * 25)
    assert found["nats"] == pytest.approx(nats, rel=1e-6)


@pytest.fixture
def _fewer_steps(monkeypatch) -> None:
    """Half of the time of an export goes into its longest row; one of them all, of `exported`, takes the real one."""
    monkeypatch.setattr(longlag, "MOST_STEPS", 256)


@pytest.mark.usefixtures("_fewer_steps")
@pytest.mark.parametrize(
    ("problem", "names"),
    [
        ("adding", {"wrong", "MSE", "MSE_constant"}),
        ("copy", {"wrong", "accuracy", "nats", "nats_constant"}),
        ("digits", {"wrong", "accuracy", "nats", "nats_constant"}),
    ],
    ids=["adding", "copy", "digits"],
)
def test_every_problem_goes_all_the_way(call, tmp_path, problem, names):
    run, bundle = tmp_path / "run", tmp_path / "b.edge"
    length = () if problem == "digits" else ("--length", "20")
    network = {"digits": "elman", "copy": "orthogonal"}.get(problem, "gru")
    status, _, err = call("train", "longlag", "--problem", problem, *length, "--network", network, *TINY, "-o", run)
    assert status == 0, err
    # A network's own run is exported as the run that it lies in.
    assert call("export", run / "networks" / network if problem == "digits" else run, "-o", bundle)[0] == 0
    assert f"{network}, 4 units" in Bundle.open(bundle).manifest.description
    assert call("verify", bundle)[0] == 0
    found = json.loads(call("evaluate", bundle, "--json")[1])
    assert found["n"] == (359 if problem == "digits" else 2560)
    assert set(found["metrics"]) == names
    first = Bundle.open(bundle).manifest.models["longlag"].inputs[0]
    expected = {"adding": ("pairs", "float32"), "copy": ("symbols", "int64"), "digits": ("levels", "uint8")}[problem]
    assert (first.name, first.dtype) == expected


def test_sequences_are_asked_for_in_a_file(call, exported, tmp_path):
    drawn = draw_sequences("order", 3, length=20, split="test")
    np.savez(tmp_path / "three.npz", symbols=drawn.inputs, lengths=drawn.lengths)
    status, out, _ = call("predict", exported, tmp_path / "three.npz", "--json")
    answered = json.loads(out)["results"][0]["outputs"]
    assert status == 0
    assert [len(answered["order"]), len(answered["probabilities"][0])] == [3, 4]
    assert np.sum(answered["probabilities"], axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_plot_writes_what_the_runs_recorded(call, trained, folder):
    status, out, _ = call("plot", trained)
    assert (status, out.split()) == (0, [str(trained / "longlag.png")])
    with (trained / "longlag.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("elman", "lstm"):
        history = Run.open(trained / "networks" / name).history()
        found = [row for row in rows if row["network"] == name]
        assert [int(row["update"]) for row in found] == [50, 100, 150, 200, 250, 300]
        assert [int(row["sequences"]) for row in found] == [800, 1600, 2400, 3200, 4000, 4800]
        assert [float(row["nats"]) for row in found] == pytest.approx([row["nats"] for row in history], rel=1e-5)
        assert [float(row["wrong_share"]) for row in found] == pytest.approx([1 - row["right"] for row in history])
    assert [float(row["nats_constant"]) for row in rows] == pytest.approx([math.log(4)] * len(rows), rel=1e-5)
    assert call("plot", trained, "-o", folder / "other.png")[0] == 0
    assert (folder / "other.png").read_bytes() == (trained / "longlag.png").read_bytes()
    assert (folder / "other-gradients.csv").read_text() == (trained / "longlag-gradients.csv").read_text()
    assert call("plot", trained / "networks" / "lstm")[1].split() == [
        str(trained / "networks" / "lstm" / "longlag.png")
    ]


def test_a_resumed_run_is_an_uninterrupted_one_bit_for_bit(call, tmp_path, monkeypatch):
    options = ("--length", "20", "--network", "elman", "gru", "--hidden", "5", "--batch-size", "4", "--seed", "3")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert call("train", "longlag", *options, "--epochs", "2", "-o", whole)[0] == 0
    drawn, epochs = LagBatches.__iter__, []

    def interrupted(batches):
        epochs.append(batches.epoch)
        if epochs.count(1) == 2:  # the second epoch of the second network
            raise KeyboardInterrupt
        return drawn(batches)

    with monkeypatch.context() as patch:
        patch.setattr(LagBatches, "__iter__", interrupted)
        assert call("train", "longlag", *options, "--epochs", "2", "-o", cut)[0] == 130
    assert len(Run.open(cut / "networks" / "gru").history()) == 1
    assert call("plot", cut)[0] == 0
    status, out, err = call("train", "longlag", "--resume", "-o", cut, "--json")
    assert status == 0, err
    assert [row["updates"] for row in json.loads(out)["networks"]] == [100, 100]
    for name in ("elman", "gru"):
        ends = [Run.open(run / "networks" / name).best_weights() for run in (whole, cut)]
        assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    assert call("train", "longlag", "--resume", "-o", cut)[0] == 0  # nothing is left to do


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--network", "lstm"), "was begun with --network elman lstm"),
        (("--problem", "adding"), "was begun with --problem order"),
        (("--length", "40"), "was begun with --length 20"),
        (("--hidden", "3"), "was begun with --hidden 12"),
    ],
    ids=["network", "problem", "length", "hidden"],
)
def test_a_run_goes_on_as_it_was_begun(call, trained, options, message):
    status, out, err = call("train", "longlag", "--resume", "-o", trained, *options)
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--network", "jordan"), "invalid choice: 'jordan'"),
        (("--problem", "parity"), "invalid choice: 'parity'"),
        (("--length", "19"), "at least 20 steps"),
        (("--problem", "digits", "--length", "65"), "a digit has 64 pixels"),
        (("--hidden", "0"), "--hidden must be at least 1"),
        (("--data", "x.csv"), "--data is not read"),
    ],
    ids=["network", "problem", "length", "pixels", "hidden", "data"],
)
def test_what_does_not_fit_is_refused_before_a_folder_is_made(call, tmp_path, options, message):
    status, out, err = call("train", "longlag", *options, "-o", tmp_path / "run")
    assert (status, out) == (2, "")
    assert message in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pull", "longlag"), "no public weights to pull"),
        (("plot", "{run}", "--clip", "a.mp4"), "--clip shows how a caption came about"),
        (("evaluate", "{bundle}", "--aligned"), "not with --aligned"),
        (("evaluate", "{bundle}", "--split", "all"), "no split 'all'"),
        (("evaluate", "{bundle}", "--data", "x"), "--data is not read"),
        (
            ("train", "longlag", "--resume", "-o", "{run}/networks/lstm"),
            "name the run that it lies in",
        ),
    ],
    ids=["pull", "clip", "aligned", "split", "data", "resume"],
)
def test_verbs_say_what_they_cannot_do(call, trained, exported, arguments, message):
    status, out, err = call(*(word.format(run=trained, bundle=exported) for word in arguments))
    assert (status, out) == (2, "")
    assert message in err


class AtTheLastStep(torch.nn.Module):
    """A mutant: how long a row is is not looked at, only added as nothing."""

    def __init__(self, network: LagNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs, lengths):
        return self.network(inputs, 0 * lengths + inputs.shape[1])


@pytest.mark.usefixtures("_fewer_steps")
def test_lengths_that_are_ignored_are_caught(trained, tmp_path, monkeypatch):
    from edgedl.tasks.longlag.bundle import longlag_bundle
    from exporters import export as exporter

    convert = exporter.convert
    monkeypatch.setattr(exporter, "convert", lambda network, *rest: convert(AtTheLastStep(network).eval(), *rest))
    with pytest.raises(ParityError):
        longlag_bundle(Run.open(trained), tmp_path / "b.edge")
    assert not (tmp_path / "b.edge").exists()


@pytest.mark.parametrize("problem", PROBLEMS)
def test_cases_hold_what_the_gate_asks_for(problem):
    cases = longlag_cases(problem, PROBLEMS[problem].length)
    first = {"adding": "pairs", "digits": "levels"}.get(problem, "symbols")
    assert {case.inputs[first].shape[0] for case in cases} >= {1, 2, 7, 32}
    assert {case.inputs[first].shape[1] for case in cases} >= {1, 33, 200}
    if problem == "copy":
        assert all(set(case.inputs) == {first} for case in cases)
    else:
        assert all((case.inputs["lengths"] >= 1).all() for case in cases)
        assert all((case.inputs["lengths"] <= case.inputs[first].shape[1]).all() for case in cases)
        assert any(len(set(case.inputs["lengths"].tolist())) > 3 for case in cases)


def config(**changes) -> LagConfig:
    return LagConfig(data={}, seed=0, lr=0.01, epochs=1, optimiser="adam", batch_size=4, **changes)


def test_what_reaches_the_answer_of_an_elman_network_is_the_product_of_its_steps():
    """One unit that stays at 0: ∂answer/∂x at lag k is v·w·uᵏ with input weight v, own weight u and readout w."""
    network = network_of(config(problem="digits", network="elman", hidden=1, length=64))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.recurrent.weight_ih_l0.fill_(0.3)
        network.recurrent.weight_hh_l0.fill_(0.5)
        network.readout.weight.fill_(2)
    drawn = draw_sequences("digits", 6, split="val")
    drawn.inputs[:] = 0
    np.testing.assert_allclose(reach(network, drawn).numpy(), 0.6 * 0.5 ** np.arange(64), rtol=1e-6)


def test_a_gate_or_an_orthogonal_matrix_lets_the_beginning_reach_the_end():
    """Before any training: of 100 steps an Elman network passes on nothing that float32 could see, the others do."""
    drawn = draw_sequences("adding", 8)
    ratio = {}
    for kind in NETWORKS:
        found = reach(network_of(config(problem="adding", network=kind, hidden=16, length=100)), drawn)
        ratio[kind] = (found[95] / found[1]).item()
    assert ratio.pop("elman") < 1e-12
    assert min(ratio.values()) > 1e-2
