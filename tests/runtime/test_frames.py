"""Which frames are taken, and how they are made smaller: against formulas written down by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import BundleError, InputError, TooLargeError
from runtime.media.clips import _each_in_its_part
from runtime.media.frames import FrameSampling, check_clip_size, reduced


@pytest.mark.parametrize(
    ("sampling", "count", "expected"),
    [
        (FrameSampling.even(4), 100, [12, 37, 62, 87]),
        (FrameSampling.even(3), 3, [0, 1, 2]),
        (FrameSampling.even(8), 5, [0, 1, 2, 3, 4]),
        (FrameSampling.even(1), 11, [5]),
        (FrameSampling.every(10, most=32), 35, [0, 10, 20, 30]),
        (FrameSampling.every(10, most=3), 30, [0, 10, 20]),
        (FrameSampling.every(10, most=3), 31, [0, 20]),
        (FrameSampling.every(10, most=1), 1000, [0]),
        (FrameSampling.every(1, most=4), 17, [0, 8, 16]),
    ],
)
def test_frames_that_are_taken(sampling: FrameSampling, count: int, expected: list[int]) -> None:
    assert sampling.indices(count) == expected


@given(st.integers(1, 256), st.integers(1, 5000))
def test_even_takes_the_frame_in_the_middle_of_each_part(n: int, count: int) -> None:
    indices = FrameSampling.even(n).indices(count)
    assert len(indices) == min(n, count)
    if count > n:
        middles = (np.arange(n) + 0.5) * count / n
        assert all(index <= middle < index + 1 for index, middle in zip(indices, middles, strict=True))
    assert _each_in_its_part(indices, FrameSampling.even(n), count)


@given(st.integers(1, 40), st.integers(1, 64), st.integers(1, 5000))
def test_every_never_takes_too_many_nor_fewer_than_it_could(n: int, most: int, count: int) -> None:
    indices = FrameSampling.every(n, most=most).indices(count)
    assert indices[0] == 0
    assert len(indices) <= most
    if len(indices) > 1:
        step = indices[1]
        assert np.diff(indices).tolist() == [step] * (len(indices) - 1)
        if step != n:
            assert step % (2 * n) == 0
            assert len(range(0, count, step // 2)) > most


@pytest.mark.parametrize(
    "data",
    [{"kind": "even", "n": 8}, {"kind": "every", "n": 10, "most": 32}],
)
def test_settings_there_and_back(data: dict[str, object]) -> None:
    assert FrameSampling.from_json(data).to_json() == data


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"kind": "even"},
        {"kind": "odd", "n": 8},
        {"kind": ["even"], "n": 8},
        {"kind": "even", "n": 8, "most": 3},
        {"kind": "every", "n": 8},
        {"kind": "even", "n": 0},
        {"kind": "even", "n": 257},
        {"kind": "even", "n": 8.0},
        {"kind": "even", "n": True},
        {"kind": "every", "n": 10, "most": 0},
        {"kind": "every", "n": -1, "most": 4},
        {"kind": "every", "n": 10, "most": "4"},
        {"kind": "even", "n": 8, "offset": 1},
    ],
)
def test_settings_that_do_not_fit(data: object) -> None:
    with pytest.raises(BundleError, match="frame sampling"):
        FrameSampling.from_json(data)


def test_sampling_in_code_is_checked_too() -> None:
    with pytest.raises(InputError, match="expected a whole number"):
        FrameSampling.even(0)
    with pytest.raises(InputError, match="n only"):
        FrameSampling("even", 8, 3)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(0, 10**6))
def test_a_reduced_frame_is_the_mean_of_squares(height: int, width: int, shorter: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    small = reduced(image, shorter)
    if min(height, width) <= shorter:
        assert small is image
        return
    side = min(small.shape[:2])
    assert shorter / 2 <= side <= shorter
    factor = -(-min(height, width) // shorter)
    rows, columns = height // factor, width // factor
    top, left = (height - rows * factor) // 2, (width - columns * factor) // 2
    squares = image[top : top + rows * factor, left : left + columns * factor].astype(np.float64)
    means = squares.reshape(rows, factor, columns, factor, 3).mean((1, 3))
    np.testing.assert_allclose(small, means, atol=0.5 + 1e-9)


def test_frames_as_they_are_without_a_limit() -> None:
    image = np.zeros((500, 700, 3), np.uint8)
    assert reduced(image, None) is image
    assert reduced(image, 448).shape == (250, 350, 3)


def test_a_clip_that_would_fill_the_memory() -> None:
    check_clip_size((1080, 1920, 3), 10)
    with pytest.raises(TooLargeError, match="11 frames of 1920×1080 pixels take 68428800 bytes, at most 67108864"):
        check_clip_size((1080, 1920, 3), 11)
