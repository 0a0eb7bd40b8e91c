"""What the embedded captioner learns from: features, and features recombined."""

from __future__ import annotations

import numpy as np
import pytest

from edgedl.tasks.caption.data.bouncing_digits import ABSENT, BouncingDigits
from edgedl.tasks.caption.digits import features_of, recombine
from edgedl.tasks.caption.network.strided import GRID, StridedEncoder

TRACE = slice(0, 2 * GRID)


@pytest.fixture(scope="module")
def digits() -> BouncingDigits:
    return BouncingDigits(seed=0, train=64, validation=8).split("train")


@pytest.fixture(scope="module")
def features(digits) -> np.ndarray:
    """A number of its own for each clip and word, (n, T, W, F)."""
    numbers = np.arange(len(digits) * 10, dtype=np.float16).reshape(len(digits), 1, 10, 1)
    return np.broadcast_to(numbers, (len(digits), 2, 10, 2 * GRID + 11)).copy()


def test_digits_that_jump_get_the_traces_of_digits_that_move(digits, features):
    mixed = recombine(features, digits)
    jumping, told = digits.jumping(), digits.digits()
    np.testing.assert_array_equal(mixed[~jumping], features[~jumping])
    np.testing.assert_array_equal(mixed[..., 2 * GRID :], features[..., 2 * GRID :])
    seen = set()
    for clip in np.flatnonzero(jumping):
        present = {int(digit) for digit in told[clip] if digit != ABSENT}
        for word in range(10):
            trace = mixed[clip, :, word, TRACE]
            if word not in present:
                np.testing.assert_array_equal(trace, features[clip, :, word, TRACE])
                continue
            giver, digit = divmod(int(trace[0, 0]), 10)
            assert not jumping[giver]
            assert digit in told[giver]
            assert (told[giver] != ABSENT).sum() == (told[clip] != ABSENT).sum()
            seen.add((digit, word))
    assert any(digit != word for digit, word in seen), "a digit is seen with the trace of another"


def test_the_second_view_is_for_training_alone(digits):
    encoder = StridedEncoder(10).eval()
    assert list(features_of(encoder, digits).views) == ["plain"]
    assert list(features_of(encoder, digits, recombined=True).views) == ["plain", "recombined"]
