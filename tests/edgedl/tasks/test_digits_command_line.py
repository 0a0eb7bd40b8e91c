"""Train, export, verify, evaluate, predict and plot readers of digits, all through the command line; and mutants."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgedl.cli import main
from edgedl.data.digits import embedded_digits
from edgedl.tasks.digits.bundle import on_paper
from edgedl.tasks.digits.network import DeepBeliefNet, DigitPainter, DigitReader
from edgedl.tasks.digits.training import trained_network
from edgedl.training.run import Run
from runtime.bundle import Bundle
from runtime.errors import InputError
from runtime.media.pictures import write_png
from runtime.pipelines import load
from runtime.verify import verify
from tests.edgedl.tasks.test_age_mutants import change, mutated, of_type
from tests.frozen_bundles import MINIMA, least_sizes

pytestmark = pytest.mark.xdist_group("digits_command_line")

Call = Callable[..., tuple[int, str, str]]
QUICK = {
    "softmax": ("--epochs", "12"),
    "dbn": ("--hidden", "48", "40", "--pretrain-epochs", "25", "--epochs", "4"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("digits")
    for model, options in QUICK.items():
        assert main(["train", "digits", "--model", model, *options, "-o", str(folder / model)]) == 0
    return {model: folder / model for model in QUICK}


@pytest.fixture(scope="module")
def bundles(runs, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    for model, run in runs.items():
        assert main(["export", str(run), "-o", str(folder / f"{model}.edge"), "--name", model]) == 0
    return {model: folder / f"{model}.edge" for model in runs}


@pytest.mark.parametrize(("model", "least"), [("softmax", 0.9), ("dbn", 0.9)])
def test_the_bundle_reads_digits_that_training_never_saw(bundles, call, model, least):
    status, out, _ = call("evaluate", bundles[model], "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["n"], found["split"]) == (359, "test")
    assert found["metrics"]["accuracy"] >= least
    counts = np.array([[found["confusion"][str(i)][str(j)] for j in range(10)] for i in range(10)])
    np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(embedded_digits("test").labels))
    assert np.trace(counts) == round(found["metrics"]["accuracy"] * 359)


def test_the_bundle_answers_as_the_run(runs, bundles):
    run = Run.open(runs["dbn"])
    net = trained_network(run)
    pixels = embedded_digits("test").pixels[:40]
    label, top, chance = np.arange(3), np.random.default_rng(0).random((3, 40)), np.full((3, 12, 40), 0.3)
    feeds = {"label": label, "top": top.astype(np.float32), "chance": chance.astype(np.float32)}
    with torch.no_grad(), load(bundles["dbn"], threads=1) as pipeline:
        _, probabilities, _ = DigitReader(net).eval()(torch.from_numpy(pixels))
        answers = pipeline.read(list(pixels))
        np.testing.assert_allclose([a["probabilities"] for a in answers], probabilities.numpy(), atol=1e-5)
        drawn = DigitPainter(net)(*map(torch.from_numpy, feeds.values())).numpy()
        np.testing.assert_allclose(pipeline.engines["draw"].run(feeds)["ink"], drawn, atol=1e-4)
    assert np.ptp(drawn) > 0.5


@pytest.mark.parametrize("model", QUICK)
def test_the_bundle_verifies(bundles, call, model):
    status, out, _ = call("verify", bundles[model], "--json")
    assert status == 0
    checks = {(check["model"], check["output"]) for check in json.loads(out)["checks"]}
    read = {("digits", name) for name in ("digit", "probabilities", "ink")}
    assert checks == (read | {("draw", "ink")} if model == "dbn" else read)
    bundle = Bundle.open(bundles[model])
    assert len(bundle.golden("digits")) >= 8
    for name, spec in bundle.manifest.models.items():
        assert least_sizes(spec) == MINIMA[name]


MUTANTS = {
    "channels swapped": lambda m: change(m, luma(m), lambda w: w[::-1]),
    "frame of another width": lambda m: scalar(m, 1.25, 1.3),
    "another share of ink": lambda m: scalar(m, 0.5, 0.6),
    "contrast of noise stretched": lambda m: scalar(m, 16.0, 1.0),
    "cells one off": lambda m: scalar(m, 1 / 8, 1 / 9),
    "soft-max over the batch": lambda m: softmax_over_the_batch(m),
    "weights transposed": lambda m: change(
        m, "classifier.linear.weight", lambda w: w.reshape(10, 8, 8).swapaxes(1, 2).reshape(10, 64)
    ),
    "weights in float16": lambda m: change(
        m, "classifier.linear.weight", lambda w: w.astype(np.float16).astype(np.float32)
    ),
    "bias forgotten": lambda m: change(m, "classifier.linear.bias", np.zeros_like),
}


def softmax_over_the_batch(model: onnx.ModelProto) -> None:
    (node,) = of_type(model, "Softmax")
    node.attribute[0].i = 0


def luma(model: onnx.ModelProto) -> str:
    (name,) = [
        i.name for i in model.graph.initializer
        if sorted(numpy_helper.to_array(i).flatten().tolist()) == [29 / 256, 77 / 256, 150 / 256]
    ]  # fmt: skip
    return name


def scalar(model: onnx.ModelProto, old: float, new: float) -> None:
    """Every constant of that value."""
    found = [
        i for i in model.graph.initializer
        if i.data_type == onnx.TensorProto.FLOAT and numpy_helper.to_array(i).size == 1
        and float(numpy_helper.to_array(i).flatten()[0]) == old
    ]  # fmt: skip
    assert found, f"no constant {old}"
    for tensor in found:
        change(model, tensor.name, lambda array: np.full_like(array, new))


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_of_the_reader_is_told(bundles, tmp_path, name):
    report = verify(mutated(bundles["softmax"], "digits", MUTANTS[name], tmp_path), threads=1)
    assert not report, f"{name} went unnoticed:\n{report}"


PAINTER_MUTANTS = {
    "one pass less": lambda m: skip_a_pass(m),
    "label ignored": lambda m: scalar_label(m),
    "top weights in float16": lambda m: change(
        m, "machines.1.weight", lambda w: w.astype(np.float16).astype(np.float32)
    ),
    "bottom weights in float16": lambda m: change(
        m, "machines.0.weight.T", lambda w: w.astype(np.float16).astype(np.float32)
    ),
}


def skip_a_pass(model: onnx.ModelProto) -> None:
    """The noise of the first turn stands in for that of the second."""
    gathers = of_type(model, "Gather")
    noisy = [node for node in gathers if node.input[0] == gathers[-1].input[0]]
    assert len(noisy) == 12
    noisy[1].input[1] = noisy[0].input[1]


def scalar_label(model: onnx.ModelProto) -> None:
    """Every label taken for another: the classes in reverse."""
    (name,) = [
        i.name for i in model.graph.initializer
        if numpy_helper.to_array(i).dtype == np.int64 and numpy_helper.to_array(i).flatten().tolist() == list(range(10))
    ]  # fmt: skip
    change(model, name, lambda classes: classes[..., ::-1])


@pytest.mark.parametrize("name", PAINTER_MUTANTS)
def test_every_mutant_of_the_painter_is_told(bundles, tmp_path, name):
    report = verify(mutated(bundles["dbn"], "draw", PAINTER_MUTANTS[name], tmp_path), threads=1)
    assert not report, f"{name} went unnoticed:\n{report}"


def test_predict_reads_a_digit_on_a_sheet_and_saves_what_it_looked_at(bundles, call, tmp_path):
    part = embedded_digits("test")
    row = int(np.flatnonzero(part.labels == 6)[0])
    sheet = on_paper(part.pixels[row : row + 1], zoom=20, above=50, left=90, below=33, right=10)[0]
    write_png(tmp_path / "six.png", sheet)
    status, out, _ = call("predict", bundles["dbn"], tmp_path / "six.png", "--save", tmp_path, "--json")
    (result,) = json.loads(out)["results"]
    assert status == 0
    assert result["digit"] == 6
    assert sum(result["probabilities"]) == pytest.approx(1, abs=1e-4)
    assert result["probability"] == max(result["probabilities"])
    assert Path(result["saved"]).stat().st_size > 0


def test_most_digits_are_read_also_from_a_sheet(bundles):
    part = embedded_digits("test")
    with load(bundles["dbn"], threads=1) as pipeline:
        sheets = on_paper(part.pixels, zoom=5, above=12, left=30, below=7, right=9)
        found = np.array([answer["digit"] for answer in pipeline.read(list(sheets))])
    assert (found == part.labels).mean() >= 0.85


def test_predict_draws(bundles, call, tmp_path):
    status, out, _ = call("predict", bundles["dbn"], "digit:0", "digit:0:9", "--save", tmp_path, "--json")
    first, second = json.loads(out)["results"]
    assert status == 0
    assert first["drawn"]["label"] == second["drawn"]["label"] == 0
    assert (first["drawn"]["seed"], second["drawn"]["seed"]) == (0, 9)
    assert first["drawn"]["ink"] != second["drawn"]["ink"]
    assert first["digit"] == 0
    again = json.loads(call("predict", bundles["dbn"], "digit:0", "--json")[1])["results"][0]
    assert again["drawn"] == first["drawn"]


@pytest.mark.parametrize(
    ("model", "asked", "why"),
    [
        ("softmax", "digit:3", "only a deep belief net has a way down"),
        ("dbn", "digit:12", "a digit to draw is 0 … 9, not 12"),
        ("dbn", "digit:", "digit:LABEL or digit:LABEL:SEED"),
        ("dbn", "nothing.png", "nothing.png"),
    ],
)
def test_what_cannot_be_drawn_or_read_is_said(bundles, call, model, asked, why):
    status, _, err = call("predict", bundles[model], asked)
    assert status == 2
    assert why in err
    assert "Traceback" not in err


def test_plot_draws_every_picture(runs, call, tmp_path):
    names = {"softmax": ["a.png", "a-filters.png"]}
    names["dbn"] = [*names["softmax"], "a-pretraining.png", "a-reconstructions.png", "a-drawings.png"]
    for model, expected in names.items():
        status, out, _ = call("plot", runs[model], "-o", tmp_path / "a.png", "--json")
        assert status == 0
        assert [Path(picture).name for picture in json.loads(out)["pictures"]] == expected
        assert all(Path(picture).stat().st_size > 1000 for picture in json.loads(out)["pictures"])


def test_the_way_up_starts_at_the_machines():
    net = DeepBeliefNet((6, 5), dropout=0)
    for parameter in net.machines.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    net.unroll()
    ink = torch.rand(3, 8, 8)
    activity = net.activity(ink, 1)
    top = net.layers[1]
    hidden = torch.sigmoid(activity @ top.weight[:6] + top.hidden_bias)
    with torch.no_grad():
        torch.testing.assert_close(net(ink), hidden @ top.weight[6:].T + top.visible_bias[6:])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--model", "cnn", "--hidden", "9"), "--hidden belongs to a deep belief net"),
        (("--persistent",), "--persistent belongs to a deep belief net"),
        (("--model", "dbn", "--hidden", "9", "0"), "--hidden must be at least 1, not 0"),
        (("--model", "dbn", "--cd-steps", "0"), "--cd-steps must be at least 1, not 0"),
        (("--model", "dbn", "--pretrain-lr", "0"), "--pretrain-lr must be above 0, not 0.0"),
        (("--data", "digits.zip"), "--data is not read"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_made(call, tmp_path, arguments, why):
    status, _, err = call("train", "digits", *arguments, "-o", tmp_path / "run")
    assert status == 2
    assert why in err
    assert not (tmp_path / "run").exists()


def test_other_verbs_refuse_what_is_not_for_digits(bundles, runs, call):
    assert "no public weights to pull for digits" in call("pull", "digits", "-o", "x.edge")[2]
    assert "--data is not read" in call("evaluate", bundles["softmax"], "--data", "x")[2]
    assert "not with --aligned" in call("evaluate", bundles["softmax"], "--aligned")[2]
    assert "no part 'dev'" in call("evaluate", bundles["softmax"], "--split", "dev")[2]
    assert "draws the pictures of a run only" in call("plot", runs["softmax"], "--clip", "x.mp4")[2]
    with load(bundles["softmax"], threads=1) as pipeline, pytest.raises(InputError, match="no option distribution"):
        pipeline.predict(np.zeros((8, 8, 3), np.uint8), distribution=True)


TINY = ("train", "digits", "--model", "dbn", "--hidden", "12", "10", "--pretrain-epochs", "2", "--persistent")
GO_ON = ("train", "digits", "--schedule", "constant", "--epochs", "2", "--resume")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main([*TINY, "--schedule", "constant", "--epochs", "2", "-o", str(run)]) == 0
    return run


def ends_alike(run: Path, other: Path) -> None:
    first, second = Run.open(run), Run.open(other)
    weights, others = (torch.load(one.last, weights_only=True)["state_dict"] for one in (first, second))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, others[name]), name
    assert (run / "pretraining.csv").read_bytes() == (other / "pretraining.csv").read_bytes()
    losses = [[row["train_loss"] for row in one.history()] for one in (first, second)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


def test_a_resumed_training_is_the_uninterrupted_one_and_its_machines_are_left_alone(
    uninterrupted, call, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    assert call(*TINY, "--schedule", "constant", "--epochs", "1", "-o", run)[0] == 0
    monkeypatch.setattr("edgedl.tasks.digits.training.pretrain_machines", None)  # whoever calls it fails
    status, out, err = call(*GO_ON, "-o", run, "--json")
    assert status == 0, err
    assert (json.loads(out)["model"], json.loads(out)["epochs"]) == ("dbn", 2)
    ends_alike(run, uninterrupted)


def test_a_training_that_is_interrupted_in_its_machines_trains_them_as_it_began(
    uninterrupted, call, tmp_path, monkeypatch
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("edgedl.tasks.digits.training.pretrain_machines", interrupted)
        assert call(*TINY, "-o", run)[0] == 130
    status, _, err = call(*GO_ON, "-o", run)
    assert status == 0, err
    ends_alike(run, uninterrupted)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--model", "cnn"), "was begun with --model dbn; resume it without --model"),
        (("--hidden", "12", "9"), "was begun with --hidden 12 10; resume it without --hidden"),
        (("--pretrain-epochs", "3"), "was begun with --pretrain-epochs 2"),
        (("--cd-steps", "2"), "was begun with --cd-steps 1"),
    ],
    ids=["model", "hidden", "epochs", "steps"],
)
def test_a_run_is_resumed_with_what_it_was_begun_with(uninterrupted, call, options, why):
    before = (uninterrupted / "metrics.csv").read_bytes()
    status, out, err = call("train", "digits", *options, "--resume", "-o", uninterrupted)
    assert (status, out) == (2, "")
    assert why in err
    assert (uninterrupted / "metrics.csv").read_bytes() == before
