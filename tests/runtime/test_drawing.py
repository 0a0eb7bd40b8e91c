"""Answers drawn into pictures stay near their faces and inside the picture."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from runtime.drawing import BOX, SHEET_WIDTH, draw_clip, draw_faces, fitted
from runtime.errors import MissingExtraError


def face(x1, y1, x2, y2) -> dict:
    return {"box": [x1, y1, x2, y2], "age": 31.4, "low": 27.0, "high": 36.0}


def changed(image: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.nonzero((image != drawn).any(axis=2))


@pytest.fixture
def photo() -> np.ndarray:
    return np.full((400, 600, 3), 120, np.uint8)


def test_the_box_is_drawn_where_the_face_is(photo):
    drawn = draw_faces(photo, [face(200, 150, 300, 260)])
    assert (photo == 120).all(), "the photo itself stays"
    assert drawn[200, 200].tolist() == list(BOX), "left side"
    assert drawn[260, 250].tolist() == list(BOX), "lower side"
    assert drawn[200, 250].tolist() == [120] * 3, "the face itself stays to be seen"


@pytest.mark.parametrize(
    "box",
    [(200, 150, 300, 260), (0, 0, 60, 60), (560, 340, 600, 400), (-20, -30, 630, 420), (595, 2, 640, 50)],
    ids=str,
)
def test_the_label_stays_inside_and_can_be_read(photo, box):
    drawn = draw_faces(photo, [face(*box)])
    label = (drawn == BOX).all(axis=2)
    assert drawn.shape == photo.shape
    dark = (drawn < 60).all(axis=2)
    assert dark.sum() > 20, "the ink of the label lies inside the picture"
    rows, columns = np.nonzero(dark)
    assert label[max(0, rows.min() - 3) : rows.max() + 4, max(0, columns.min() - 3) : columns.max() + 4].mean() > 0.3


@pytest.mark.parametrize("shape", [(1, 1), (8, 300), (300, 8), (30, 30)], ids=str)
def test_tiny_pictures_do_not_fail(shape):
    image = np.zeros((*shape, 3), np.uint8)
    assert draw_faces(image, [face(0, 0, shape[1], shape[0])]).shape == image.shape


def test_views_and_read_only_pictures_are_taken(photo):
    view = photo[::2, ::-2]
    view.flags.writeable = False
    drawn = draw_faces(view, [face(100, 75, 150, 130)])
    assert len(changed(view, drawn)[0]) > 100


def test_two_faces_two_boxes(photo):
    drawn = draw_faces(photo, [face(50, 100, 150, 200), face(400, 100, 500, 200)])
    _, columns = changed(photo, drawn)
    assert columns.min() < 60
    assert columns.max() > 490
    assert not ((columns > 300) & (columns < 390)).any()


def test_without_opencv_the_extra_is_named(photo, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"edgedl\[media\]"):
        draw_faces(photo, [])


@pytest.mark.parametrize(
    ("shape", "sheet"),
    [
        ((1, 300, 400, 3), (300, 400)),
        ((1, 3000, 4000, 3), (888, 1184)),
        ((4, 90, 160, 3), (90, 160)),
        ((8, 450, 800, 3), (163, 290)),
        ((5, 20, 30, 3), (20, 30)),
        ((2, 1000, 10, 3), (588, 6)),
    ],
    ids=str,
)
def test_a_sheet_shows_every_frame_and_the_caption(shape, sheet):
    frames = np.zeros(shape, np.uint8)
    frames[..., 1] = np.arange(1, len(frames) + 1)[:, None, None]
    drawn = draw_clip(frames, [0.5 * index for index in range(len(frames))], "a boy is playing a ball " * 8)
    assert drawn.dtype == np.uint8
    assert drawn.shape[1] <= SHEET_WIDTH
    places = []
    for index in range(len(frames)):
        rows, columns = np.nonzero((drawn == [0, index + 1, 0]).all(axis=2))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == sheet
        places.append((rows.min(), columns.min()))
    assert places == sorted(places), "in reading order"
    below = drawn[max(row for row, _ in places) + sheet[0] + 24 :]
    assert ((below < 60).all(axis=2)).sum() > 200, "the caption stands below the frames"
    left, right = below[:, :6], below[:, -4:]
    assert (left == left[0, 0]).all()
    assert (right == right[0, 0]).all(), "and does not run out of the sheet"


def test_a_sheet_without_times_or_words():
    frames = np.full((3, 40, 60, 3), 90, np.uint8)
    with_times = draw_clip(frames, [0.0, 1.0, 2.0], "a b")
    without = draw_clip(frames, [None] * 3, "")
    assert without.shape[0] == with_times.shape[0] - 20
    words = draw_clip(frames, [None] * 3, "a " + "long" * 60 + " naïve 犬")
    assert words.shape[1] > 1000, "a word is never cut"


def test_fitted_keeps_proportions_and_enlarges_nothing():
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    assert fitted(image, 100, 100) is image
    half = fitted(image, 45, 100)
    np.testing.assert_allclose(half, image.reshape(30, 2, 45, 2, 3).mean((1, 3)), atol=0.51)
