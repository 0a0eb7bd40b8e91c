"""Figures of an age bundle by hand, and which face, crop and network an evaluation really looks at."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgedl.data.samples import FaceDataset, FaceSample
from edgedl.data.sources import FolderSource
from edgedl.data.synthetic_faces import generate
from edgedl.tasks import task, task_names
from edgedl.tasks.age.bundle import CROWD, crowd_cases, dlib_crop, face_cases, photo_cases, pipeline_settings
from edgedl.tasks.age.evaluation import Predictions, compared, evaluate_ages
from edgedl.tasks.age.stability import CHANGES
from runtime.detection import Looks
from runtime.errors import InputError
from runtime.faces import Detection
from runtime.pipelines.age import AgeSettings


def predictions(age, truth, low=None, high=None) -> Predictions:
    """What a pipeline might have answered; without ends, each range is the age alone."""
    age, truth = np.asarray(age, np.float64), np.asarray(truth, np.float64)
    ends = [age if end is None else np.asarray(end, np.float64) for end in (low, high)]
    return Predictions(np.arange(len(age)), age, ends[0], ends[1], np.ones(len(age), bool), truth)


def test_figures_by_hand():
    """Errors 0, 2, 5, 5.5, 7.5: mean 4, variance 8.875, three of five at most 5; two of five truths lie inside."""
    age, truth = [30.0, 42.0, 15.0, 25.5, 60.0], [30.0, 40.0, 20.0, 20.0, 52.5]
    figures = predictions(age, truth, low=[30, 41, 10, 20, 59], high=[32, 43, 19, 21, 61]).figures()
    assert figures == {
        "MAE": pytest.approx(4.0),
        "MAE standard error": pytest.approx((8.875 / 5) ** 0.5),
        "CS@5": pytest.approx(0.6),
        "coverage": pytest.approx(0.4),
        "width": pytest.approx((2 + 2 + 9 + 1 + 2) / 5),
    }


def test_a_group_by_hand():
    """Errors 2, -4 and 3 of those chosen; the range of the second holds its truth, that of the others does not."""
    found = predictions([2.0, 75.0, 13.0, 9.0], [0.0, 79.0, 10.0, 50.0], [1, 70, 12, 9], [3, 80, 14, 9])
    assert found.group(np.array([True, True, True, False])) == {
        "MAE": pytest.approx(3.0),
        "standard error": pytest.approx((1 / 3) ** 0.5),
        "bias": pytest.approx(1 / 3),
        "coverage": pytest.approx(1 / 3),
        "width": pytest.approx((2 + 10 + 2) / 3),
        "n": 3,
    }


def test_a_single_face_has_no_standard_error():
    assert predictions([3.0], [1.0]).figures()["MAE standard error"] == float("inf")


def test_a_paired_difference_is_finer_than_two_averages():
    """Faces that are hard for both cancel: each error is one year smaller, so the difference has no spread at all."""
    truth = np.zeros(50)
    hard = np.linspace(1, 60, 50)
    this, other = predictions(hard, truth), predictions(hard + 1, truth)
    found = compared(this, other)
    assert found["difference"]["MAE"] == pytest.approx(-1)
    assert found["standard error"]["MAE"] == pytest.approx(0, abs=1e-9)
    assert this.figures()["MAE standard error"] > 2
    assert found["this"]["MAE"] + 1 == pytest.approx(found["other"]["MAE"])


class StandIn:
    """Finds a face in every picture but the dark ones; its age is the mean level of what it is given."""

    class settings:  # noqa: N801 - an attribute of the pipeline
        @staticmethod
        def crop(image, face):
            x1, y1, x2, y2 = (int(v) for v in face.box)
            return image[y1:y2, x1:x2]

        @staticmethod
        def interval_json():
            return {"calibrated": False, "level": None, "note": "made up"}

    def find(self, image, smallest=-1.0):
        if image.mean() < 5:
            return []
        boxes = ((0, 0, 4, 4, 0.99), (4, 4, 12, 12, 0.6))  # the small one is surer
        return [Detection(np.array(box[:4]), box[4], np.zeros((6, 2))) for box in boxes]

    def ages(self, crops):
        return [{"age": crop.mean(), "low": crop.mean() - 1, "high": crop.mean() + 2} for crop in crops]


@pytest.fixture
def dataset(tmp_path) -> FaceDataset:
    """Level 60 with the larger face at level 30, all dark, and a sample whose box is the smaller face."""
    samples = []
    source = FolderSource(tmp_path)
    for index, (level, face, box) in enumerate([(60, 30, None), (0, 2, None), (60, 30, (0.0, 0.0, 4.0, 4.0))]):
        image = np.full((16, 16, 3), level, np.uint8)
        image[4:12, 4:12] = face
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
        samples.append(FaceSample(f"{index}.png", 30.0, source, f"{index}.png", box=box))
    return FaceDataset("made up", tuple(samples))


def test_the_whole_pipeline_judges_the_face_that_is_meant(dataset):
    """30 in the larger face; the dark picture as a whole, 2/4 of a year; 60 where the box is."""
    result = evaluate_ages(StandIn(), dataset, aligned=False)
    assert result["n"] == 3
    assert result["not_found"] == 1
    assert result["metrics"]["MAE"] == pytest.approx((0 + 29.5 + 30) / 3)
    assert result["metrics"]["CS@5"] == pytest.approx(1 / 3)
    assert list(result["by_age"]) == ["30-39"]
    assert result["by_age"]["30-39"]["bias"] == pytest.approx(0.5 / 3)
    assert result["metrics"]["coverage"] == pytest.approx(1 / 3), "the range around 30"
    assert result["metrics"]["width"] == pytest.approx(3)
    assert result["interval"]["note"] == "made up"
    assert result["mode"] == "whole pipeline"


def test_aligned_gives_the_network_the_picture_as_it_is(dataset):
    """A quarter of the picture is the face: 52.5, 0.5 and 52.5 years."""
    result = evaluate_ages(StandIn(), dataset, aligned=True)
    assert result["metrics"]["MAE"] == pytest.approx((22.5 + 29.5 + 22.5) / 3)
    assert "not_found" not in result
    assert result["mode"] == "aligned faces, network alone"


def test_figures_by_attribute(dataset):
    genders = ("male", "female", "male")
    told = [replace(sample, attributes={"gender": name}) for sample, name in zip(dataset, genders, strict=True)]
    result = evaluate_ages(StandIn(), replace(dataset, samples=tuple(told)), aligned=False, by=("gender",))
    assert {name: row["n"] for name, row in result["by_gender"].items()} == {"female": 1, "male": 2}
    assert result["by_gender"]["male"]["MAE"] == pytest.approx(15)
    with pytest.raises(InputError, match=r"--by race: .* does not tell the race of a face; it tells gender"):
        evaluate_ages(StandIn(), replace(dataset, samples=tuple(told)), aligned=False, by=("race",))


def test_small_changes_move_the_answer_by_hand(dataset):
    """The whole picture's mean level: 52.5, 0.5 and 52.5. A mirror leaves it, four fifths of the light move it."""
    result = evaluate_ages(StandIn(), dataset, aligned=True, stability=True)["stability"]
    assert list(result) == list(CHANGES)
    assert result["mirrored"] == {"mean": 0, "95 %": 0, "bias": 0}
    dark = result["brightness × 0.8"]
    # Levels 60, 30, 0 and 2 become 48, 24, 0 and 2.
    assert dark["mean"] == pytest.approx((10.5 + 0 + 10.5) / 3)
    assert dark["bias"] == pytest.approx(-dark["mean"])


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_change_is_small_and_leaves_the_picture_alone(name):
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    kept = image.copy()
    changed = CHANGES[name](image)
    np.testing.assert_array_equal(image, kept)
    assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
    assert not np.array_equal(changed, image)
    if name == "mirrored":
        np.testing.assert_array_equal(CHANGES[name](changed), image)
    if name == "one pixel to the right":
        np.testing.assert_array_equal(changed[:, 1:], image[:, :-1])


def test_two_pipelines_are_compared_on_the_same_faces(dataset):
    class Older(StandIn):
        def ages(self, crops):
            return [{name: value + 4 for name, value in answer.items()} for answer in super().ages(crops)]

    result = evaluate_ages(StandIn(), dataset, aligned=False, against=Older())["against"]
    # 30 and 34; 0.5 and 4.5 of 30; 60 and 64 of 30
    assert result["difference"]["MAE"] == pytest.approx((-4 + 4 - 4) / 3)
    assert result["standard error"]["MAE"] == pytest.approx((64 / 3 / 3) ** 0.5)


def faces_folder(folder: Path, count: int = 8) -> Path:
    """Painted faces under UTKFace's names, and one malformed name."""
    folder.mkdir(parents=True)
    images, ages = generate(seed=11, n=count)
    for index, (image, age) in enumerate(zip(images, ages, strict=True)):
        name = f"{int(age) or 1}_0_0_201701011200000{index:02d}.jpg.chip.jpg"
        cv2.imwrite(str(folder / name), image[..., ::-1])
    (folder / "39_1_20170116174525125.jpg.chip.jpg").write_bytes(b"")
    return folder


@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "pipeline"])
def test_the_bundle_is_judged_through_the_task(age_bundle, tmp_path, aligned):
    folder = faces_folder(tmp_path / "UTKFace")
    result = task("age").evaluate(age_bundle, folder, None, "cpu", 1, aligned=aligned)
    assert result["n"] == 8
    assert result["dataset"] == "utkface"
    assert sum(result["skipped"].values()) == 1
    assert sum(band["n"] for band in result["by_age"].values()) == 8
    assert result["metrics"]["MAE"] == pytest.approx(
        sum(band["MAE"] * band["n"] for band in result["by_age"].values()) / 8
    )
    assert 0 < result["metrics"]["MAE"] < 60
    assert result.get("not_found", 0) == 0, "the detector finds painted faces"


def test_without_data_painted_faces_are_judged(age_bundle, monkeypatch):
    """The validation part, which no training ever sees."""
    monkeypatch.setattr("edgedl.data.synthetic_faces.EMBEDDED_FACES", 60)
    result = task("age").evaluate(age_bundle, None, None, "cpu", 1, aligned=True)
    assert (result["n"], result["dataset"], result["skipped"]) == (6, "synthetic-faces", {})
    assert 0 < result["metrics"]["MAE"] < 80
    assert task("age").evaluate(age_bundle, None, "train", "cpu", 1, aligned=True)["n"] == 54


def test_a_split_that_is_not_there_is_named(age_bundle, tmp_path):
    folder = faces_folder(tmp_path / "UTKFace", 3)
    with pytest.raises(InputError, match="no split 'test'"):
        task("age").evaluate(age_bundle, folder, "test", "cpu", 1)


def test_tasks_are_known_by_name():
    assert "age" in task_names()
    assert task("age").name == "age"
    with pytest.raises(InputError, match=r"unknown task 'weather'; there is age\b"):
        task("weather")


@pytest.mark.parametrize(
    ("cases", "tensor"),
    [(partial(face_cases, 64), "face"), (photo_cases, "image"), (crowd_cases, "image")],
    ids=["faces", "photos", "crowds"],
)
def test_the_sweep_holds_the_edges(cases, tensor):
    made = cases()
    assert len(made) >= 8
    assert len({case.name for case in made}) == len(made)
    arrays = [case.inputs[tensor] for case in made]
    assert {a.dtype for a in arrays} == {np.dtype(np.uint8)}
    assert any(a.max() == 0 for a in arrays)
    assert any(a.min() == 255 for a in arrays)
    assert any(a.shape[-3:-1] == (1, 1) for a in arrays)
    assert all(a.flags.c_contiguous or tensor == "face" for a in arrays)
    for one, other in zip(arrays, (case.inputs[tensor] for case in cases()), strict=True):
        np.testing.assert_array_equal(one, other)


def test_settings_are_those_that_the_pipeline_reads():
    written = pipeline_settings([0.0, 1.0], dlib_crop(80))
    assert AgeSettings.from_json(written) == AgeSettings(
        (0.0, 1.0), dlib_crop(80), Looks(1.7, 0.5, 192, 64, 64 / (1.7 * 192), 192, 800, True, CROWD)
    )


def test_the_bundle_says_where_its_weights_come_from(age_bundle):
    from runtime.bundle import Bundle

    manifest = Bundle.open(age_bundle).manifest
    assert manifest.license == "CC0-1.0 AND Apache-2.0"
    assert [w["license"] for w in manifest.provenance["weights"]] == ["CC0-1.0", "Apache-2.0"]
    notice = Bundle.open(age_bundle).read(manifest.files["notice"].file).decode()
    assert "dlib" in notice
    assert "MediaPipe" in notice
    assert list(manifest.models) == ["faces", "crowd", "age"]
