"""Finding the ink: the data's own pictures stay as they are, and the same digit on a sheet is found again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedl.data.digits import embedded_digits
from edgedl.tasks.digits.ink import Ink


def ink(pixels: np.ndarray) -> np.ndarray:
    return Ink()(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()


def test_the_datas_pictures_are_stretched_and_otherwise_as_they_are():
    pixels = embedded_digits("all").pixels
    grey = pixels[..., 0].astype(np.float64)
    expected = grey / grey.max(axis=(1, 2), keepdims=True)  # every one has an empty corner
    np.testing.assert_allclose(ink(pixels), expected, atol=1e-6)


def test_dark_on_bright_is_the_same_digit():
    pixels = embedded_digits("test").pixels
    np.testing.assert_allclose(ink(255 - pixels), ink(pixels), atol=1e-6)


@settings(max_examples=40)
@given(
    zoom=st.integers(3, 9),
    margins=st.tuples(*[st.integers(1, 40)] * 4),
    row=st.integers(0, 200),
    bright=st.booleans(),
)
def test_a_digit_on_a_sheet_is_framed_wherever_it_lies(zoom, margins, row, bright):
    """The frame depends on the digit alone: margins, polarity and place change nothing."""
    above, below, left, right = margins
    digit = embedded_digits("test").pixels[row]
    large = digit.repeat(zoom, axis=0).repeat(zoom, axis=1)
    tight = np.pad(large, ((1, 1), (1, 1), (0, 0)))
    sheet = np.pad(large, ((above, below), (left, right), (0, 0)))
    found = ink((sheet if bright else 255 - sheet)[None])
    np.testing.assert_allclose(found, ink(tight[None]), atol=2e-6)


def test_a_bar_fills_the_frame_as_the_data_do():
    sheet = np.zeros((1, 40, 60, 3), np.uint8)
    sheet[0, 4:36, 20:28] = 255  # 32 high, 8 wide: two of eight cells, in the middle
    expected = np.zeros((8, 8))
    expected[:, 3:5] = 1
    np.testing.assert_array_equal(ink(sheet)[0], expected)


def test_averaging_is_the_datas_own_block_count():
    """Alpaydin and Kaynak count the points in blocks of 4×4 of a bitmap of 32×32 that the digit fills."""
    bitmap = np.random.default_rng(0).integers(0, 2, (32, 32))
    bitmap[0, :26] = bitmap[-1, :26] = 1  # fills the height, and 26 columns at most
    bitmap[:, :3] = bitmap[:, 29:] = 0
    bitmap[5, 3] = bitmap[5, 28] = 1
    sheet = np.repeat(bitmap[..., None] * 255, 3, axis=2).astype(np.uint8)
    counts = bitmap.reshape(8, 4, 8, 4).sum(axis=(1, 3))
    # 26 columns × 1.25 is 32.5: a frame of that width around the middle of columns 3 … 28
    found = ink(sheet[None])[0]
    assert np.abs(found.sum(axis=1) * 32.5 / 8 - counts.sum(axis=1) * 32 / 8 / 16).max() < 1e-5


@pytest.mark.parametrize("level", [0, 9, 255])
@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (40, 28)])
def test_a_picture_of_one_colour_has_no_ink(level, shape):
    found = ink(np.full((2, *shape, 3), level, np.uint8))
    np.testing.assert_array_equal(found, np.zeros((2, 8, 8)))


def test_faint_noise_is_not_stretched():
    noise = np.random.default_rng(0).integers(200, 203, (1, 30, 30, 3), dtype=np.uint8)
    assert ink(noise).max() < 0.15


def test_each_picture_of_a_batch_is_framed_by_itself():
    sheet = np.zeros((2, 40, 40, 3), np.uint8)
    sheet[0, 2:20, 3:9] = 255
    sheet[1, 25:39, 20:39] = 200
    alone = np.concatenate([ink(sheet[:1]), ink(sheet[1:])])
    np.testing.assert_array_equal(ink(sheet), alone)
