"""Sampling against closed formulas: the soft-max itself, its limits, and frequencies by chi-square."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from runtime.errors import InputError
from runtime.sampling import check_sampling, draw_token, sampling_weights, uniform_numbers

SCORES = np.log(np.array([0.05, 0.4, 0.25, 0.2, 0.1]))
PROBABILITIES = st.lists(st.floats(1e-6, 1), min_size=2, max_size=30).map(np.array)


@given(PROBABILITIES, st.floats(0.05, 5))
def test_a_temperature_is_a_power_of_the_probabilities(p: np.ndarray, temperature: float) -> None:
    # In logarithms of long doubles: p^(1/τ) itself would vanish.
    powers = np.log(p.astype(np.longdouble)) / temperature
    expected = np.exp(powers - np.logaddexp.reduce(powers))
    np.testing.assert_allclose(sampling_weights(np.log(p), temperature), expected.astype(float), rtol=1e-9, atol=1e-300)


def test_at_one_it_is_the_softmax_whatever_the_constant() -> None:
    np.testing.assert_allclose(sampling_weights(SCORES + 700, 1), [0.05, 0.4, 0.25, 0.2, 0.1], rtol=1e-12)


@given(PROBABILITIES, st.sampled_from([0, 0.0, 1e-300, 1e-9]))
def test_towards_zero_it_is_the_likeliest(p: np.ndarray, temperature: float) -> None:
    weights = sampling_weights(np.log(p), temperature)
    # Float64 itself cannot tell apart what differs by less than the temperature.
    best = np.log(p) >= np.log(p).max() - 100 * temperature
    assert weights[best].sum() == pytest.approx(1)
    if temperature == 0:
        assert weights.tolist() == [float(i == p.argmax()) for i in range(len(p))]


@given(PROBABILITIES, st.floats(0, 100))
def test_one_of_the_likeliest_is_the_likeliest(p: np.ndarray, temperature: float) -> None:
    assert sampling_weights(np.log(p), temperature, 1).argmax() == np.log(p).argmax()
    assert np.count_nonzero(sampling_weights(np.log(p), temperature, 1)) == 1


@given(PROBABILITIES, st.integers(1, 40))
def test_top_k_keeps_the_likeliest_and_their_proportions(p: np.ndarray, top_k: int) -> None:
    weights = sampling_weights(np.log(p), 1.0, top_k)
    kept = np.flatnonzero(weights)
    assert len(kept) == min(top_k, len(p))
    assert np.delete(p, kept).max(initial=0) <= p[kept].min()
    np.testing.assert_allclose(weights[kept], p[kept] / p[kept].sum(), rtol=1e-9)


def test_of_equals_the_lower_tokens_are_kept() -> None:
    assert sampling_weights(np.zeros(5), 1.0, 2).tolist() == [0.5, 0.5, 0, 0, 0]


def test_what_must_not_come_never_comes() -> None:
    weights = sampling_weights(np.array([-np.inf, 0, -np.inf]), 50.0)
    assert weights.tolist() == [0, 1, 0]
    assert {draw_token(weights, number) for number in (0.0, 0.5, math.nextafter(1, 0))} == {1}


@given(PROBABILITIES, st.floats(0, 1, exclude_max=True))
def test_a_number_falls_on_the_token_whose_part_of_the_line_holds_it(p: np.ndarray, number: float) -> None:
    weights = p / p.sum()
    token = draw_token(weights, number)
    assert weights[:token].sum() <= number + 1e-12
    assert weights[: token + 1].sum() >= number - 1e-12


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 0), (0.5, 0), (2.0, 3)])
def test_the_frequencies_are_the_weights(temperature: float, top_k: int) -> None:
    """Chi-square over 40,000 draws; the seed is fixed, so that the test does not fail once in a thousand runs."""
    weights = sampling_weights(SCORES, temperature, top_k)
    drawn = [draw_token(weights, number) for number in islice(uniform_numbers(7), 40_000)]
    counts = np.bincount(drawn, minlength=len(weights))
    assert not counts[weights == 0].any()
    there = weights > 0
    assert stats.chisquare(counts[there], 40_000 * weights[there]).pvalue > 0.001
    # The test can fail: at a temperature half as high again, these counts are beyond belief.
    other = sampling_weights(SCORES, 1.5 * temperature, top_k)[there]
    assert stats.chisquare(counts[there], 40_000 * other).pvalue < 1e-6


def test_the_numbers_are_those_of_the_bits() -> None:
    """PCG64 seeded with 0 gives 0.6369616873214543 as numpy's first double: a number well known from its pages."""
    assert next(uniform_numbers(0)) == 0.6369616873214543
    numbers = np.array(list(islice(uniform_numbers(3), 10_000)))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers, "uniform").pvalue > 0.001
    assert list(islice(uniform_numbers(3), 5)) == numbers[:5].tolist() != list(islice(uniform_numbers(4), 5))


@pytest.mark.parametrize("temperature", [-0.1, 101, math.nan, math.inf, "1", None, True], ids=repr)
def test_a_temperature_that_is_none_is_refused(temperature: Any) -> None:
    with pytest.raises(InputError, match="the temperature is"):
        check_sampling(temperature, 0, 0)


@pytest.mark.parametrize("number", [-1, 1.5, "3", None, True], ids=repr)
def test_top_k_and_seed_are_whole_numbers(number: Any) -> None:
    with pytest.raises(InputError, match="top-k is"):
        check_sampling(1, number, 0)
    with pytest.raises(InputError, match="the seed is"):
        check_sampling(1, 0, number)
    with pytest.raises(InputError, match="the seed is"):
        check_sampling(1, 0, 2**64)
