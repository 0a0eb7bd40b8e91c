"""What is said of a face: in pixels of the photo itself, within the photo, and with the age inside its interval."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from runtime.media.pictures import read_image
from runtime.pipelines import load
from tests.runtime.test_age_pipeline import best_overlap, detection, scaled


@pytest.fixture(scope="module")
def pipeline(age_bundle):
    with load(age_bundle, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def portrait(portrait_path) -> np.ndarray:
    return read_image(portrait_path)


def answering(pipeline, monkeypatch, box, age, low, high) -> None:
    """One face is found, at this place, and this is answered about it."""
    answer = {"age": np.float32(age), "low": np.float32(low), "high": np.float32(high)}
    answer["probabilities"] = np.array([0.5, 0.5], np.float32)
    monkeypatch.setattr(pipeline, "find", lambda *_: [detection(*box)])
    monkeypatch.setattr(pipeline, "ages", lambda crops: [answer])


@pytest.mark.parametrize(
    ("age", "low", "high", "expected"),
    [
        (30.0, 20.0, 40.0, (30.0, 20.0, 40.0)),
        (15.0, 18.004, 40.0, (15.0, 15.0, 40.0)),
        (77.126, 60.0, 77.124, (77.13, 60.0, 77.13)),
        (np.float32(0.1), 0.1, np.float32(0.1), (0.1, 0.1, 0.1)),
    ],
    ids=["inside", "below", "above by a hundredth", "all one"],
)
def test_the_age_lies_within_its_interval(pipeline, portrait, age, low, high, expected, monkeypatch):
    """The mean of a distribution with a long tail lies outside of the middle four fifths of it."""
    answering(pipeline, monkeypatch, (100, 100, 300, 300), age, low, high)
    (face,) = pipeline.faces(portrait)
    assert face.low <= face.age <= face.high
    (document,) = pipeline.predict(portrait)["faces"]
    assert (document["age"], document["low"], document["high"]) == expected
    labels = []
    monkeypatch.setattr(cv2, "putText", lambda image, label, *rest: labels.append(label))
    pipeline.draw(portrait, {"faces": [document]})
    shown = [float(number) for number in labels[0].replace("(", " ").replace("-", " ").rstrip(")").split()]
    assert shown[1] <= shown[0] <= shown[2]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((-30, -40, 200, 210), [0, 0, 200, 210]),
        ((400, 500, 700, 800), [400, 500, 512, 600]),
        ((-9, -9, 900, 900), [0, 0, 512, 600]),
        ((1.234, 2.345, 3.456, 599.999), [1.23, 2.35, 3.46, 600.0]),
    ],
    ids=["top left", "bottom right", "larger than the photo", "inside"],
)
def test_boxes_end_at_the_border_of_the_photo(pipeline, portrait, box, expected, monkeypatch):
    answering(pipeline, monkeypatch, box, 30, 20, 40)
    (document,) = pipeline.predict(portrait)["faces"]
    assert document["box"] == pytest.approx(expected, abs=0.006)


def test_a_photo_read_at_a_fraction_is_answered_in_its_own_pixels(pipeline, portrait, tmp_path):
    """A large JPEG is reduced while it is decoded; boxes, keypoints and the drawing do not show it."""
    large = scaled(portrait, 4)
    path = tmp_path / "large.jpg"
    cv2.imwrite(str(path), large[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    (expected,) = pipeline.faces(path)
    for scale, most in ((2, large.shape[0] * large.shape[1] // 4), (4, large.shape[0] * large.shape[1] // 16)):
        picture = pipeline.open_picture(path, max_pixels=most)
        assert picture.scale == scale
        (face,) = pipeline.faces(picture)
        assert best_overlap(face.box, [expected.box]) > 0.9
        assert np.abs(face.keypoints - expected.keypoints).max() < 0.05 * (expected.box[2] - expected.box[0])
        assert abs(face.age - expected.age) < 3
        result = pipeline.predict(picture)
        drawn = pipeline.draw(picture, result)
        assert drawn.shape == picture.pixels.shape
        changed = np.argwhere((drawn != picture.pixels).any(axis=2))
        x1, _, x2, y2 = np.array(face.box) / scale
        assert abs(changed[:, 1].min() - x1) < 0.1 * drawn.shape[1]
        assert abs(changed[:, 0].max() - y2) < 0.02 * drawn.shape[0]
        assert x2 < drawn.shape[1]


def test_a_note_about_the_photo_is_in_the_answer(pipeline, portrait_path):
    data = portrait_path.read_bytes()
    whole = pipeline.predict(data)
    assert "note" not in whole
    assert pipeline.predict(data[:-2]) == {
        **whole,
        "note": "the JPEG has no end marker; nothing of the picture is missing",
    }


@pytest.mark.parametrize("smallest", [0, -1], ids=["one look", "a crowd"])
def test_a_strip_is_not_blown_up_into_a_square(pipeline, monkeypatch, smallest):
    """A face as wide as a strip of 400,000 pixels would be looked at in a square of 750 GB."""
    strip = np.zeros((20, 400_000, 3), np.uint8)
    monkeypatch.setattr(pipeline.finder, "detect", lambda image, model="faces": [detection(10, -500, 1010, 500)])
    monkeypatch.setattr("runtime.faces.cut", lambda *_: pytest.fail("a square was cut"))
    (face,) = pipeline.find(strip, smallest)
    assert face.box[2] - face.box[0] > 1000
