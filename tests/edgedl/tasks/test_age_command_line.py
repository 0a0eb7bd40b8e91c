"""Train, export, verify and evaluate an age network on painted faces, all through the command line."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgedl.cli import main
from edgedl.data.synthetic_faces import generate
from edgedl.tasks import task
from edgedl.tasks.age import intervals
from edgedl.tasks.age import training as age_training
from edgedl.tasks.age.config import DEX_YEARS
from edgedl.tasks.age.training import trained_network
from edgedl.tasks.age.weights.resnet10 import load_age_resnet10
from edgedl.training.run import Run
from runtime.bundle import Bundle
from runtime.pipelines import load
from tests.edgedl.data.mats import NAMES, mat, record
from tests.edgedl.tasks.test_age_evaluation import faces_folder

pytestmark = pytest.mark.xdist_group("age_command_line")

TRAIN = ("train", "age", "--threads", "1", "--seed", "3", "--ema", "0", "--json")
SMALL = ("--faces", "120", "--size", "32", "--batch-size", "32")

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(age_bundle, tmp_path_factory) -> Iterator[Path]:
    """Where the module works; crops are cached there, fetched weights and the detector where they always are."""
    place = tmp_path_factory.mktemp("age")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(age_training, "cache_folder", lambda: place / "cache")
        yield place


@pytest.fixture(scope="module")
def trained(folder) -> Path:
    assert main([*TRAIN, *SMALL, "--epochs", "8", "--no-augment", "-o", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def exported(trained, folder) -> Path:
    path = folder / "small.edge"
    assert main(["export", str(trained), "-o", str(path), "--name", "small", "--untrained"]) == 0
    return path


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_training_learns_and_leaves_a_whole_run(trained, folder):
    history = rows(trained)
    assert [row["epoch"] for row in history] == [str(i) for i in range(1, 9)]
    assert float(history[-1]["train_loss"]) < 0.9 * float(history[0]["train_loss"])
    assert float(history[-1]["MAE"]) < float(history[0]["MAE"])
    for name in ("config.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt", "curves.png"):
        assert (trained / name).stat().st_size > 0, name
    assert len(list((folder / "cache" / "crops").glob("faces-*.npz"))) == 2, "training and validation crops"


def test_the_configuration_says_what_was_done(trained):
    config = json.loads((trained / "config.json").read_text())
    assert (config["task"], config["network"], config["size"], config["seed"]) == ("age", "compact", 32, 3)
    assert config["years"] == list(range(101))
    assert config["weights"] == []
    assert config["data"]["name"] == "synthetic-faces"
    assert config["data"]["n"] == 120
    assert config["crop"]["size"] == 32
    assert config["license"] == "Apache-2.0"


def test_the_configuration_and_the_weights_are_the_bundle(trained, exported):
    """Rebuilt from the run, the network answers what the bundle answers."""
    network = trained_network(Run.open(trained))
    faces, _ = generate(seed=21, n=6)
    with torch.no_grad():
        ages = network(torch.from_numpy(faces))[0].numpy()
    with load(exported, threads=1) as pipeline:
        answers = [answer["age"] for answer in pipeline.ages(list(faces))]
        assert pipeline.settings.crop.size == 32
        assert pipeline.settings.years == tuple(float(year) for year in range(101))
    np.testing.assert_allclose(answers, ages, atol=1e-3)
    assert np.ptp(ages) > 1


def test_the_bundle_says_what_it_is(exported):
    manifest = Bundle.open(exported).manifest
    assert (manifest.name, manifest.task, manifest.license) == ("small", "age", "Apache-2.0")
    assert manifest.provenance["data"]["name"] == "synthetic-faces"
    assert [w["name"] for w in manifest.provenance["weights"]] == ["BlazeFace full range"]


def test_the_bundle_verifies_and_predicts(exported, call, portrait_path):
    status, out, _ = call("verify", exported, "--json")
    assert status == 0
    checks = json.loads(out)["checks"]
    assert {check["output"] for check in checks} >= {"boxes", "keypoints", "age", "low", "high", "probabilities"}
    status, out, _ = call("predict", exported, portrait_path, "--json")
    (face,) = json.loads(out)["results"][0]["faces"]
    assert 0 <= face["low"] <= face["high"] <= 100.5


@pytest.mark.parametrize("mode", [(), ("--aligned",)], ids=["pipeline", "aligned"])
def test_the_bundle_is_evaluated(exported, call, tmp_path, mode):
    data = faces_folder(tmp_path / "UTKFace")
    status, out, _ = call("evaluate", exported, "--data", data, "--json", *mode)
    assert status == 0
    document = json.loads(out)
    assert document["n"] == 8
    assert set(document["metrics"]) == {"MAE", "MAE standard error", "CS@5", "coverage", "width"}
    assert sum(document["skipped"].values()) == 1


def test_training_calibrates_with_faces_of_their_own_and_the_bundle_has_it(folder, call, tmp_path, monkeypatch):
    """40 of 108 training faces are set apart; what comes of them is in the run, and goes into the bundle."""
    monkeypatch.setattr(age_training, "LEAST_FACES", 30)
    monkeypatch.setattr(intervals, "LEAST_FACES", 30)
    learnt: list[int] = []
    fit = age_training.fit
    monkeypatch.setattr(
        age_training, "fit", lambda module, train, *rest: (learnt.append(len(train)), fit(module, train, *rest))[1]
    )
    run = tmp_path / "run"
    status, out, _ = call(*TRAIN, *SMALL, "--epochs", "8", "--no-augment", "--calibration", "0.4", "-o", run)
    assert status == 0
    measured = json.loads(out)["interval"]
    assert measured["n"] == 43
    assert learnt == [65]
    config = json.loads((run / "config.json").read_text())
    assert config["calibration"] == 0.4
    assert config["interval"]["measured"]["n"] == 43
    assert config["interval"]["measured"]["split"] == "calibration part of train"
    given: dict[str, Any] = {}
    monkeypatch.setattr("edgedl.tasks.age.public.proven_detectors", dict)
    monkeypatch.setattr("edgedl.tasks.age.bundle.age_bundle", lambda *_, **options: given.update(options))
    task("age").export(run, tmp_path / "run.edge")
    assert given["interval"].to_json() == config["interval"]


def test_a_small_training_learns_from_all_faces_and_is_not_calibrated(trained, exported):
    config = json.loads((trained / "config.json").read_text())
    assert config["calibration"] == 0.1
    assert "interval" not in config or config["interval"] is None
    assert "interval" not in Bundle.open(exported).manifest.pipeline


DAMAGE = {"31_0_0_20170120134744031.jpg.chip.jpg": b"", "32_0_0_20170120134744032.jpg.chip.jpg": b"<html>404"}
FEW = ("--network", "compact", "--from-nothing", "--size", "32", "--epochs", "1", "--no-cache")


def damaged_folder(folder: Path, count: int = 10) -> Path:
    faces_folder(folder, count)
    for name, content in DAMAGE.items():
        (folder / name).write_bytes(content)
    return folder


def test_pictures_that_cannot_be_read_are_left_out_of_training(folder, call, tmp_path):
    data = damaged_folder(tmp_path / "UTKFace")
    status, out, err = call(*TRAIN, *FEW, "--data", data, "--max-unreadable", "0.2", "-o", tmp_path / "run")
    assert status == 0
    assert json.loads(out)["unreadable"] == {"count": 2, "names": sorted(DAMAGE)}
    assert "left out 2 of 12 files of utkface that cannot be read: 31_0_0_20170120134744031.jpg.chip.jpg (the" in err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["data"]["n"], config["data"]["unreadable"], config["unreadable"]) == (12, 2, sorted(DAMAGE))


@pytest.mark.parametrize("mode", [(), ("--aligned",)], ids=["pipeline", "aligned"])
def test_pictures_that_cannot_be_read_are_left_out_of_the_judgement(exported, call, tmp_path, mode):
    data = damaged_folder(tmp_path / "UTKFace")
    status, out, err = call("evaluate", exported, "--data", data, "--json", "--max-unreadable", "0.2", *mode)
    judged = json.loads(out)
    assert (status, judged["n"], judged["unreadable"]) == (0, 10, {"count": 2, "names": sorted(DAMAGE)})
    assert "left out 2 of 12 files of utkface" in err
    for name in DAMAGE:
        (data / name).unlink()
    without = json.loads(call("evaluate", exported, "--data", data, "--json", *mode)[1])
    assert without["unreadable"] == {"count": 0, "names": []}
    assert judged["metrics"] == without["metrics"]
    assert judged["by_age"] == without["by_age"]


def test_the_judgement_names_what_was_left_out(exported, call, tmp_path):
    data = damaged_folder(tmp_path / "UTKFace")
    lines = call("evaluate", exported, "--data", data, "--aligned", "--max-unreadable", "0.2")[1].splitlines()
    assert lines[0] == "10 samples"
    assert f"unreadable: 2 ({', '.join(sorted(DAMAGE))})" in lines


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_too_many_pictures_that_cannot_be_read_are_refused(exported, call, tmp_path, verb):
    data = damaged_folder(tmp_path / "UTKFace")
    run = tmp_path / "run"
    words = (*TRAIN, *FEW, "-o", run) if verb == "train" else ("evaluate", exported, "--json")
    status, out, err = call(*words, "--data", data)
    assert status == 2
    message = json.loads(out)["error"]["message"]
    assert message.startswith(
        "2 of 12 files of utkface cannot be read, more than the share of 0.01 that may be left out"
    )
    assert all(name in message for name in DAMAGE)
    assert message.endswith("--max-unreadable 0.17")
    assert message in err
    assert not run.exists(), "the folder is free for the next try"


@pytest.mark.parametrize("verb", ["train", "evaluate"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({f"{20 + i}_0_0_2017011621350{i:04d}.jpg.chip.jpg": b"x" for i in range(9)}, "can be read: 20_0_0_"),
        ({"wiki.mat": mat([record(name) for name in NAMES])}, "holds the labels of imdb-wiki but not the pictures: 3"),
        ({"readme.txt": b"x"}, "is no face data set that edgedl knows"),
    ],
    ids=["damaged", "without pictures", "something else"],
)
def test_a_set_without_a_picture_is_refused(exported, call, tmp_path, verb, content, said):
    """Never an MAE of nothing."""
    data = tmp_path / "set"
    data.mkdir()
    for name, each in content.items():
        (data / name).write_bytes(each)
    words = (*TRAIN, *FEW, "-o", tmp_path / "run") if verb == "train" else ("evaluate", exported, "--json")
    status, out, _ = call(*words, "--data", data, "--max-unreadable", "1")
    assert status == 2
    assert said in json.loads(out)["error"]["message"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_share_that_is_none_is_refused(exported, call, tmp_path, verb):
    words = (*TRAIN, "-o", tmp_path / "run") if verb == "train" else ("evaluate", exported)
    data = faces_folder(tmp_path / "UTKFace", 3)
    status, _, err = call(*words, "--data", data, "--max-unreadable", "5")
    assert status == 2
    assert "--max-unreadable is a share from 0 to 1, not 5; 5 % is 0.05" in err
    assert not (tmp_path / "run").exists()


def test_a_training_needs_two_pictures(call, tmp_path):
    data = faces_folder(tmp_path / "UTKFace", 1)
    (data / "39_1_20170116174525125.jpg.chip.jpg").unlink()
    status, _, err = call(*TRAIN, *FEW, "--data", data, "-o", tmp_path / "run")
    assert status == 2
    assert "the data set utkface has no split 'val'; it has: train, all; training needs both" in err
    assert not (tmp_path / "run").exists()


def test_a_set_smaller_than_a_batch_is_one_batch(folder, call, tmp_path):
    data = faces_folder(tmp_path / "UTKFace", 2)
    status, out, _ = call(*TRAIN, *FEW, "--data", data, "-o", tmp_path / "run")
    assert status == 0
    assert np.isfinite(json.loads(out)["best"])


def test_a_format_needs_data(exported, call):
    status, _, err = call("evaluate", exported, "--format", "utkface")
    assert status == 2
    assert "--format says how --data is to be read; there is no --data" in err


def test_a_run_is_resumed(folder, call, monkeypatch):
    """Two epochs and two more: the first two stay, and the crops come from the cache."""
    run = folder / "resumed"
    options = (*TRAIN, *SMALL, "--no-augment", "-o", run)
    assert call(*options, "--epochs", "2", "--schedule", "constant")[0] == 0
    before = rows(run)

    def never(*_: Any) -> None:
        raise AssertionError("the crops were made again")

    monkeypatch.setattr("edgedl.tasks.age.data.face_crops.chosen_face", never)
    status, out, _ = call(*options, "--epochs", "4", "--schedule", "constant", "--resume")
    assert status == 0
    assert json.loads(out)["epochs"] == Run.open(run).config["epochs"] == 4
    after = rows(run)
    assert len(after) == 4
    assert after[:2] == before


def test_a_run_is_not_resumed_on_other_data(trained, call):
    status, _, err = call(*TRAIN, "--faces", "60", "-o", trained, "--resume")
    assert status == 2
    assert "was begun on 120 faces of synthetic-faces, not on 60 of synthetic-faces" in err


def test_a_run_is_not_begun_where_one_lies(trained, call):
    status, _, err = call(*TRAIN, *SMALL, "-o", trained)
    assert status == 2
    assert "already holds a run" in err
    assert len(rows(trained)) == 8


def first_step(folder: Path, call: Call, *options: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Trains a ResNet-10 for one epoch with hardly any step."""
    status, _, err = call(
        *TRAIN, "--network", "resnet10", "--faces", "20", "--epochs", "1", "--lr", "1e-9", "-o", folder, *options
    )
    assert status == 0, err
    run = Run.open(folder)
    return dict(run.config), run.best_weights()


def test_training_starts_from_the_public_weights(folder, call, caplog):
    with caplog.at_level(logging.WARNING):
        config, weights = first_step(folder / "public", call)
    assert "eval mode" not in caplog.text
    public = load_age_resnet10()
    assert config["weights"] == ["dlib dnn_age_predictor_v1"]
    torch.testing.assert_close(weights["head.weight"][:81], public.head.weight.data, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        weights["backbone.blocks.2.conv1.weight"],
        public.backbone.blocks[2].conv1.weight.data,
        atol=1e-5,
        rtol=0,
    )
    # The classes beyond 80 begin like 80, each a little less likely.
    assert (weights["head.bias"][81:].diff() < 0).all()
    # In evaluation mode dropout and batch statistics would stand still.
    assert weights["backbone.norm.num_batches_tracked"] == 1
    assert weights["backbone.norm.running_var"].mean() != 1


def test_training_from_nothing_starts_from_chance(folder, call):
    config, weights = first_step(folder / "nothing", call, "--from-nothing")
    public = load_age_resnet10()
    assert config["weights"] == []
    assert (weights["head.weight"][:81] - public.head.weight.data).abs().max() > 0.01


def test_the_same_function_is_where_fine_tuning_starts():
    """Before any step, the larger network answers as the public one does, but for the ages that it adds."""
    from edgedl.nn.age import AgeNetwork
    from edgedl.tasks.age.data.face_crops import FaceCrops
    from edgedl.tasks.age.network.resnet10 import ResNet10

    faces, _ = generate(seed=2, n=24, size=96)
    network = AgeNetwork(ResNet10(), DEX_YEARS, 64)
    age_training.start_from_public(network, FaceCrops(faces, faces, np.ones(24, bool), np.arange(24)))
    public = load_age_resnet10()
    levels = torch.from_numpy(faces[:, 16:80, 16:80]).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        expected = public.logits(levels)
        found = network.eval().logits(levels)
    torch.testing.assert_close(found[:, :81], expected, atol=2e-4, rtol=0)
    assert (found[:, 81:].diff(dim=1) < 0).all()


@pytest.mark.parametrize("sharpness", [1.0, 1.7, 4.0])
def test_calibration_finds_the_sharpness_that_the_ages_were_made_with(sharpness):
    """A network of known scores, and ages that are its expectation at one sharpness."""
    from edgedl.nn.age import AgeNetwork
    from edgedl.tasks.age.network.compact import CompactNetwork

    torch.manual_seed(0)
    network = AgeNetwork(CompactNetwork(), DEX_YEARS, 32).eval()
    with torch.no_grad():
        network.head.weight.mul_(30)
    faces, _ = generate(seed=4, n=12, size=32)
    with torch.no_grad():
        logits = network.logits(torch.from_numpy(faces).permute(0, 3, 1, 2).float())
        ages = ((logits * sharpness).softmax(dim=1) @ network.years).numpy()
    assert age_training.calibrate_sharpness(network, faces, ages) == (sharpness, pytest.approx(0, abs=1e-3))
    assert network.sharpness.item() == pytest.approx(sharpness)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--network", "vgg"], "invalid choice: 'vgg'"),
        (["--objective", "hinge"], "invalid choice: 'hinge'"),
        (["--size", "8"], "--size 8 is too small: compact needs at least 32 pixels"),
        (["--size", "0"], "--size 0 is too small"),
        (["--size", "30", "--network", "resnet10"], "resnet10 needs at least 39 pixels"),
        (["--dropout", "2"], "--dropout is from 0 to below 1, not 2.0"),
        (["--sigma", "0"], "--sigma must be above 0, not 0.0"),
        (["--sigma", "nan"], "--sigma must be above 0, not nan"),
        (["--expectation-weight", "-1"], "--expectation-weight must be at least 0, not -1.0"),
        (["--faces", "0"], "--faces must be at least 1"),
        (["--faces", "1"], "no split 'val'"),
        (["--format", "utkface"], "there is no --data"),
        (["--data", "nowhere.zip"], "nowhere.zip does not exist"),
        (["--data", "x", "--faces", "5"], "does not go together with --data"),
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--l2", "0.1"], "use weight_decay, not l2"),
        (["--seed", "-1"], "seed"),
        (["--colour", "red"], "--colour"),
        (["--resume"], "is not a run"),
    ],
    ids=" ".join,
)
def test_odd_options_are_refused_before_anything_is_made(call, tmp_path, options, said):
    status, out, err = call("train", "age", "-o", tmp_path / "run", *options)
    assert status == 2
    assert said in err
    assert out == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("size", "side"), [(32, 48), (128, 192), (160, 200), (224, 224)])
def test_crops_in_memory_have_no_more_pixels_than_help(size, side):
    """Half as many again as the network looks at, and no more than 200 unless it looks at more."""
    assert age_training.crop_side(size) == side


def test_a_run_takes_no_opset(trained, call, tmp_path):
    status, _, err = call("export", trained, "-o", tmp_path / "b.edge", "--opset", "19")
    assert status == 2
    assert "--name, --untrained and --one-graph, not with --opset" in err


def test_curves_are_drawn(trained, call, tmp_path):
    status, out, _ = call("plot", trained, "-o", tmp_path / "c.png")
    assert (status, out.strip()) == (0, str(tmp_path / "c.png"))
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_pull_copies_the_public_bundle(age_bundle, call, tmp_path):
    status, out, _ = call("pull", "age", "-o", tmp_path / "age.edge", "--json")
    assert status == 0
    assert json.loads(out)["bundle"] == str(tmp_path / "age.edge")
    pulled, cached = Bundle.open(tmp_path / "age.edge"), Bundle.open(age_bundle)
    assert pulled.manifest.to_json() == cached.manifest.to_json()
    assert pulled.graph("age") == cached.graph("age")
