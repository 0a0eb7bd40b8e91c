"""Answers drawn into pictures stay near their faces and inside the picture."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from runtime.drawing import BOX, draw_faces
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
