"""Characters from training to answer: a short training beats the trigram of its text, and the bundle is the network."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from edgedl.cli import main
from edgedl.tasks.chars.config import CharsConfig
from edgedl.tasks.chars.data.texts import open_text
from edgedl.tasks.chars.evaluation import judge
from edgedl.tasks.chars.ngram import fit_ngram
from edgedl.tasks.chars.training import trained_network
from edgedl.training.run import Run
from runtime.bundle import Bundle
from runtime.characters import Characters
from runtime.pipelines import load
from runtime.pipelines.chars import ANSWER, CharsPipeline
from tests.frozen_bundles import MINIMA, least_sizes

pytestmark = pytest.mark.xdist_group("chars")

Call = Callable[..., tuple[int, str, str]]
SHORT = ("--epochs", "4", "--batch-size", "20", "--lr", "0.01", "--hidden", "96")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chars") / "run"
    assert main(["train", "chars", "-o", str(path), *SHORT]) == 0
    return path


@pytest.fixture(scope="module")
def bundle(run: Path) -> Path:
    """Through the whole gate: not as an untrained one."""
    path = run.parent / "chars.edge"
    assert main(["export", str(run), "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def gru(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GRU of a file, in two layers; hardly trained."""
    folder = tmp_path_factory.mktemp("gru")
    text = "".join(chr(0x3B1 + k % 25) + (" " if k % 7 else "\n") for k in range(3000)) + "§"
    (folder / "greek.txt").write_text(text, encoding="utf-8")
    arguments = ["--data", str(folder / "greek.txt"), "--cell", "gru", "--layers", "2", "--hidden", "12"]
    small = ["--embedding", "5", "--epochs", "2", "--batch-size", "4", "--sequence", "20", "--dropout", "0.1"]
    assert main(["train", "chars", "-o", str(folder / "run"), *arguments, *small]) == 0
    assert main(["export", str(folder / "run"), "-o", str(folder / "greek.edge"), "--untrained"]) == 0
    return folder


def counted_nats(train: str, text: str, size: int, strengths: Sequence[float]) -> float:
    """Mean −log p of a text from its third character on, with what stands in the training text counted in words."""
    follows = [Counter(train[i : i + width + 1] for i in range(len(train) - width)) for width in range(3)]
    stands = [Counter(train[i : i + width] for i in range(len(train) - width)) for width in range(3)]
    total = 0.0
    for place in range(2, len(text)):
        share = 1 / size
        for width, strength in enumerate(strengths):
            context = text[place - width : place]
            share = (follows[width][context + text[place]] + strength * share) / (stands[width][context] + strength)
        total -= math.log(share)
    return total / (len(text) - 2)


def test_held_out_text_costs_less_than_a_trigram_says(bundle: Path, call: Call) -> None:
    status, out, _ = call("evaluate", bundle, "--json")
    result = json.loads(out)
    assert status == 0
    assert (result["n"], result["dataset"], result["split"], result["unknown"]) == (12_000, "stories", "test", 0)
    text = open_text(None)
    train, before, test = text.part("train"), text.part("val"), text.part("test")
    characters = Characters.of(train)
    strengths = fit_ngram(characters.encode(train), len(characters), 3).strengths
    trigram = counted_nats(train, before[-2:] + test, len(characters), strengths)
    assert result["trigram"] == pytest.approx(trigram, rel=1e-9)
    assert result["metrics"]["nats_per_character"] < trigram - 0.1
    # Nobody can know more than the grammar that told the stories.
    assert result["grammar"] < result["metrics"]["nats_per_character"]
    assert result["grammar"] < result["5-gram"] < result["trigram"]


def test_the_nats_are_those_of_torch(run: Path, bundle: Path) -> None:
    opened = Run.open(run)
    network, characters = trained_network(opened), CharsConfig.of(opened).vocabulary
    text = open_text(None).part("val")[:1500]
    tokens = characters.encode(text)
    with torch.no_grad():
        logits, _ = network.double().logits(torch.from_numpy(tokens[None, :-1]))
        expected = torch.nn.functional.cross_entropy(logits[0], torch.from_numpy(tokens[1:]), reduction="none")
    with load(bundle) as pipeline:
        nats, right = judge(pipeline, tokens)
        np.testing.assert_allclose(nats, expected.numpy(), atol=1e-3)
        assert right.mean() == pytest.approx((logits[0].argmax(1).numpy() == tokens[1:]).mean(), abs=2e-3)


@pytest.mark.parametrize("which", ["lstm", "gru"])
def test_steps_one_at_a_time_equal_one_call(which: str, bundle: Path, gru: Path) -> None:
    with load(bundle if which == "lstm" else gru / "greek.edge") as pipeline:
        assert isinstance(pipeline, CharsPipeline)
        assert len(pipeline.engine.spec.state) == {"lstm": 2, "gru": 1}[which]
        tokens = np.random.default_rng(0).integers(0, len(pipeline.characters), (2, 200))
        whole, single = pipeline.engine.stream(), pipeline.engine.stream()
        at_once = whole.step(tokens)[ANSWER]
        one_by_one = np.concatenate([single.step(tokens[:, k : k + 1])[ANSWER] for k in range(200)], axis=1)
        np.testing.assert_allclose(one_by_one, at_once, atol=2e-4)
        for name, state in whole.state.items():
            np.testing.assert_allclose(single.state[name], state, atol=2e-4)
        np.testing.assert_allclose(np.exp(at_once.astype(np.float64)).sum(-1), 1, atol=1e-5)


def test_it_writes_words(bundle: Path, call: Call, tmp_path: Path) -> None:
    """Letters alone make no words: most of what is written must be words of the stories."""
    (tmp_path / "prompt.txt").write_text("Once there was a ")
    options = ("--length", "600", "--temperature", "0.5", "--seed", "1")
    status, out, _ = call("predict", bundle, tmp_path / "prompt.txt", *options)
    assert status == 0
    assert call("predict", bundle, tmp_path / "prompt.txt", *options)[1] == out
    known = set(open_text(None).content.split())
    words = out.split()[1:-1]
    assert sum(word in known for word in words) > 0.6 * len(words) > 30


def test_the_bundle_says_what_it_is(bundle: Path, gru: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    assert (manifest.task, manifest.license, dict(manifest.pipeline)) == ("chars", "Apache-2.0", {"beginning": "\n"})
    assert manifest.provenance["data"]["sha256"] == open_text(None).sha256
    assert [(state.input, state.output) for state in manifest.models["chars"].state] == [("h0", "hn"), ("c0", "cn")]
    assert least_sizes(manifest.models["chars"]) == MINIMA["chars"]
    greek = Bundle.open(gru / "greek.edge").manifest
    assert greek.license == "LicenseRef-training-data"
    assert "GRU of 2 × 12 units trained on greek.txt" in greek.description


def test_recorded_answers_hold_no_training_text(gru: Path) -> None:
    """Golden cases travel with the bundle."""
    bundle = Bundle.open(gru / "greek.edge")
    characters = Characters.from_bytes(bundle.read("characters.json"))
    content = (gru / "greek.txt").read_text(encoding="utf-8")
    for case in bundle.golden("chars"):
        for row in case.inputs["tokens"]:
            assert len(row) < 20 or characters.decode(row) not in content


def test_what_the_training_part_does_not_hold_is_unknown(gru: Path, call: Call) -> None:
    bundle = gru / "greek.edge"
    characters = Characters.from_bytes(Bundle.open(bundle).read("characters.json"))
    assert "§" not in characters.tokens  # the last character of the file
    status, out, _ = call("evaluate", bundle, "--data", gru / "greek.txt", "--split", "test", "--json")
    result = json.loads(out)
    assert status == 0
    assert result["unknown"] == pytest.approx(1 / result["n"])
    assert "grammar" not in result
    assert np.isfinite(result["metrics"]["nats_per_character"])
    assert (
        "has learnt from a part"
        in json.loads(call("evaluate", bundle, "--data", gru / "greek.txt", "--json")[1])["note"]
    )


def test_golden_answers_tell_the_state(bundle: Path) -> None:
    """A mutant on the device: without its state, or with its two parts exchanged, the bundle is off."""
    opened = Bundle.open(bundle)
    allowed = opened.manifest.models["chars"].parity.outputs[ANSWER].atol  # type: ignore[union-attr]
    with load(bundle) as pipeline:
        for change in (lambda h, c: (h * 0, c), lambda h, c: (h, c * 0), lambda h, c: (c, h)):
            off = 0.0
            for case in opened.golden("chars"):
                h0, c0 = change(case.inputs["h0"], case.inputs["c0"])
                found = pipeline.engine.run({"tokens": case.inputs["tokens"], "h0": h0, "c0": c0})[ANSWER]
                off = max(off, float(np.abs(found - case.outputs[ANSWER]).max()))
            assert off > 10 * allowed


def test_the_curves_are_drawn(run: Path, call: Call, tmp_path: Path) -> None:
    status, out, _ = call("plot", run, "-o", tmp_path / "curves.png")
    assert (status, out.strip()) == (0, str(tmp_path / "curves.png"))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "nats_per_character" in (tmp_path / "curves.csv").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "chars", "--hidden", "0"), "--hidden must be at least 1, not 0"),
        (("train", "chars", "--dropout", "1"), "--dropout is from 0 to below 1, not 1.0"),
        (("train", "chars", "--cell", "rnn"), "invalid choice: 'rnn'"),
        (("train", "chars", "--data", "absent.txt"), "absent.txt cannot be read"),
        (("train", "chars", "--data", "."), "is a folder"),
        (("train", "chars", "--sequence", "300000"), "too short for 1 windows of 300000"),
        (("train", "chars", "--rarest", "99999999"), "a list of characters that is empty"),
        (("pull", "chars"), "no public weights to pull for chars"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_does_not_fit_is_refused(
    arguments: tuple[str, ...], words: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert words in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("runs/*/checkpoints/*"))


def test_other_options_are_named(bundle: Path, run: Path, gru: Path, call: Call, tmp_path: Path) -> None:
    assert "no part 'dev'" in call("evaluate", bundle, "--split", "dev")[2]
    assert "--clip shows how a caption came about" in call("plot", run, "--clip", "a.png")[2]
    assert "--aligned" in call("evaluate", bundle, "--aligned")[2]
    other = call("train", "chars", "--resume", "-o", gru / "run", "--epochs", "3")
    assert other[0] == 2
    assert "was begun on another text, greek.txt" in other[2]
    greek = ("train", "chars", "--resume", "-o", gru / "run", "--data", gru / "greek.txt")
    assert "was begun with --hidden 12; resume it without --hidden" in call(*greek, "--hidden", "9")[2]
    assert not list(tmp_path.iterdir())


def test_a_resumed_training_is_the_uninterrupted_one(gru: Path, tmp_path: Path) -> None:
    arguments = ["train", "chars", "--data", str(gru / "greek.txt"), "--hidden", "8", "--batch-size", "4"]
    arguments += ["--sequence", "20", "--schedule", "constant", "--epochs"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*arguments, "2", "-o", str(whole)]) == 0
    assert main([*arguments, "1", "-o", str(parts)]) == 0
    assert main([*arguments, "2", "-o", str(parts), "--resume"]) == 0
    one, other = (Run.open(path).best_weights() for path in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)
