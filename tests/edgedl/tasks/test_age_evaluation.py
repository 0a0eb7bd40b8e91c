"""Figures of an age bundle by hand, and which face, crop and network an evaluation really looks at."""

from __future__ import annotations

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
from edgedl.tasks.age.evaluation import age_metrics, error_by_age, evaluate_ages
from runtime.detection import Looks
from runtime.errors import InputError
from runtime.faces import Detection
from runtime.pipelines.age import AgeSettings


def test_metrics_by_hand():
    """Errors 0, 2, 5, 5.5, 7.5: their mean is 4, and three of five are at most 5."""
    predicted = np.array([30.0, 42.0, 15.0, 25.5, 60.0])
    ages = np.array([30.0, 40.0, 20.0, 20.0, 52.5])
    assert age_metrics(predicted, ages) == {"MAE": pytest.approx(4.0), "CS@5": pytest.approx(0.6)}


def test_metrics_are_counted_in_float64():
    """In float32 the mean of many equal errors would drift."""
    predicted = np.full(1_000_000, 0.1, np.float32)
    assert age_metrics(predicted, np.zeros(1_000_000, np.float32))["MAE"] == pytest.approx(float(np.float32(0.1)))


def test_errors_by_age_by_hand():
    ages = np.array([0.0, 9.9, 10.0, 79.0, 80.0, 103.0])
    predicted = np.array([2.0, 8.9, 13.0, 75.0, 70.0, 83.0])
    assert error_by_age(predicted, ages) == {
        "0-9": {"MAE": pytest.approx(1.5), "bias": pytest.approx(0.5), "n": 2},
        "10-19": {"MAE": pytest.approx(3.0), "bias": pytest.approx(3.0), "n": 1},
        "70-79": {"MAE": pytest.approx(4.0), "bias": pytest.approx(-4.0), "n": 1},
        "80+": {"MAE": pytest.approx(15.0), "bias": pytest.approx(-15.0), "n": 2},
    }


class StandIn:
    """Finds a face in every picture but the dark ones; its age is the mean level of what it is given."""

    class settings:  # noqa: N801 - an attribute of the pipeline
        @staticmethod
        def crop(image, face):
            x1, y1, x2, y2 = (int(v) for v in face.box)
            return image[y1:y2, x1:x2]

    def find(self, image, smallest=-1.0):
        if image.mean() < 5:
            return []
        boxes = ((0, 0, 4, 4, 0.99), (4, 4, 12, 12, 0.6))  # the small one is surer
        return [Detection(np.array(box[:4]), box[4], np.zeros((6, 2))) for box in boxes]

    def ages(self, crops):
        return [{"age": crop.mean()} for crop in crops]


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
    assert result["by_age"] == {"30-39": {"MAE": pytest.approx(59.5 / 3), "bias": pytest.approx(0.5 / 3), "n": 3}}
    assert result["mode"] == "whole pipeline"


def test_aligned_gives_the_network_the_picture_as_it_is(dataset):
    """A quarter of the picture is the face: 52.5, 0.5 and 52.5 years."""
    result = evaluate_ages(StandIn(), dataset, aligned=True)
    assert result["metrics"]["MAE"] == pytest.approx((22.5 + 29.5 + 22.5) / 3)
    assert "not_found" not in result
    assert result["mode"] == "aligned faces, network alone"


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
