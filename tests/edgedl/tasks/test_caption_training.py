"""Captioners trained on little, through the command line: on the embedded digits and on a data set in miniature."""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from edgedl.cli import main
from edgedl.data.unreadable import Unreadable
from edgedl.nn.efficientnet_lite import LITE0, EfficientNetLite, EfficientNetTop, Scale
from edgedl.tasks.caption import batches as clip_batches
from edgedl.tasks.caption import digits as caption_digits
from edgedl.tasks.caption import inputs as caption_inputs
from edgedl.tasks.caption import training as caption_training
from edgedl.tasks.caption.config import LOOKING, CaptionConfig
from edgedl.tasks.caption.data.bouncing_digits import BouncingDigits
from edgedl.tasks.caption.data.captions import open_captions
from edgedl.tasks.caption.network.attention import ATTENDING, AttentionDecoder, SpatialDecoder
from edgedl.tasks.caption.network.captioning import MeanPoolDecoder
from edgedl.tasks.caption.network.strided import StridedEncoder
from edgedl.tasks.caption.recipes import embedded_recipe, photo_recipe
from edgedl.tasks.caption.training import network_of, trained_network
from edgedl.training.run import Run
from tests.caption_sets import FLICKR, FLICKR_PHOTOS, jpeg
from tests.edgedl.frame_graphs import make_each_graph_once
from tests.edgedl.tasks.caption_runs import CONFIG, small_config
from tests.edgedl.tasks.captioners import captioner

TRAIN = ("train", "caption", "--json", "--threads", "1")
FEW = ("--clips", "64", "--hidden", "16", "--embedding", "8")


@pytest.fixture(autouse=True)
def _hasty(monkeypatch, tmp_path):
    """Eight steps instead of more than a thousand, an encoder from chance instead of one from the network, and no
    features in the user's cache.
    """
    monkeypatch.setattr(caption_inputs, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(caption_training, "learn_visual_words", partial(caption_digits.learn_visual_words, steps=8))
    monkeypatch.setattr(caption_training, "HELD_OUT_CLIPS", 8)
    make_each_graph_once(monkeypatch)


def an_encoder(scale: Scale = LITE0) -> EfficientNetLite:
    """One of the published shape, the same each time: so its graph is made once."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EfficientNetLite(scale)


def trained(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, object]:
    assert main([*TRAIN, *map(str, arguments)]) == 0
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([*TRAIN, *map(str, arguments)]) == 2
    return capsys.readouterr().err


@pytest.fixture
def flickr(tmp_path: Path) -> Path:
    folder = tmp_path / "flickr"
    for name, data in {**FLICKR, **FLICKR_PHOTOS}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_the_digits_are_learnt_and_the_run_rebuilds_its_network(capsys, tmp_path):
    answer = trained(capsys, *FEW, "--epochs", "2", "-o", tmp_path / "run")
    assert answer["metric"] == "CIDEr-D"
    assert answer["words"] == 20, "ten digits, and what they do"
    run = Run.open(tmp_path / "run")
    assert {row["epoch"] for row in run.history()} == {1, 2}
    assert {"accuracy", "CIDEr-D", "validation_loss"} <= run.history()[0].keys()
    network = trained_network(run)
    assert isinstance(network.encoder, StridedEncoder)
    assert isinstance(network.decoder, AttentionDecoder)
    assert network.decoder.pooled
    assert run.config["frozen"]
    assert run.config["license"] == "Apache-2.0"


def test_a_resumed_training_ends_as_one_that_was_not_interrupted(capsys, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    schedule = ("--schedule", "constant")
    trained(capsys, *FEW, *schedule, "--epochs", "2", "-o", whole)
    trained(capsys, *FEW, *schedule, "--epochs", "1", "-o", parts)
    trained(capsys, *FEW, *schedule, "--epochs", "2", "--resume", "-o", parts)
    histories = [[row["train_loss"] for row in Run.open(path).history()] for path in (whole, parts)]
    assert histories[0] == histories[1]
    assert Run.open(parts).config["epochs"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--seed 1", "was begun with --seed 0; resume it without --seed"),
        ("--clips 32", "was begun on 72 clips"),
        ("--hidden 8", "was begun with --hidden 16; resume it without --hidden"),
        ("--label-smoothing 0.1", "was begun with --label-smoothing 0.0; resume it without --label-smoothing"),
        ("--rarest 100", "was begun with other words; resume it without --rarest"),
    ],
)
def test_a_run_is_resumed_with_what_it_was_begun_with(capsys, tmp_path, words, said):
    trained(capsys, *FEW, "--epochs", "1", "-o", tmp_path / "run")
    assert said in refused(capsys, *FEW, *words.split(), "--epochs", "2", "--resume", "-o", tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--format flickr8k", "there is no --data"),
        ("--fine-tune", "needs --data"),
        ("--encoder efficientnet-lite2", "they need --data"),
        ("--size 64", "they need --data"),
        ("--set-apart 8", "they need --data"),
        ("--top", "they need --data"),
        ("--top-from 2", "they need --data"),
        ("--views 2", "they need --data"),
        ("--self-critical-top", "they need --data"),
        ("--data DATA --views 2 --fine-tune", "with --fine-tune nothing is"),
        ("--data DATA --views 7", "--views is from 1 to below 7, not 7"),
        ("--concept-weight 0.1", "with these options there are none"),
        ("--data DATA --concept-weight 0.1 --concepts 0", "with these options there are none"),
        ("--data DATA --concept-weight 0.1 --decoder mean-pool", "with these options there are none"),
        ("--data DATA --concepts 5 --decoder mean-pool", "--concepts is for decoders that look at places"),
        ("--data DATA --concepts -1", "--concepts must be at least 0, not -1"),
        ("--data DATA --self-critical-top --no-top", "with these options it has none"),
        ("--data DATA --top --fine-tune", "give one of them"),
        ("--data DATA --top --decoder mean-pool", "--top is for decoders that look at places: spatial and attention"),
        ("--data DATA --top-from 1 --no-top", "with these options it has none"),
        ("--data DATA --top-from 1 --fine-tune", "with these options it has none"),
        ("--data DATA --top-from 1 --decoder mean-pool", "with these options it has none"),
        ("--data DATA --top-from -1", "--top-from must be at least 0, not -1"),
        ("--data DATA --size 100", "--size must be a multiple of 32, not 100"),
        ("--data DATA --set-apart -1", "--set-apart must be at least 0, not -1"),
        ("--frames 4", "are 10 frames"),
        ("--every 2", "are 10 frames"),
        ("--clips 3", "at least 4"),
        ("--hidden 0", "--hidden must be at least 1"),
        ("--max-length 0", "--max-length must be at least 1"),
        ("--dropout 1", "--dropout is from 0 to below 1, not 1.0"),
        ("--memory-dropout -0.1", "--memory-dropout is from 0 to below 1, not -0.1"),
        ("--label-smoothing 1", "--label-smoothing is from 0 to below 1, not 1.0"),
        ("--samples 1", "--samples must be at least 2, not 1"),
        ("--rarest 0", "--rarest must be at least 1, not 0"),
        ("--data DATA --clips 9", "does not go together with --data"),
        ("--data DATA --frames 4 --every 2", "give one of them"),
        ("--data DATA --frames 0", "n is 0"),
        ("--data nowhere", "nowhere"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_written(capsys, tmp_path, flickr, words, said):
    given = words.replace("DATA", str(flickr)).split()
    assert said in refused(capsys, *given, "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_photos_are_learnt_from_features_that_are_kept(capsys, tmp_path, flickr, monkeypatch):
    monkeypatch.setattr(caption_training, "load_efficientnet_lite", an_encoder)
    small = ("--data", flickr, "--epochs", "1", "--rarest", "1", "--hidden", "8", "--embedding", "8", "--size", "32")
    cut = []
    original = clip_batches.windows
    monkeypatch.setattr(
        clip_batches, "windows", lambda features, *rest: cut.append(len(features)) or original(features, *rest)
    )
    trained(capsys, *small, "--batch-size", "1", "--every", "10", "--views", "3", "-o", tmp_path / "run")
    assert cut == [1], "training sees a part of its one photo, validation all of its own"
    config = Run.open(tmp_path / "run").config
    assert config["frames"] == {"kind": "every", "n": 10, "most": 32}
    assert config["learning"]["self_critical"] == 0, "most of the default epochs, but none of one"
    assert config["license"].startswith("LicenseRef-training-data")
    kept = [*(tmp_path / "cache" / "features").iterdir()]
    assert [part.name.split("-")[0] for part in kept] == ["flickr8k"] * 2
    views = [sorted(file.stem for file in part.glob("*.counts")) for part in kept]
    assert sorted(views) == [["mirrored", "plain", "varied1"], ["plain"]], "of training, and of validation"


def test_photos_that_cannot_be_read_are_left_out(capsys, tmp_path, monkeypatch):
    """The one photo of validation that is left keeps its own captions, from the cache as well."""
    monkeypatch.setattr(caption_training, "load_efficientnet_lite", an_encoder)
    data = tmp_path / "set"
    data.mkdir()
    for name, content in (("a", jpeg(1)), ("b", b""), ("c", jpeg(3)), ("d", b"<html>"), ("e", jpeg(5))):
        (data / f"{name}.jpg").write_bytes(content)
    (data / "x.token").write_text("".join(f"{name}.jpg#0\ta dog {name}\n" for name in "abcde"))
    (data / "Flickr_8k.trainImages.txt").write_text("a.jpg\nb.jpg\nc.jpg\n")
    (data / "Flickr_8k.devImages.txt").write_text("d.jpg\ne.jpg\n")
    small = ("--data", data, "--epochs", "1", "--rarest", "1", "--hidden", "8", "--embedding", "8", "--size", "32")
    said = refused(capsys, *small, "-o", tmp_path / "run")
    assert "2 of 5 files of flickr8k cannot be read" in said
    assert "b.jpg" in said
    assert "d.jpg" in said
    assert not (tmp_path / "run").exists()
    judged = []
    original = caption_training.CiderD
    monkeypatch.setattr(caption_training, "CiderD", lambda lines: judged.append(lines) or original(lines))
    trained(capsys, *small, "--max-unreadable", "0.4", "-o", tmp_path / "run")
    config = Run.open(tmp_path / "run").config
    assert (config["data"]["unreadable"], config["unreadable"]) == (2, ["b.jpg", "d.jpg"])
    assert [len(line) for line in judged] == [1], "of validation the photo e"
    assert config["vocabulary"][2:] == ["a", "dog", "b", "c"]
    assert judged[0][0][0][2] == "e", "a word that training does not know stays itself"


def test_training_clips_that_are_set_apart_choose_and_are_not_learnt(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(caption_training, "load_efficientnet_lite", an_encoder)
    data = tmp_path / "set"
    data.mkdir()
    for name in "abv":
        (data / f"{name}.jpg").write_bytes(jpeg(ord(name)))
    (data / "x.token").write_text("a.jpg#0\ta dog\nb.jpg#0\ta cat\nb.jpg#1\ttwo\nv.jpg#0\tno\n")
    (data / "Flickr_8k.trainImages.txt").write_text("a.jpg\nb.jpg\n")
    (data / "Flickr_8k.devImages.txt").write_text("v.jpg\n")
    learnt, batches = [], caption_training.ClipBatches
    monkeypatch.setattr(
        caption_training, "ClipBatches", lambda *args, **rest: learnt.append(args[1]) or batches(*args, **rest)
    )
    small = ("--data", data, "--epochs", "1", "--rarest", "1", "--hidden", "8", "--embedding", "8", "--size", "32")
    said = refused(capsys, *small, "--set-apart", "2", "-o", tmp_path / "run")
    assert "--set-apart 2 of 2 training clips leaves none to learn from" in said
    trained(capsys, *small, "--batch-size", "1", "--set-apart", "1", "-o", tmp_path / "run")
    assert sorted(len(lines) for part in learnt for lines in part) == [1, 2], "a has one caption, b has two"
    assert [len(part) for part in learnt] == [1, 1]
    config = Run.open(tmp_path / "run").config
    assert (config["set_apart"], config["size"]) == (1, 32)
    assert config["vocabulary"][2:] == ["a", "cat", "dog", "two"], "the words are those of both, none of validation"


def karpathy(name: str) -> dict[str, bytes]:
    """Captions with Karpathy's splits; COCO's photos lie in folders."""
    photos = [
        {"filename": f"{letter}.jpg", "split": split, "sentences": [{"raw": f"A dog {letter}."}]}
        | ({"filepath": "val2014"} if name == "coco" else {})
        for letter, split in (("a", "train"), ("b", "restval" if name == "coco" else "train"), ("c", "val"))
    ]
    return {f"dataset_{name}.json": json.dumps({"images": photos, "dataset": name}).encode()}


FORMS = {
    "Kaggle's Flickr8k": ("flickr8k", "Images", {"captions.txt": b"image,caption\na.jpg,A dog .\nb.jpg,b\nc.jpg,c\n"}),
    "Kaggle's Flickr30k": (
        "flickr30k",
        "flickr30k_images",
        {"results.csv": b"image_name| comment_number| comment\na.jpg| 0| A dog .\nb.jpg| 0| b\nc.jpg| 0| c\n"},
    ),
    "Karpathy's Flickr8k": ("karpathy-flickr8k", "Flicker8k_Dataset", karpathy("flickr8k")),
    "Karpathy's Flickr30k": ("karpathy-flickr30k", "flickr30k-images", karpathy("flickr30k")),
    "Karpathy's COCO": ("karpathy-coco", "val2014", karpathy("coco")),
}


@pytest.mark.parametrize(
    ("name", "folder", "files"),
    [
        pytest.param(*form, id=name, marks=[] if name == "Karpathy's COCO" else pytest.mark.slow)
        for name, form in FORMS.items()
    ],
)
def test_every_published_form_of_photos_trains_the_same_way(capsys, tmp_path, monkeypatch, name, folder, files):
    monkeypatch.setattr(caption_training, "load_efficientnet_lite", an_encoder)
    photos = {f"{folder}/{letter}.jpg": jpeg(ord(letter)) for letter in "abc"}
    for member, content in {**files, **photos}.items():
        (tmp_path / "set" / member).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / member).write_bytes(content)
    small = ("--epochs", "1", "--rarest", "1", "--hidden", "8", "--embedding", "8", "--size", "32", "--no-cache")
    trained(capsys, "--data", tmp_path / "set", *small, "--batch-size", "1", "-o", tmp_path / "run")
    data = Run.open(tmp_path / "run").config["data"]
    assert (data["name"], data["n"], data["skipped"]) == (name, 3, {})


def test_other_clips_are_set_apart_for_each_seed():
    inputs = clip_batches.PixelInputs(np.zeros((100, 2, 2, 3), np.uint8), np.arange(101))
    part = caption_inputs.ReadClips(BouncingDigits(0, 64, 8), np.arange(100, 200), inputs)
    chosen = [caption_inputs.divided(part, 10, seed) for seed in (0, 0, 1)]
    for parts in chosen:
        assert len(parts["val"].rows) == len(parts["val"].inputs) == 10
        assert sorted([*parts["train"].rows, *parts["val"].rows]) == list(range(100, 200))
    first, again, other = (parts["val"].rows.tolist() for parts in chosen)
    assert first == again != other


@pytest.mark.parametrize("frozen", [True, False])
def test_what_is_read_of_clips_that_can_be_read(tmp_path, frozen):
    data = tmp_path / "set"
    data.mkdir()
    levels = {"a": 10, "b": 20, "c": 30, "d": 40}
    for name, level in levels.items():
        (data / f"{name}.jpg").write_bytes(b"damaged" if name in "ac" else jpeg(level))
    (data / "x.token").write_text("".join(f"{name}.jpg#0\ta dog {name}\n" for name in levels))
    dataset = open_captions(data)
    config = small_config(frozen=frozen)
    unreadable = Unreadable("set", 8, 0.5)
    parts = {"train": dataset, "val": dataset}
    read = caption_inputs.read_clips(captioner("attention"), config, parts, unreadable, varied=False, cached=False)
    for part in read.values():
        assert part.rows.tolist() == [1, 3]
        assert part.captions() == [("a dog b",), ("a dog d",)]
        assert len(part.inputs) == 2
        batch = part.inputs.take(torch.arange(2).numpy(), None)
        assert batch["counts"].tolist() == [1, 1]
        if not frozen:
            assert batch["clips"].float().mean((1, 2, 3, 4)).tolist() == pytest.approx([20, 40], abs=1)
    assert unreadable.names == ("a.jpg", "c.jpg")


def test_the_published_encoder_can_learn_as_well(capsys, tmp_path, flickr, monkeypatch):
    torch.manual_seed(0)
    start = EfficientNetLite()
    monkeypatch.setattr(caption_training, "load_efficientnet_lite", lambda scale: start)
    small = ("--data", flickr, "--epochs", "1", "--rarest", "1", "--hidden", "8", "--embedding", "8", "--no-bf16")
    lite0 = ("--encoder", "efficientnet-lite0")
    trained(capsys, *small, *lite0, "--batch-size", "2", "--fine-tune", "--ema", "0", "-o", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    learnt = run.best_weights()
    before = {f"encoder.{name}": tensor for name, tensor in start.named_parameters()}
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, learnt[name])]
    assert len(changed) > len(before) // 2
    assert not run.config["frozen"]


def test_only_the_encoders_top_learns_and_rests_at_first_and_in_self_critical_epochs(
    capsys, tmp_path, flickr, monkeypatch
):
    torch.manual_seed(0)
    start = EfficientNetLite()
    monkeypatch.setattr(caption_training, "load_efficientnet_lite", lambda scale: copy.deepcopy(start))
    small = f"--data {flickr} --encoder efficientnet-lite0 --size 64 --rarest 1 --hidden 8 --embedding 8 --batch-size 2"
    few = f"{small} --no-bf16 --no-cache --ema 0 --epochs 2 --top --top-from 1".split()
    tops = []
    for self_critical in (0, 1):
        run = tmp_path / f"run {self_critical}"
        trained(capsys, *few, "--self-critical", self_critical, "-o", run)
        saved = torch.load(Run.open(run).last, weights_only=True)
        rates = {
            group["name"].split()[0]: group["initial_lr"] for group in saved["optimizer_states"][0]["param_groups"]
        }
        assert rates == pytest.approx({"body": 2e-3, "head": 2e-4})
        weights = saved["state_dict"]
        top, trunk = "network.decoder.top.", "network.encoder."
        tops.append({name.removeprefix(top): tensor for name, tensor in weights.items() if name.startswith(top)})
        for name in weights:
            if name.startswith(trunk):
                assert torch.equal(weights[name], start.state_dict()[name.removeprefix(trunk)])
    before = EfficientNetTop(start).state_dict()
    learnt = {name for name in before if not torch.equal(tops[0][name], before[name])}
    could = {name for name, _ in EfficientNetTop(start).named_parameters()}
    assert learnt <= could, "no batch statistics"
    assert len(learnt) > len(could) // 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in tops[1].items()), "one rested, one self-critical"


def test_the_decoders_that_look_are_those_that_attend():
    assert set(LOOKING) == set(ATTENDING)


def test_frames_in_memory_have_a_limit(capsys, tmp_path, flickr, monkeypatch):
    monkeypatch.setattr(caption_training, "load_efficientnet_lite", an_encoder)
    monkeypatch.setattr(caption_inputs, "MOST_PIXEL_BYTES", 1 << 10)
    said = refused(capsys, "--data", flickr, "--rarest", "1", "--fine-tune", "-o", tmp_path / "run")
    assert "after 1 of 1 clips" in said


def test_a_run_from_before_the_dropout_of_the_memory_is_rebuilt_without_it():
    config = {**CONFIG, "encoder": "strided", "decoder": "attention", "places": 16}
    del config["memory_dropout"]
    assert network_of(CaptionConfig.from_json(config)).decoder.memory_dropout.p == 0


@pytest.mark.parametrize("recipe", [photo_recipe(), embedded_recipe()], ids=["photos", "digits"])
@pytest.mark.parametrize("kind", ["spatial", "attention", "mean-pool", "mean-pool-paper"])
def test_every_decoder_fits_every_encoder(recipe, kind):
    small = {"hidden": 8, "embedding": 8, "places": recipe.places.get(kind, 0), "vocabulary": ["</s>", "<unk>", "a"]}
    network = network_of(small_config(**recipe.network | small | {"decoder": kind}))
    classes = {"spatial": SpatialDecoder, "attention": AttentionDecoder}
    assert isinstance(network.decoder, classes.get(kind, MeanPoolDecoder))
    if kind in classes:
        assert network.decoder.concepts == min(recipe.network["concepts"], 1), "all of the one word, or none"
    clips = torch.zeros(1, 2, network.size, network.size, 3, dtype=torch.uint8)
    with torch.no_grad():
        tokens, _, _ = network.eval()(clips, torch.tensor([2]))
    assert tokens.shape == (1, 3, recipe.network["max_length"])
