"""Train, look at, export, verify, stream and evaluate networks that remember, all through the command line."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgedl.cli import main
from edgedl.tasks import task, task_names
from edgedl.tasks.gradients import evaluation as gradients_evaluation
from edgedl.tasks.gradients.bundle import recall_bundle, recall_cases
from edgedl.tasks.gradients.config import HIDDEN, RecallConfig
from edgedl.tasks.gradients.data import draw_kept, draw_sequences, recall_targets
from edgedl.tasks.gradients.network import GatedAnswers, RecallNetwork, memory_blocks, units_over_time
from edgedl.tasks.gradients.plot import telling_sequence
from edgedl.tasks.gradients.sensitivity import input_sensitivity
from edgedl.tasks.gradients.training import best_of_blocks, network_of, read_sensitivities, trained_network
from edgedl.training.run import Run
from exporters import export as exporter
from exporters.errors import ParityError
from runtime.bundle import Bundle
from runtime.pipelines import load
from tests.frozen_bundles import MINIMA, least_sizes

pytestmark = pytest.mark.xdist_group("gradients")

Call = Callable[..., tuple[int, str, str]]
QUICK = ("--hidden", "8", "--steps", "20", "--epochs", "4", "--batch-size", "16", "--lr", "0.03")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("gradients")


@pytest.fixture(scope="module")
def trained(folder) -> Path:
    assert main(["train", "gradients", "--network", "rnn", "lstm", *QUICK, "-o", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def exported(trained, folder) -> Path:
    assert main(["export", str(trained), "-o", str(folder / "memory.edge"), "--name", "memory"]) == 0
    return folder / "memory.edge"


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_it_is_a_task():
    assert "gradients" in task_names()
    assert task("gradients").name == "gradients"


def test_networks_that_are_compared_have_about_as_many_weights():
    """By formula: gates times H (inputs, hidden units, two biases), three peepholes a block, H + 1 to read out."""
    for kind, hidden in HIDDEN.items():
        gates = {"rnn": 1, "gru": 3, "lstm": 4, "peephole": 4}[kind]
        expected = gates * hidden * (3 + hidden + 2) + 3 * hidden * (kind == "peephole") + hidden + 1
        network = RecallNetwork(kind, hidden)
        assert sum(parameter.numel() for parameter in network.parameters()) == expected
        assert 425 <= expected <= 461


def test_before_and_after_are_what_the_weights_say(trained):
    """Recorded while training; measured again, before from the seed and after from what was kept."""
    curves = {(c.network, c.units, c.training): c.quartiles for c in read_sensitivities(trained / "sensitivities.csv")}
    assert len(curves) == 6
    x = torch.from_numpy(draw_kept(50, steps=20).inputs).double()
    for kind in ("rnn", "lstm"):
        run = Run.open(trained / "networks" / kind)
        torch.manual_seed(run.config["seed"])
        for training, network in (("before", network_of(RecallConfig.of(run))), ("after", trained_network(run))):
            for units, units_of in units_over_time(network).items():
                wanted = np.quantile(input_sensitivity(units_of, x).numpy(), (0.25, 0.5, 0.75), axis=0)
                np.testing.assert_allclose(curves[kind, units, training], wanted, rtol=1e-6)


def test_a_short_training_opens_the_way_back_for_memory_blocks_only(trained):
    left = {(c.network, c.training): c.quartiles[1, -1] for c in read_sensitivities(trained / "sensitivities.csv")
            if c.units == "hidden"}  # fmt: skip
    assert max(left["lstm", "before"], left["rnn", "before"], left["rnn", "after"]) < 1e-2
    assert left["lstm", "after"] > 0.2
    errors = {kind: Run.open(trained / "networks" / kind).history()[-1]["MSE"] for kind in ("rnn", "lstm")}
    assert errors["lstm"] < 0.1
    assert errors["rnn"] > 2 * errors["lstm"]


def test_the_bundle_is_one_operator_that_declares_its_state_and_is_proven(call, exported):
    bundle = Bundle.open(exported)
    spec = bundle.manifest.models["memory"]
    assert [(part.input, part.output, part.shape) for part in spec.state] == [
        ("h0", "hn", (1, "B", 8)),
        ("c0", "cn", (1, "B", 8)),
    ]
    assert [tensor.name for tensor in spec.outputs][:4] == ["answer", "input_gate", "forget_gate", "output_gate"]
    assert least_sizes(spec) == MINIMA["gradients"]
    assert bundle.manifest.pipeline == {"steps": 20}
    nodes = [node.op_type for node in onnx.load(exported / "memory.onnx").graph.node]
    assert (nodes.count("LSTM"), nodes.count("Scan"), nodes.count("Loop")) == (1, 0, 0)
    assert call("verify", exported)[0] == 0


def test_a_device_shows_answers_and_gates_line_by_line(call, trained, exported, monkeypatch):
    inputs = draw_sequences(1, steps=25, split="test").inputs
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{v:.9g} {s:g} {r:g}\n" for v, s, r in inputs[0])))
    status, out, _ = call("predict", exported, "--stream", "--json")
    network = trained_network(best_of_blocks(Run.open(trained))).double()
    x = torch.from_numpy(inputs).double()
    with torch.no_grad():
        answers, inside = network(x, *network.initial_state(1))[0][0], memory_blocks(network, x)
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    np.testing.assert_allclose([line["answer"] for line in lines], answers.numpy(), atol=1e-5)
    for gate in ("input", "forget", "output"):
        np.testing.assert_allclose([line[f"{gate}_gate"] for line in lines], inside[gate][0].numpy(), atol=1e-5)


def test_it_is_judged_on_fresh_sequences_against_saying_nothing(call, exported):
    status, out, _ = call("evaluate", exported, "--json")
    found = json.loads(out)
    metrics = found["metrics"]
    assert (status, found["n"], found["split"]) == (0, 1000, "test")
    assert set(metrics) == {"MSE", "MSE_far", "MSE_unasked", "MSE_always_0"}
    assert metrics["MSE_always_0"] == pytest.approx(1 / 3, rel=0.06)
    assert metrics["MSE"] < metrics["MSE_always_0"]
    assert found["recalls"]["steps"] == 20_000
    assert json.loads(call("evaluate", exported, "--split", "val", "--json")[1])["metrics"] != metrics


def test_a_register_is_found_to_be_right_near_and_far(exported):
    """The evaluation itself: right answers, those that forget what lies far back, and none at all."""

    def forgets(u: np.ndarray) -> np.ndarray:
        shorter = u.copy()
        shorter[:, :3, 1] = 0  # the first stores, which alone can lie 17 of 20 steps back, go unnoticed
        return recall_targets(shorter)

    with load(exported) as pipeline, pytest.MonkeyPatch.context() as patch:
        found = {}
        for name, answer in (("right", recall_targets), ("forgets", forgets), ("silent", lambda u: 0 * u[..., 0])):
            patch.setattr(gradients_evaluation, "answer", lambda _, u, answer=answer: answer(u))
            found[name] = gradients_evaluation.evaluate_recall(pipeline, "test", 300)["metrics"]
    assert found["right"]["MSE"] == found["right"]["MSE_far"] == found["right"]["MSE_unasked"] == 0
    assert 0 < found["forgets"]["MSE"] < found["forgets"]["MSE_always_0"]
    assert found["forgets"]["MSE_far"] == found["silent"]["MSE_far"]
    assert found["silent"]["MSE"] == found["silent"]["MSE_always_0"]


def test_plot_draws_before_and_after_blocks_and_no_training(call, trained, folder, monkeypatch):
    from edgedl.tasks.gradients import plot as module

    save = module.save_gradients
    monkeypatch.setattr(module, "save_gradients", lambda path: save(path, seeds=2))
    status, out, _ = call("plot", trained)
    pictures = [trained / f"{name}.png" for name in ("gradients", "blocks", "untrained")]
    assert (status, out.split()) == (0, [str(picture) for picture in pictures])
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert (trained / "gradients.csv").read_bytes() == (trained / "sensitivities.csv").read_bytes()
    assert {row["network"] for row in table(trained / "gradients.csv")} == {"rnn", "lstm"}
    rows = table(trained / "blocks.csv")
    shown = telling_sequence(20)
    assert [float(row["recall"]) for row in rows[::8]] == shown.inputs[0, :, 2].tolist()
    network = trained_network(best_of_blocks(Run.open(trained)))
    forget = memory_blocks(network, torch.from_numpy(shown.inputs).double())["forget"][0].numpy()
    found = np.array([float(row["forget"]) for row in rows]).reshape(20, 8)
    np.testing.assert_allclose(np.sort(found), np.sort(forget), rtol=1e-6)
    assert (trained / "untrained-block.csv").exists()
    assert call("plot", trained, "-o", folder / "other.png")[0] == 0
    assert (folder / "other.png").read_bytes() == (trained / "gradients.png").read_bytes()
    assert (folder / "other-blocks.png").read_bytes() == (trained / "blocks.png").read_bytes()


def test_the_shown_sequence_stores_twice_something_else_and_is_asked_before_and_after():
    shown = telling_sequence(60)
    stores = np.flatnonzero(shown.inputs[0, :, 1])
    asked = np.flatnonzero(shown.asked[0])
    assert len(stores) == 2
    assert abs(np.diff(shown.inputs[0, stores, 0])[0]) >= 1
    assert min((asked < stores[1]).sum(), (asked > stores[1]).sum()) >= 4


def test_cases_hold_what_the_gate_asks_for():
    torch.manual_seed(0)
    cases = recall_cases(RecallNetwork("lstm", 5), 20)
    assert {case.inputs["u"].shape[0] for case in cases} >= {1, 2, 7, 32}
    assert {case.inputs["u"].shape[1] for case in cases} >= {1, 33, 200}
    for name in ("h0", "c0"):
        assert any(np.abs(case.inputs[name]).min() > 0 for case in cases)
        assert any(not case.inputs[name].any() for case in cases)


class Mutant(nn.Module):
    """Something that is wrong in the graph and nowhere else."""

    def __init__(self, fault: str, right: GatedAnswers) -> None:
        super().__init__()
        self.fault = fault
        self.right = right

    def forward(self, inputs, hidden, cell):
        if self.fault == "forgetful":
            return self.right(inputs, 0 * hidden, 0 * cell)
        answers, entrance, keep, exit_, hn, cn = self.right(inputs, hidden, cell)
        if self.fault == "gates swapped":
            return answers, keep, entrance, exit_, hn, cn
        late = torch.cat([entrance[:, :1], entrance[:, :-1]], dim=1)  # "a step late"
        return answers, late, keep, exit_, hn, cn


@pytest.mark.parametrize("fault", ["forgetful", "gates swapped", "a step late"])
def test_mutants_are_caught(trained, tmp_path, monkeypatch, fault):
    convert = exporter.convert
    monkeypatch.setattr(exporter, "convert", lambda right, *rest: convert(Mutant(fault, right).eval(), *rest))
    with pytest.raises(ParityError):
        recall_bundle(Run.open(trained), tmp_path / "b.edge")
    assert not (tmp_path / "b.edge").exists()


def test_peepholes_go_through_one_operator_without_gates_to_look_at(call, tmp_path):
    options = ("--network", "peephole", "--hidden", "3", "--steps", "6", "--epochs", "1", "--batch-size", "8")
    run, bundle = tmp_path / "run", tmp_path / "b.edge"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgedl.tasks.gradients.training.BATCHES", 10)
        assert call("train", "gradients", *options, "-o", run)[0] == 0
    status, _, err = call("export", run, "-o", bundle, "--untrained")
    assert status == 0, err
    names = [tensor.name for tensor in Bundle.open(bundle).manifest.models["gradients"].outputs]
    assert names == ["answer", "hn", "cn"]
    nodes = [node.op_type for node in onnx.load(bundle / "gradients.onnx").graph.node]
    assert (nodes.count("LSTM"), nodes.count("Scan")) == (1, 0)
    assert "answer" in json.loads(call("verify", bundle, "--json")[1])["checks"][0]["output"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--network", "jordan"), "invalid choice: 'jordan'"),
        (("--hidden", "0"), "--hidden must be at least 1"),
        (("--steps", "1"), "--steps must be at least 2"),
        (("--data", "x.csv"), "--data is not read"),
        (("--devices", "2"), "in one process"),
        (("--resume",), "is not resumed"),
        (("--lr", "0"), "lr must be above 0"),
    ],
    ids=["network", "hidden", "steps", "data", "devices", "resume", "rate"],
)
def test_what_does_not_fit_is_refused_before_a_folder_is_made(call, tmp_path, options, message):
    status, out, err = call("train", "gradients", *options, "-o", tmp_path / "run")
    assert (status, out) == (2, "")
    assert message in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pull", "gradients"), "there are no public weights to pull for"),
        (("plot", "{run}", "--clip", "a.mp4"), "--clip shows how a caption came about"),
        (("plot", "{run}/networks/lstm"), "is one network of a comparison"),
        (("export", "{run}/networks/lstm"), "is one network of a comparison"),
        (("evaluate", "{bundle}", "--aligned"), "not with --aligned"),
        (("evaluate", "{bundle}", "--split", "all"), "no split 'all'"),
        (("evaluate", "{bundle}", "--data", "x"), "--data is not read"),
        (("train", "gradients", "-o", "{run}"), "already holds a run"),
    ],
    ids=["pull", "clip", "plot one", "export one", "aligned", "split", "data", "again"],
)
def test_verbs_say_what_they_cannot_do(call, trained, exported, arguments, message):
    status, out, err = call(*(word.format(run=trained, bundle=exported) for word in arguments))
    assert (status, out) == (2, "")
    assert message in err


def test_a_run_whose_table_is_lost_or_broken_or_that_has_no_blocks_says_so(call, trained, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    config = json.loads((trained / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config))
    assert "the training did not come to its end" in call("plot", run)[2]
    (run / "sensitivities.csv").write_text("network,units,training,t,25 %\nrnn,hidden,before,1,a\n")
    assert "is no table of sensitivities" in call("plot", run)[2]
    del config["networks"]["lstm"]
    (run / "config.json").write_text(json.dumps(config))
    assert "holds no trained LSTM" in call("export", run, "-o", tmp_path / "b.edge")[2]
