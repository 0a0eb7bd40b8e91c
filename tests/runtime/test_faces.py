"""Crops by hand: DEX's margin crop, and the alignment."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import BundleError
from runtime.faces import (
    AlignedCrop,
    Detection,
    MarginCrop,
    crop_from_json,
    crop_to_json,
    cut,
    framed,
    halved,
    margin_crop,
    matlab_round,
    overlap,
    shrunk,
    similarity,
    warp,
)

ROW_OF_TEN = np.arange(10, dtype=np.uint8)


def numbered(height: int, width: int) -> np.ndarray:
    """Every pixel tells its row in red and its column in green."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(height)[:, None]
    image[..., 1] = np.arange(width)[None, :]
    return image


@pytest.mark.parametrize(
    ("x", "rounded"),
    [(0.5, 1), (1.5, 2), (2.5, 3), (-0.5, -1), (-1.5, -2), (-2.5, -3), (2.4, 2), (-2.4, -2), (0.0, 0), (7.0, 7)],
)
def test_rounding_is_matlabs(x, rounded):
    """MATLAB's round, half away from zero: Python's gives 0, 2, 2, 0, -2, -2 for the first six."""
    assert matlab_round(x) == rounded


def test_margin_crop_inside():
    # x: 10..19 is 10 wide, 0.4 of it 4: 6..23; y: 10..14 is 5 high, 0.4 of it 2: 8..16.
    crop = margin_crop(numbered(40, 40), (10, 10, 19, 14), 0.4)
    assert crop.shape == (9, 18, 3)
    assert crop[0, 0, :2].tolist() == [8, 6]
    assert crop[-1, -1, :2].tolist() == [16, 23]


def test_margin_crop_repeats_the_border():
    # x: 0..4, w = 5, margin 2: -2..6 of 0..5; y: 1..3, h = 3, 0.4·3 = 1.2: round(-0.2) = 0 .. round(4.2) = 4.
    crop = margin_crop(numbered(5, 6), (0, 1, 4, 3), 0.4)
    assert crop[..., 1].tolist() == [[0, 0, 0, 1, 2, 3, 4, 5, 5]] * 5
    assert crop[:, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_margin_crop_rounds_half_away_from_zero():
    # 0.5 of w = 3 is 1.5: round(1 - 1.5) = round(-0.5) = -1 and round(3 + 1.5) = round(4.5) = 5; Python has 0 and 4.
    crop = margin_crop(numbered(3, 8), (1, 0, 3, 2), 0.5)
    assert crop[1, :, 1].tolist() == [0, 0, 1, 2, 3, 4, 5]


def test_a_detection_is_cropped_by_its_edges():
    """A box whose edges are 10 and 20 holds pixels 10..19."""
    face = Detection(np.array([10, 10, 20, 15], np.float32), 0.9, np.zeros((6, 2), np.float32))
    image = numbered(40, 40)
    np.testing.assert_array_equal(MarginCrop(0.4)(image, face), margin_crop(image, (10, 10, 19, 14), 0.4))


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(-20, 20),
    st.integers(-20, 20),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_cut_is_numpys_edge_padding(height, width, x, y, across, down):
    image = numbered(height, width)
    pad = 45
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    expected = padded[y + pad : y + down + pad + 1, x + pad : x + across + pad + 1]
    np.testing.assert_array_equal(cut(image, x, y, x + across, y + down), expected)


def test_frame_says_how_wide_it_is():
    inside, across, down = framed(numbered(10, 20), 0.5)
    assert (across, down) == (10, 5)
    assert inside.shape == (20, 40, 3)
    np.testing.assert_array_equal(inside[5:15, 10:30], numbered(10, 20))


@given(
    st.floats(-math.pi, math.pi),
    st.floats(0.1, 10),
    st.floats(-50, 50),
    st.floats(-50, 50),
)
def test_similarity_finds_the_turn_it_was_made_with(angle, scale, x, y):
    points = np.array([[0.0, 0.0], [10.0, 1.0], [4.0, 8.0], [-3.0, 5.0]])
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    found = similarity(points, points @ turn.T + [x, y], np.array([1.0, 2.0, 0.5, 1.0]))
    np.testing.assert_allclose(found, np.column_stack([turn, [x, y]]), atol=1e-9 * max(1, scale))


def test_similarity_is_the_least_squares_answer():
    """Against numpy's solver on the linear form a, b, tx, ty of the weighted problem."""
    chance = np.random.default_rng(1)
    source, target, weights = chance.normal(size=(6, 2)), chance.normal(size=(6, 2)), chance.uniform(0.1, 2, 6)
    rows, right = [], []
    for (x, y), (u, v), w in zip(source, target, np.sqrt(weights), strict=True):
        rows += [[w * x, -w * y, w, 0], [w * y, w * x, 0, w]]
        right += [w * u, w * v]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    np.testing.assert_allclose(similarity(source, target, weights), [[a, -b, tx], [b, a, ty]], atol=1e-12)


def test_similarity_of_one_place_is_a_shift():
    found = similarity(np.full((3, 2), 4.0), np.full((3, 2), 9.0), np.ones(3))
    np.testing.assert_allclose(found, [[1, 0, 5], [0, 1, 5]])


def test_warp_by_a_whole_shift_is_a_cut():
    pytest.importorskip("cv2")
    image = numbered(30, 30)
    shifted = warp(image, np.array([[1.0, 0.0, -7.0], [0.0, 1.0, -3.0]]), 16)
    np.testing.assert_array_equal(shifted, image[3:19, 7:23])


def test_warp_halves_about_pixel_edges():
    """Scaled by one half, pixel (0, 0) of the result lies in the middle of four: level (0 + 1) / 2 of the columns."""
    pytest.importorskip("cv2")
    image = np.repeat((ROW_OF_TEN * 20)[None, :, None], 10, axis=0).repeat(3, axis=2)
    halved = warp(image, np.array([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]), 5)
    assert halved[2, :, 0].tolist() == [10, 50, 90, 130, 170]


@pytest.mark.parametrize(("eyes_apart", "side"), [(10, 64), (24, 64), (40, 128), (80, 128), (500, 128)])
def test_aligned_crop_keeps_the_resolution_and_shares_batches(eyes_apart, side):
    """The network's side where the face has no more pixels, else twice that."""
    pytest.importorskip("cv2")
    crop = AlignedCrop(64, ((0.3, 0.3), (0.7, 0.3)), (1.0, 1.0))
    keypoints = np.array([[100, 100], [100 + eyes_apart, 100]], np.float32)
    image = np.zeros((300, 300, 3), np.uint8)
    assert crop(image, Detection(np.zeros(4, np.float32), 1.0, keypoints)).shape == (side, side, 3)


def test_aligned_crop_brings_the_keypoints_home():
    pytest.importorskip("cv2")
    image = np.zeros((200, 200, 3), np.uint8)
    keypoints = np.array([[60.5, 90.5], [120.5, 70.5]], np.float32)
    for x, y in keypoints:
        image[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3] = 255
    crop = AlignedCrop(64, ((0.3, 0.4), (0.7, 0.4)), (1.0, 1.0))(
        image, Detection(np.zeros(4, np.float32), 1.0, keypoints)
    )
    rows, columns = np.nonzero(crop[..., 0] > 127)
    side = crop.shape[0]
    left = columns < side / 2
    assert rows.mean() / side == pytest.approx(0.4, abs=0.01)
    assert columns[left].mean() / side == pytest.approx(0.3, abs=0.01)
    assert columns[~left].mean() / side == pytest.approx(0.7, abs=0.01)


def test_overlap_by_hand():
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6], [0, 0, 4, 1]], float)
    np.testing.assert_allclose(overlap(np.array([0, 0, 2, 2.0]), boxes), [1, 1 / 7, 0, 2 / 6])


@pytest.mark.parametrize("crop", [MarginCrop(0.4), AlignedCrop(64, ((0.3, 0.3), (0.7, 0.3)), (1.0, 0.5))])
def test_settings_survive_json(crop):
    assert crop_from_json(crop_to_json(crop)) == crop


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "oval"},
        {"kind": "margin"},
        {"kind": "margin", "margin": "wide"},
        {"kind": "margin", "margin": 0.4, "left": 1},
        {"kind": "aligned", "size": 64, "template": [[0, 0]], "weights": [1]},
        {"kind": "aligned", "size": 64, "template": [[0, 0], [1, 0]], "weights": [1]},
    ],
    ids=str,
)
def test_settings_that_cannot_be_read_are_refused(data):
    with pytest.raises(BundleError, match="crop"):
        crop_from_json(data)


@pytest.mark.parametrize(("factor", "times"), [(1, 1), (1.99, 1), (2, 2), (3.9, 2), (4, 4), (100, 16)])
def test_halving_is_the_mean_of_blocks(factor, times):
    """As often as the factor allows, down to a single row; what does not fill a block is left out."""
    pytest.importorskip("cv2")
    image = (numbered(21, 37).astype(int) * 7 % 256).astype(np.uint8)
    small, done = halved(image, factor)
    assert done == times
    whole = image[: 21 // times * times, : 37 // times * times].astype(float)
    means = whole.reshape(21 // times, times, 37 // times, times, 3).mean(axis=(1, 3))
    assert small.shape == means.shape
    assert np.abs(small - means).max() <= 0.5 * np.log2(max(times, 2)), "half a level of rounding each time"


@pytest.mark.parametrize(("side", "wanted"), [(96, 96), (95, 95), (97, 96), (200, 96), (700, 96)])
def test_shrinking_keeps_the_mean_and_never_enlarges(side, wanted):
    pytest.importorskip("cv2")
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    small = shrunk(image, 96)
    assert small.shape == (wanted, wanted, 3)
    assert abs(float(small.mean()) - float(image.mean())) < 1


def test_a_large_face_is_averaged_before_it_is_turned():
    """Eight times as large as the crop and striped finer than it: sampling would show stripes, a mean shows grey."""
    pytest.importorskip("cv2")
    crop = AlignedCrop(64, ((0.3, 0.3), (0.7, 0.3)), (1.0, 1.0))
    image = np.zeros((1100, 1100, 3), np.uint8)
    image[:, ::2] = 200
    face = Detection(np.zeros(4), 0.9, np.array([[350.0, 350.0], [760.0, 345.0]]))
    inner = crop(image, face)[8:-8, 8:-8]
    assert inner.shape == (112, 112, 3)
    assert np.abs(inner.astype(int) - 100).max() <= 2


def test_a_large_face_lands_where_a_small_one_does():
    """Smooth levels, so that no resampling matters: rendered from eight times the pixels the crop is the same."""
    pytest.importorskip("cv2")
    crop = AlignedCrop(32, ((0.3, 0.3), (0.7, 0.32)), (1.0, 1.0))
    y, x = np.mgrid[0:160, 0:200] + 0.5
    small = np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8)
    y, x = (np.mgrid[0:1280, 0:1600] + 0.5) / 8
    large = np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8)
    keypoints = np.array([[60.0, 70.0], [76.0, 74.0]])
    one = crop(small, Detection(np.zeros(4), 0.9, keypoints))
    other = crop(large, Detection(np.zeros(4), 0.9, keypoints * 8))
    assert one.shape == other.shape == (64, 64, 3)
    assert np.abs(one.astype(int) - other).max() <= 2
