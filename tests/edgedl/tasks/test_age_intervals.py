"""Calibrated ranges hold what they promise: at each true age, for other mixtures of ages, and on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgedl.data.splits import held_out, set_apart
from edgedl.data.synthetic_faces import SyntheticFaces, generate
from edgedl.tasks import task
from edgedl.tasks.age.intervals import age_bands, calibrate, coverage
from edgedl.tasks.age.training import CALIBRATION, parts_of
from runtime.bundle import Bundle
from runtime.errors import InputError
from runtime.intervals import UNCALIBRATED
from runtime.pipelines import load
from runtime.verify import verify

DRAWS = 3000


def drawn(n: int, seed: int, oldest: float = 90) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Predictions that fall behind and are the worse the older the face: (n,), true ages (n,), and names."""
    chance = np.random.default_rng(seed)
    ages = np.floor(chance.uniform(0, oldest, n))
    predicted = ages * (1 - ages / 400) + chance.normal(0, 1 + ages / 10)
    return predicted, ages, [f"{seed}-{index}" for index in range(n)]


@pytest.fixture(scope="module")
def interval():
    predicted, ages, names = drawn(DRAWS, 0)
    return calibrate(predicted, ages, names, dataset="drawn", split="val")


def test_eight_of_ten_truths_lie_inside_at_every_age(interval):
    """Of 20,000 fresh ones. What is left is chance: 200 neighbours calibrate an age, and the oldest have some less."""
    predicted, ages, _ = drawn(20_000, 1)
    low, high = interval.ends(predicted)
    assert coverage(low, high, ages).coverage == pytest.approx(0.8, abs=0.02)
    for band, rows in age_bands(ages).items():
        inside = coverage(low[rows], high[rows], ages[rows]).coverage
        assert inside == pytest.approx(0.8, abs=0.07) or (band == "80+" and inside > 0.8), band


def test_another_mixture_of_ages_changes_nothing(interval):
    """Mostly children, where calibration saw all ages alike."""
    predicted, ages, _ = drawn(10_000, 2, oldest=20)
    assert coverage(*interval.ends(predicted), ages).coverage == pytest.approx(0.8, abs=0.04)


def test_what_is_measured_is_what_comes_of_it(interval):
    predicted, ages, _ = drawn(20_000, 3)
    fresh = coverage(*interval.ends(predicted), ages)
    assert interval.measured.all.n == DRAWS
    assert interval.measured.all.coverage == pytest.approx(fresh.coverage, abs=0.02)
    assert interval.measured.all.width == pytest.approx(fresh.width, rel=0.05)
    assert sum(band.n for band in interval.measured.by_age.values()) == DRAWS


def test_the_old_have_wider_ranges(interval):
    low, high = interval.ends([12.0, 60.0])
    assert high[1] - low[1] > 2 * (high[0] - low[0])


def test_the_young_are_not_judged_by_those_some_years_older():
    """Ten faces of each age up to 19, forty of each from 20 on; from 14 on all are taken for ten years older."""
    counts = [10] * 20 + [40] * 40
    ages = np.repeat(np.arange(60.0), counts)
    spread = np.concatenate([np.linspace(-1, 1, count) for count in counts])
    predicted = ages + spread + np.where(ages < 14, 0, 10)
    made = calibrate(predicted, ages, [str(i) for i in range(len(ages))], dataset="drawn", split="val")
    assert (made.least[10], made.most[10]) == pytest.approx((9.2, 10.8), abs=0.3)
    assert (made.least[20], made.most[20]) == pytest.approx((29.2, 30.8), abs=0.3)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_other_levels(level):
    predicted, ages, names = drawn(DRAWS, 4)
    made = calibrate(predicted, ages, names, level=level, dataset="drawn", split="val")
    fresh, truth, _ = drawn(20_000, 5)
    assert coverage(*made.ends(fresh), truth).coverage == pytest.approx(level, abs=0.02)


def test_other_faces_to_calibrate_give_what_is_told_of_chance():
    """The standard deviation over thirty times 300 faces. That of thirty numbers is known to an eighth."""
    fresh, truth, _ = drawn(20_000, 100)
    made = [calibrate(*drawn(300, 101 + draw), dataset="drawn", split="val") for draw in range(30)]
    inside = [coverage(*one.ends(fresh), truth).coverage for one in made]
    assert np.mean(inside) == pytest.approx(0.8, abs=0.015)
    assert np.std(inside) == pytest.approx(made[0].chance, rel=0.4)


def test_the_order_of_faces_has_no_say():
    predicted, ages, names = drawn(400, 6)
    order = np.random.default_rng(7).permutation(400)
    made = calibrate(predicted, ages, names, dataset="drawn", split="val")
    other = calibrate(predicted[order], ages[order], [names[i] for i in order], dataset="drawn", split="val")
    assert made.to_json() == other.to_json()


def test_too_few_faces_and_a_network_that_knows_nothing_are_refused():
    predicted, ages, names = drawn(99, 8)
    with pytest.raises(InputError, match="99 faces of drawn are too few to calibrate an interval; give at least 100"):
        calibrate(predicted, ages, names, dataset="drawn", split="val")
    predicted, ages, names = drawn(200, 8)
    with pytest.raises(InputError, match="train the network first"):
        calibrate(np.full(200, 35.0), ages, names, dataset="drawn", split="val")


def test_what_calibrates_is_neither_learnt_from_nor_validation():
    faces = SyntheticFaces(n=1300)
    parts = parts_of(faces, 0.1)
    names = {part: {sample.name for sample in samples} for part, samples in parts.items()}
    assert len(names[CALIBRATION]) == round(0.1 * (len(names["train"]) + len(names[CALIBRATION])))
    assert sum(map(len, names.values())) == len(set.union(*names.values())) == 1300
    assert list(parts_of(faces, 0.0)) == list(parts_of(faces, 0.05)) == ["train", "val"], "58 faces are too few"


def test_a_part_for_a_purpose_is_not_the_validation_again():
    names = [f"{index}.jpg" for index in range(1000)]
    apart = set_apart(names, 0.1, "calibration")
    assert len(apart) == len(held_out(names)) == 100
    assert len(apart & held_out(names)) < 30
    assert apart == set_apart(reversed(names), 0.1, "calibration")


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """120 painted faces under UTKFace's names."""
    folder = tmp_path_factory.mktemp("faces") / "UTKFace"
    folder.mkdir()
    images, ages = generate(seed=5, n=120, size=96)
    for index, (image, age) in enumerate(zip(images, ages, strict=True)):
        cv2.imwrite(
            str(folder / f"{int(age) or 1}_{index % 2}_0_20170101120000{index:03d}.jpg.chip.jpg"), image[..., ::-1]
        )
    return folder


def test_the_verb_calibrates_any_age_bundle(age_bundle, faces, call, tmp_path, portrait_path):
    made = tmp_path / "made.edge"
    status, out, _ = call("calibrate", age_bundle, "--data", faces, "--split", "all", "-o", made, "--json")
    assert status == 0
    told = json.loads(out)
    assert (told["n"], told["dataset"], told["split"], told["level"]) == (120, "utkface", "all", 0.8)
    assert told["coverage"] >= 0.8
    before, after = Bundle.open(age_bundle), Bundle.open(made)
    assert told["digest"] == after.digest != before.digest
    assert after.manifest.digests() == before.manifest.digests(), "no graph and no recorded answer changes"
    assert verify(made)
    with load(age_bundle, threads=1) as old, load(made, threads=1) as new:
        was, now = old.predict(portrait_path), new.predict(portrait_path)
    assert was["interval"] == {"calibrated": False, "level": None, "note": UNCALIBRATED}
    assert (now["interval"]["calibrated"], now["interval"]["level"]) == (True, 0.8)
    assert now["faces"][0]["age"] == was["faces"][0]["age"]
    low, high = new.settings.interval.ends(now["faces"][0]["age"])
    assert now["faces"][0]["low"] == pytest.approx(float(low), abs=0.02)
    assert now["faces"][0]["high"] == pytest.approx(float(high), abs=0.02)
    status, out, _ = call("predict", made, portrait_path)
    assert "The range holds 80 ± 4 % of the true ages" in out
    status, out, _ = call("predict", age_bundle, portrait_path)
    assert out.rstrip().endswith(UNCALIBRATED)
    result = task("age").evaluate(made, faces, None, "cpu", 1, aligned=True, by=("gender",), against=str(age_bundle))
    assert result["against"]["difference"]["MAE"] == 0
    assert result["against"]["difference"]["width"] == pytest.approx(
        result["metrics"]["width"] - result["against"]["other"]["width"]
    )
    assert set(result["by_gender"]) == {"female", "male"}


def test_faces_that_the_network_has_learnt_from_do_not_calibrate_it(age_bundle, faces, monkeypatch, tmp_path):
    from runtime.manifest import Manifest

    opened = Manifest.from_json

    def learnt(data):
        return opened(data | {"provenance": {"data": {"name": "utkface"}}})

    monkeypatch.setattr(Manifest, "from_json", staticmethod(learnt))
    with pytest.raises(InputError, match=r"has learnt from the train split of utkface, .* use --split val"):
        task("age").calibrate(age_bundle, faces, "train", output=tmp_path / "made.edge")
    assert not (tmp_path / "made.edge").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--split", "test"), "has no split 'test'"),
        ((), "12 faces of utkface are too few to calibrate an interval"),
        (("--level", "80"), "'80' is not a share from 0.5 to 0.99; 80 % is 0.8"),
    ],
    ids=["split", "few", "level"],
)
def test_a_mistake_is_one_sentence(age_bundle, faces, call, tmp_path, words, message):
    status, out, err = call("calibrate", age_bundle, "--data", faces, "-o", tmp_path / "made.edge", *words)
    assert (status, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_task_without_ranges_refuses():
    with pytest.raises(InputError, match="the answers of the task timer have no interval"):
        task("timer").calibrate("timer.edge", "data", None)
