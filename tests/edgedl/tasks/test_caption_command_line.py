"""A captioner's run through the command line: exported, verified, judged, pictured; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgedl.cli import main
from edgedl.figures.caption import CLIP_PANEL, GAP
from edgedl.tasks.caption import evaluation as caption_evaluation
from edgedl.tasks.caption.training import captioner_of
from edgedl.training.run import Run
from runtime.bundle import Bundle
from runtime.media.frames import FrameSampling
from runtime.media.pictures import read_image, write_png
from runtime.pipelines import load
from runtime.vocabulary import Vocabulary
from tests.caption_sets import coco, jpeg
from tests.captions import caption_of, write_caption_bundle
from tests.edgedl.tasks.caption_runs import know_the_small_encoder, write_run
from tests.edgedl.tasks.captioners import VOCABULARY
from tests.videos import write_video

pytestmark = pytest.mark.xdist_group("caption_command_line")

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="module", autouse=True)
def _small_encoder() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        know_the_small_encoder(patch)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("caption") / "run")


@pytest.fixture(scope="module")
def exported(run: Run) -> Path:
    path = run.path.parent / "small.edge"
    assert main(["export", str(run.path), "-o", str(path), "--name", "small"]) == 0
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.avi", 12)


@pytest.fixture
def blocks(tmp_path: Path) -> Path:
    """A clip of three frames of coloured blocks, which the captioner calls "small small … on field"."""
    coarse = np.random.default_rng(3).integers(0, 256, (3, 8, 8, 3), np.uint8)
    np.save(tmp_path / "blocks.npy", coarse.repeat(4, axis=1).repeat(4, axis=2))
    return tmp_path / "blocks.npy"


# Export


def test_the_bundle_is_the_run(run: Run, exported: Path, blocks: Path, video: Path) -> None:
    """Rebuilt from the run, the network says what the bundle says, of the frames that the run's settings take."""
    network, vocabulary, settings = captioner_of(Run.open(run.path))
    assert not network.training
    assert (settings.frames, settings.shorter) == (FrameSampling.even(3), 64)
    with load(exported, threads=1) as pipeline:
        assert pipeline.settings == settings
        assert pipeline.read(video).indices == (2, 6, 10)
        frames = pipeline.read(blocks)
        found = pipeline.captions([frames.pixels])[0]
    with torch.no_grad():
        tokens, _, scores = network(torch.from_numpy(frames.pixels).unsqueeze(0), torch.tensor([3]))
    assert [caption.text for caption in found] == [vocabulary.decode(row.tolist()) for row in tokens[0]]
    np.testing.assert_allclose([caption.score for caption in found], scores[0], atol=1e-4)
    assert len(found[0].text.split()) > 1


def test_the_bundle_says_where_it_comes_from(run: Run, exported: Path) -> None:
    bundle = Bundle.open(exported)
    manifest = bundle.manifest
    assert (manifest.name, manifest.task, manifest.license) == ("small", "caption", "Apache-2.0")
    assert manifest.description.endswith("small with a decoder by attention, trained on nothing")
    assert manifest.pipeline == {"frames": {"kind": "even", "n": 3}, "shorter": 64}
    assert Vocabulary.from_bytes(bundle.read("vocabulary.txt")) == VOCABULARY
    assert manifest.provenance["data"] == run.config["data"]
    assert (manifest.provenance["seed"], manifest.provenance["run"]) == (5, run.config["created"])
    assert manifest.provenance["weights"] == []


def test_the_bundle_verifies(exported: Path, call: Call) -> None:
    status, out, _ = call("verify", exported, "--json")
    assert status == 0
    assert {check["output"] for check in json.loads(out)["checks"]} == {"tokens", "lengths", "scores"}


def test_a_run_takes_no_opset(run: Run, call: Call, tmp_path: Path) -> None:
    status, _, err = call("export", run.path, "-o", tmp_path / "b.edge", "--opset", "19")
    assert status == 2
    assert "a caption run is exported with --name, --with and --untrained, not with --opset" in err
    assert not (tmp_path / "b.edge").exists()


def other_run(path: Path, **changes: Any) -> Run:
    """A second captioner, which chooses otherwise; its encoder is the first one's."""
    other = write_run(path)
    weights = other.best_weights()
    torch.manual_seed(4)
    shaken = {
        name: w + 0.2 * w.std() * torch.randn_like(w) if w.ndim > 1 and "encoder" not in name else w
        for name, w in weights.items()
    }
    other.save_best(shaken | changes.pop("weights", {}), epoch=3, metric="CIDEr-D", value=0.3)
    if changes:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | changes))
    return Run.open(path)


@pytest.mark.slow
def test_two_runs_choose_each_word_together(run: Run, call: Call, tmp_path: Path, blocks: Path) -> None:
    other = other_run(tmp_path / "other")
    status, _, err = call("export", run.path, "--with", other.path, "-o", tmp_path / "both.edge")
    assert status == 0, err
    manifest = Bundle.open(tmp_path / "both.edge").manifest
    assert "small with 2 decoders by attention" in manifest.description
    assert manifest.provenance["others"] == [[5, other.config["created"]]]
    one, two = (captioner_of(Run.open(each.path))[0] for each in (run, other))
    with load(tmp_path / "both.edge", threads=1) as pipeline:
        pixels = pipeline.read(blocks).pixels
        found = pipeline.captions([pixels])[0][0]
        words = [pipeline.vocabulary.tokens[word] for word in found.text.split()]
    with torch.no_grad():
        given, counts = torch.from_numpy(pixels).unsqueeze(0), torch.tensor([3])
        spoken = torch.tensor([[[0, *words]]])
        logits = torch.stack(
            [n.decoder(n.frame_features(given[0]).unsqueeze(0), counts, spoken)[0, 0] for n in (one, two)]
        ).mean(dim=0)
    logits[:, 1] = -torch.inf
    sure = logits.log_softmax(dim=-1)[torch.arange(len(words) + 1), torch.tensor([*words, 0])].sum()
    assert found.score == pytest.approx(float(sure) / (len(words) + 1) ** 0.7, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocabulary": [*VOCABULARY.words[:-1], "tiny"]}, "was trained with other words than"),
        ({"shorter": 32}, "was trained with other size of frames than"),
        ({"weights": {"encoder.first.bias": torch.ones(8)}}, "has another encoder than"),
    ],
    ids=["words", "frames", "encoder"],
)
def test_runs_that_do_not_go_together_are_refused(
    run: Run, call: Call, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    other = other_run(tmp_path / "other", **changes)
    status, _, err = call("export", run.path, "--with", other.path, "-o", tmp_path / "both.edge")
    assert status == 2
    assert words in err
    assert not (tmp_path / "both.edge").exists()


def test_a_run_without_an_epoch_is_not_exported(call: Call, tmp_path: Path) -> None:
    begun = write_run(tmp_path / "begun")
    begun.best.unlink()
    for verb in (("export",), ("plot", "--clip", "a.jpg")):
        status, _, err = call(verb[0], begun.path, "-o", tmp_path / "out", *verb[1:])
        assert status == 2
        assert "the run has not finished an epoch yet" in err


def test_there_is_nothing_to_pull(call: Call, tmp_path: Path) -> None:
    status, out, err = call("pull", "caption", "-o", tmp_path / "b.edge")
    assert (status, out) == (2, "")
    assert "there is no public captioner to pull: train one with `edgedl train caption`" in err


# Evaluate


def photos(folder: Path) -> Path:
    """Flickr8k in miniature, for the bundle that says how bright a photo is: right in three of the four in dev."""
    levels = {"1_a": 20, "2_b": 100, "3_c": 150, "4_d": 250, "5_e": 30}
    said = {name: (caption_of(level), "something else altogether") for name, level in levels.items()}
    said["4_d"] = ("no picture", "nothing at all")
    (folder / "Flicker8k_Dataset").mkdir(parents=True)
    for name, level in levels.items():
        (folder / "Flicker8k_Dataset" / f"{name}.jpg").write_bytes(jpeg(level))
    lines = [f"{name}.jpg#{i}\t{text} ." for name, texts in said.items() for i, text in enumerate(texts)]
    (folder / "Flickr8k.token.txt").write_text("\n".join([*lines, "6_f.jpg#0\tA photo that is lost"]))
    (folder / "Flickr_8k.trainImages.txt").write_text("5_e.jpg\n")
    (folder / "Flickr_8k.devImages.txt").write_text("1_a.jpg\n2_b.jpg\n3_c.jpg\n4_d.jpg\n")
    (folder / "Flickr_8k.testImages.txt").write_text("")
    return folder


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_caption_bundle(tmp_path_factory.mktemp("bright") / "bright.edge").path


@pytest.fixture
def evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed, the extra eval")
    monkeypatch.setattr("edgedl.tasks.caption.metrics.shutil.which", lambda name: None)


def test_a_bundle_is_judged_on_photos(evaluator: None, bright: Path, call: Call, tmp_path: Path) -> None:
    data = photos(tmp_path / "flickr8k")
    status, out, err = call("evaluate", bright, "--data", data, "--split", "val", "--json")
    assert status == 0
    assert err.startswith("edgedl: flickr8k: 5 clips with ")
    document = json.loads(out)
    assert (document["n"], document["references"], document["dataset"]) == (4, 8, "flickr8k")
    assert document["unreadable"] == {"count": 0, "names": []}
    assert sum(document["skipped"].values()) == 1
    metrics = document["metrics"]
    assert set(metrics) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D", "accuracy"}
    assert metrics["accuracy"] == 0.75
    assert metrics["BLEU-1"] == pytest.approx(7 / 8)
    assert metrics["ROUGE-L"] == pytest.approx((3 + 0.5) / 4)
    assert document["not_computed"] == {"METEOR": "java is not on PATH"}
    assert document["examples"][0] == {"clip": "1_a.jpg", "caption": "dark picture", "reference": "dark picture ."}
    assert len(document["examples"]) == 4
    assert json.loads(call("evaluate", bright, "--data", data, "--json")[1])["n"] == 5


def test_photos_and_videos_that_cannot_be_read_are_left_out(
    evaluator: None, bright: Path, call: Call, tmp_path: Path
) -> None:
    data = photos(tmp_path / "flickr8k")
    (data / "Flicker8k_Dataset" / "5_e.jpg").write_bytes(jpeg(30)[:200])
    status, out, err = call("evaluate", bright, "--data", data, "--json", "--max-unreadable", "0.2")
    document = json.loads(out)
    assert (status, document["n"], document["references"]) == (0, 4, 8)
    assert document["unreadable"] == {"count": 1, "names": ["5_e.jpg"]}
    assert "left out 1 of 5 files of flickr8k that cannot be read: 5_e.jpg (" in err
    videos = tmp_path / "msvd"
    videos.mkdir()
    write_video(videos / "a_0_1.avi", 4)
    (videos / "b_0_1.avi").write_bytes((videos / "a_0_1.avi").read_bytes()[:300])
    (videos / "captions.txt").write_text("a_0_1 dark picture\nb_0_1 dark picture\n")
    document = json.loads(call("evaluate", bright, "--data", videos, "--json", "--max-unreadable", "0.5")[1])
    assert (document["n"], document["unreadable"]["names"]) == (1, ["b_0_1"])
    status, out, _ = call("evaluate", bright, "--data", videos, "--json")
    assert status == 2
    assert json.loads(out)["error"]["message"].startswith("1 of 2 files of msvd cannot be read")


def test_a_format_can_be_asked_for(evaluator: None, bright: Path, call: Call, tmp_path: Path) -> None:
    data = photos(tmp_path / "flickr8k")
    (data / "captions_val.json").write_bytes(coco({1: "1_a.jpg"}, [(1, "dark picture")]))
    assert "say which with --format" in call("evaluate", bright, "--data", data)[2]
    document = json.loads(call("evaluate", bright, "--data", data, "--format", "coco-captions", "--json")[1])
    assert (document["n"], document["dataset"]) == (1, "coco-captions")


def test_the_judgement_as_text(evaluator: None, bright: Path, call: Call, tmp_path: Path) -> None:
    lines = call("evaluate", bright, "--data", photos(tmp_path / "flickr8k"))[1].splitlines()
    assert lines[0] == "5 samples"
    assert "not_computed: METEOR (java is not on PATH)" in lines
    assert ["examples"] not in [line.split() for line in lines]
    assert any(line.split()[:3] == ["clip", "caption", "reference"] for line in lines)
    assert any(line.startswith("4_d.jpg  bright picture  no picture .") for line in lines)


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few of the embedded clips."""
    from edgedl.tasks.caption.data.bouncing_digits import BouncingDigits

    monkeypatch.setattr(caption_evaluation, "BouncingDigits", lambda: BouncingDigits(0, 4, 10))


@pytest.mark.parametrize(
    ("split", "counts"),
    [((), {"one": 5, "two": 5}), (("--split", "val-2"), {"two": 5}), (("--split", "train"), {"two": 4})],
    ids=["val", "val-2", "train"],
)
def test_without_data_the_embedded_clips_are_described(
    evaluator: None, digits: None, exported: Path, call: Call, split: tuple[str, ...], counts: dict[str, int]
) -> None:
    status, out, _ = call("evaluate", exported, "--json", *split)
    assert status == 0
    document = json.loads(out)
    assert (document["n"], document["dataset"]) == (sum(counts.values()), "bouncing-digits")
    assert {name: row["n"] for name, row in document["by_digits"].items()} == counts
    assert document["metrics"]["accuracy"] == 0, "this one speaks of dogs and balls"


def test_without_the_extra_the_embedded_clips_still_give_accuracy(
    digits: None, exported: Path, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycocoevalcap.bleu.bleu", None)
    status, out, _ = call("evaluate", exported, "--json")
    assert status == 0
    document = json.loads(out)
    assert set(document["metrics"]) == {"accuracy"}
    assert set(document["not_computed"]) == set(caption_evaluation.BY_SCORERS)
    assert "edgedl[eval]" in document["not_computed"]["CIDEr-D"]
    line = next(line for line in call("evaluate", exported)[1].splitlines() if line.startswith("not_computed"))
    assert line.startswith("not_computed: BLEU-1, BLEU-2, ")
    assert line.count("edgedl[eval]") == 1
    # With data that somebody chose the figures are what they came for: refused before any clip is looked at.
    status, out, err = call("evaluate", exported, "--data", tmp_path / "nowhere.zip", "--json")
    assert status == 2
    assert "pip install 'edgedl[eval]'" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--aligned",),
            "evaluated with --variant, --format, --max-unreadable and --workers or --ray, not with --aligned",
        ),
        (("--split", "val-3"), "bouncing-digits has no split 'val-3'"),
        (("--variant", "int8"), "has no variant 'int8'"),
        (("--data", "nowhere.zip"), "nowhere.zip"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_odd_evaluations_are_refused(
    evaluator: None, digits: None, exported: Path, call: Call, options: tuple[str, ...], said: str
) -> None:
    status, out, err = call("evaluate", exported, *options)
    assert (status, out) == (2, "")
    assert said in err


# Plot


def test_curves_are_drawn(run: Run, call: Call, tmp_path: Path) -> None:
    status, out, _ = call("plot", run.path, "-o", tmp_path / "c.png")
    assert (status, out.strip()) == (0, str(tmp_path / "c.png"))
    assert "CIDEr-D" in (tmp_path / "c.csv").read_text().splitlines()[0]


def test_a_clip_is_drawn_with_its_attention(run: Run, exported: Path, call: Call, blocks: Path, tmp_path: Path) -> None:
    """A row for the frames; a run with attention has one more for each of the seven words."""
    mean = write_run(tmp_path / "mean", "mean")
    heights = {}
    for name, source in (("attention", run.path), ("mean", mean.path), ("bundle", exported)):
        picture = tmp_path / f"{name}.png"
        status, out, err = call("plot", source, "--clip", blocks, "-o", picture, "--json")
        assert (status, json.loads(out)["pictures"]) == (0, [str(picture)])
        heights[name] = read_image(picture).shape[0]
        lacks = "a bundle's graph keeps its attention to itself: where the words looked, its run can show"
        assert (lacks in err) == (name == "bundle")
    assert heights["mean"] == heights["bundle"]
    row = (CLIP_PANEL + GAP) * 120
    assert heights["attention"] - heights["bundle"] == pytest.approx(7 * row, abs=2)


@pytest.mark.parametrize("source", ["photo", "folder"])
def test_the_picture_is_called_after_the_clip(
    run: Run, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    (tmp_path / "folder").mkdir()
    for number in (1, 2):
        write_png(tmp_path / "folder" / f"{number}.png", np.full((20, 30, 3), 90 * number, np.uint8))
    write_png(tmp_path / "photo.png", np.full((20, 30, 3), 200, np.uint8))
    monkeypatch.chdir(tmp_path)
    clip = {"photo": "photo.png", "folder": "folder"}[source]
    status, out, _ = call("plot", run.path, "--clip", clip)
    assert (status, out) == (0, f"{source}-caption.png\n")
    assert (tmp_path / f"{source}-caption.png").read_bytes().startswith(b"\x89PNG")


def test_a_bundle_has_no_curves(exported: Path, call: Call) -> None:
    status, _, err = call("plot", exported)
    assert status == 2
    assert "is a bundle and has no curves: plot the run that it came from, or add --clip CLIP" in err


def test_a_clip_that_cannot_be_read(run: Run, call: Call, tmp_path: Path) -> None:
    status, _, err = call("plot", run.path, "--clip", tmp_path / "none.mp4", "-o", tmp_path / "x.png")
    assert status == 2
    assert "none.mp4" in err
    assert not (tmp_path / "x.png").exists()


def test_ages_have_no_clips(call: Call, tmp_path: Path) -> None:
    Run.create(tmp_path / "ages", {"task": "age"})
    status, _, err = call("plot", tmp_path / "ages", "--clip", "a.jpg")
    assert status == 2
    assert "--clip shows how a caption came about" in err


# Train


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--decoder", "transformer"], "invalid choice: 'transformer'"),
        (["--cell", "elman"], "invalid choice: 'elman'"),
        (["--embedding", "-3"], "--embedding must be at least 1, not -3"),
        (["--beam", "0"], "--beam must be at least 1"),
        (["--rarest", "0"], "--rarest must be at least 1"),
        (["--word-dropout", "-1"], "--word-dropout is from 0 to below 1, not -1.0"),
        (["--scheduled-sampling", "1"], "--scheduled-sampling is from 0 to below 1, not 1.0"),
        (["--self-critical", "-1"], "--self-critical must be at least 0, not -1"),
        (["--self-critical-dropout", "1"], "--self-critical-dropout is from 0 to below 1, not 1.0"),
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--encoder", "strided"], "--encoder"),
        (["--resume"], "is not a run"),
    ],
    ids=" ".join,
)
def test_odd_options_are_refused_before_anything_is_made(
    call: Call, tmp_path: Path, options: list[str], said: str
) -> None:
    status, out, err = call("train", "caption", "-o", tmp_path / "run", *options)
    assert (status, out) == (2, "")
    assert said in err
    assert not (tmp_path / "run").exists()
