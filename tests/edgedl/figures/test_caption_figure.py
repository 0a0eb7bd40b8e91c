"""The picture of a caption: a panel for each word and frame, warm where the word looked and pale where it did not."""

from __future__ import annotations

import numpy as np
import pytest

from edgedl.figures.caption import (
    FADED,
    MOST_COLUMNS,
    TINT,
    caption_figure,
    enlarged,
    overlays,
    save_caption,
)
from runtime.errors import InputError
from runtime.media.pictures import read_image
from runtime.pipelines.caption import Caption

CAPTIONS = (Caption("a dog runs", -0.5), Caption("a dog", -1.25), Caption("dogs", -2.0), Caption("cats", -3.0))


def frames(count: int, height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def attention(words: int, count: int) -> np.ndarray:
    shares = np.random.default_rng(1).random((words, count, 4, 4))
    return shares / shares.sum(axis=(1, 2, 3), keepdims=True)


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_a_clip_has_a_row_for_its_frames_and_one_for_each_word() -> None:
    clip = frames(4)
    figure = caption_figure(clip, [0.5, 1.5, 2.5, None], CAPTIONS, attention(3, 4))
    boxes = np.array([axes.get_position().bounds for axes in figure.axes]).reshape(4, 4, 4)
    assert (np.diff(boxes[:, 0, 1]) < 0).all(), "rows go down"
    assert (np.diff(boxes[0, :, 0]) > 0).all(), "frames go to the right"
    assert np.ptp(boxes[:, :, 0], axis=0).max() < 1e-9
    assert boxes[..., 0].min() > 0
    assert (boxes[..., 0] + boxes[..., 2]).max() <= 1
    assert boxes[..., 1].min() >= -1e-9
    for column, axes in enumerate(figure.axes[:4]):
        np.testing.assert_array_equal(axes.images[0].get_array(), clip[column])
    drawn = overlays(clip, attention(3, 4))
    np.testing.assert_array_equal(figure.axes[4 + 2].images[0].get_array(), drawn[0, 2])
    np.testing.assert_array_equal(figure.axes[12 + 3].images[0].get_array(), drawn[2, 3])
    found = texts(figure)
    assert found[:4] == ["a dog runs", "score -0.50", "-1.25  a dog", "-2.00  dogs"]
    assert found[4:] == ["0.5 s", "1.5 s", "2.5 s", "a", "dog", "runs"]


def test_a_photo_has_its_words_side_by_side() -> None:
    figure = caption_figure(frames(1), [0.0], CAPTIONS, attention(3, 1))
    assert len(figure.axes) == 4
    assert len({round(axes.get_position().y0, 6) for axes in figure.axes}) == 1
    assert texts(figure)[4:] == ["a", "dog", "runs"]


@pytest.mark.parametrize("count", [1, 3])
def test_without_attention_there_are_the_frames(count: int) -> None:
    figure = caption_figure(frames(count), [None] * count, CAPTIONS)
    assert len(figure.axes) == count
    assert texts(figure) == ["a dog runs", "score -0.50", "-1.25  a dog", "-2.00  dogs"]


def test_a_clip_of_many_frames_is_thinned() -> None:
    count = 100
    clip = frames(count)
    figure = caption_figure(clip, list(range(count)), CAPTIONS, attention(3, count))
    assert len(figure.axes) == 4 * MOST_COLUMNS
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), clip[4])
    assert "4.0 s" in texts(figure)
    assert figure.get_size_inches()[0] < 20


def test_no_word_is_no_row() -> None:
    figure = caption_figure(frames(2), [None, None], [Caption("", -0.001)], np.zeros((0, 2, 4, 4)))
    assert len(figure.axes) == 2
    assert texts(figure) == ["(no word)", "score 0.00"]


def test_long_captions_are_wrapped() -> None:
    long = Caption("a man in a red shirt is riding a bike down a long and dusty road in the mountains", -1.0)
    figure = caption_figure(frames(1), [None], [long])
    title = texts(figure)[:-1]
    assert len(title) > 1
    assert " ".join(title) == long.text


def test_attention_of_other_words_or_frames_is_refused() -> None:
    for shape in ((2, 4, 4, 4), (3, 3, 4, 4), (3, 4, 16)):
        with pytest.raises(InputError, match="expected attention of 3 words on 4 frames"):
            caption_figure(frames(4), [None] * 4, CAPTIONS, np.ones(shape))


def test_the_place_looked_at_most_is_warm_and_the_rest_grey_and_pale() -> None:
    """By hand: the frame with two fifths of orange, and white with a third of grey."""
    pixels = np.full((1, 40, 40, 3), (100, 150, 50), np.uint8)
    shares = np.zeros((1, 1, 4, 4))
    shares[0, 0, 0, 0] = 0.25
    drawn = overlays(pixels, shares)[0, 0].astype(float)
    np.testing.assert_allclose(
        drawn[0, 0], np.array([100, 150, 50]) * (1 - TINT) + TINT * np.array([255, 80, 0]), atol=1
    )
    grey = 0.299 * 100 + 0.587 * 150 + 0.114 * 50
    np.testing.assert_allclose(drawn[-1, -1], 255 * (1 - FADED) * 0.9 + FADED * grey, atol=1)


def test_words_are_scaled_apart_and_frames_together() -> None:
    pixels = np.full((2, 8, 8, 3), 60, np.uint8)
    shares = np.zeros((2, 2, 2, 2))
    shares[0, 0, 0, 0], shares[0, 1, 0, 0] = 0.8, 0.2
    shares[1] = 0.125
    drawn = overlays(pixels, shares)
    assert (drawn[1, 0] == drawn[0, 0, 0, 0]).all(), "an even attention is warm everywhere"
    warmth = [float(drawn[0, frame, 0, 0, 0]) - float(drawn[0, frame, 0, 0, 2]) for frame in range(2)]
    assert 0 < warmth[1] < 0.4 * warmth[0]


def test_grids_grow_linearly_between_the_centres_of_their_cells() -> None:
    found = enlarged(np.array([[0.0, 1.0], [2.0, 3.0]]), 4, 8)
    np.testing.assert_allclose(found[0], [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])
    np.testing.assert_allclose(found[:, 0], [0, 0.5, 1.5, 2])
    np.testing.assert_array_equal(enlarged(np.array([[5.0]]), 2, 3), np.full((2, 3), 5.0))
    torch = pytest.importorskip("torch", reason="torch's resize is the oracle")
    grid = np.random.default_rng(0).random((3, 7, 7))
    theirs = torch.nn.functional.interpolate(torch.from_numpy(grid)[None], (30, 41), mode="bilinear")[0]
    np.testing.assert_allclose(enlarged(grid, 30, 41), theirs.numpy(), atol=1e-12)


def test_the_picture_is_written(tmp_path) -> None:
    path = save_caption(frames(2), [0.0, 1.0], CAPTIONS, attention(3, 2), tmp_path / "caption.png")
    picture = read_image(path)
    assert picture.shape[1] == pytest.approx(5.5 * 120, abs=1)
    assert picture.std() > 10
