"""The n-gram model: its formula by hand, a distribution whatever comes, the entropy of a source of its order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedl.tasks.chars.ngram import STRENGTHS, NGram, fit_ngram
from runtime.errors import InputError


def by_hand(tokens: list[int], size: int, strengths: tuple[float, ...], history: tuple[int, ...], token: int) -> float:
    """The formula of the class, with counters of tuples."""
    if not strengths:
        return 1 / size
    width = len(strengths) - 1
    context = history[len(history) - width :]
    runs = Counter(tuple(tokens[k : k + width + 1]) for k in range(len(tokens) - width))
    seen = runs[(*context, token)]
    total = sum(runs[(*context, other)] for other in range(size))
    below = by_hand(tokens, size, strengths[:-1], history, token)
    return (seen + strengths[-1] * below) / (total + strengths[-1])


@settings(max_examples=40)
@given(
    tokens=st.lists(st.integers(0, 3), min_size=4, max_size=40),
    judged=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    strengths=st.lists(st.floats(0.01, 50), min_size=1, max_size=4).map(tuple),
)
def test_the_formula(tokens: list[int], judged: list[int], strengths: tuple[float, ...]) -> None:
    model, before = NGram(np.array(tokens), 4, strengths), np.array([1, 0, 3])
    found = model.probabilities(np.array(judged), before)
    history = [1, 0, 3, *judged]
    expected = [by_hand(tokens, 4, strengths, tuple(history[: 3 + k]), token) for k, token in enumerate(judged)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@given(st.lists(st.integers(0, 4), min_size=5, max_size=60), st.tuples(st.integers(0, 4), st.integers(0, 4)))
def test_it_is_a_distribution(tokens: list[int], before: tuple[int, int]) -> None:
    model = NGram(np.array(tokens), 5, (1.0, 0.3, 3.0))
    shares = [model.probabilities(np.array([token]), np.array(before))[0] for token in range(5)]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0


def test_it_finds_the_entropy_of_a_source_of_its_order() -> None:
    """Tokens drawn from a table of two before: a trigram reaches the table's own cross-entropy, a bigram does not."""
    chance = np.random.default_rng(0)
    table = chance.dirichlet(np.full(5, 0.4), (5, 5))
    tokens = [0, 0]
    nats = []
    for _ in range(60_000):
        weights = table[tokens[-2], tokens[-1]]
        tokens.append(int(chance.choice(5, p=weights)))
        nats.append(-np.log(weights[tokens[-1]]))
    train, test = np.array(tokens[:50_000]), np.array(tokens[50_000:])
    truth = float(np.mean(nats[49_998:]))
    assert fit_ngram(train, 5, 3).nats(test, train) == pytest.approx(truth, abs=0.01)
    assert fit_ngram(train, 5, 2).nats(test, train) > truth + 0.1


def test_the_smoothing_is_chosen_on_training_text() -> None:
    train = np.random.default_rng(1).integers(0, 6, 3000)
    model = fit_ngram(train, 6, 3)
    # Where no order knows anything, the most is trusted to the one below.
    assert model.strengths == (STRENGTHS[-1],) * 3
    assert model.nats(train[:50], train) < np.log(6) + 0.05


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(InputError, match="too few"):
        fit_ngram(np.array([0, 1]), 2, 3)
    with pytest.raises(InputError, match="needs 2 tokens before"):
        NGram(np.arange(9) % 2, 2, (1.0, 1.0, 1.0)).nats(np.array([0]), np.array([1]))
    with pytest.raises(InputError, match="too many for a model of order 5"):
        NGram(np.arange(9), 10_000, (1.0,) * 5)
