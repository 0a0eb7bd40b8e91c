"""Drawing a token from what a language model expects: temperature, top-k and a seed.

With log-probabilities log p, temperature τ and top-k k, token i is drawn with the probability

    q_i ∝ p_i^(1/τ) for the k most probable tokens, else 0,

which for τ → 0 or k = 1 is the most probable token, and for τ = 1 without k the model's own soft-max. The drawing is
by inversion: the first token whose cumulated probability exceeds a number from [0, 1). So a caller in any language
needs a sum and a comparison, and the same numbers give the same text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError

HOTTEST = 100.0
"""Beyond it all tokens are as good as equally likely."""

LARGEST_SEED = 2**64 - 1


def check_sampling(temperature: float, top_k: int, seed: int) -> None:
    """Refuses what cannot be sampled with.

    Raises:
        InputError: the temperature is not from 0 to `HOTTEST`, or top-k or the seed no whole number from 0.
    """
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not number or not math.isfinite(temperature) or not 0 <= temperature <= HOTTEST:
        raise InputError(
            f"the temperature is {temperature!r}; expected a number from 0 (always the likeliest) to {HOTTEST:g}"
        )
    if type(top_k) is not int or top_k < 0:
        raise InputError(f"top-k is {top_k!r}; expected a whole number, 0 for all characters")
    if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"the seed is {seed!r}; expected a whole number from 0 to 2**64 - 1")


def sampling_weights(
    log_probabilities: NDArray[np.floating], temperature: float, top_k: int = 0
) -> NDArray[np.float64]:
    """The probabilities that tokens are drawn with.

    Args:
        log_probabilities: (V,) of the model, up to a constant; −inf for a token that must not come. At least one is
            finite, none is NaN.
        temperature: from 0.
        top_k: only so many of the likeliest count; 0: all. Of equally likely ones those with the lower token.

    Returns:
        (V,), summing to 1.
    """
    scores = np.asarray(log_probabilities, np.float64)
    if temperature == 0:
        top_k, temperature = 1, 1.0
    if 0 < top_k < len(scores):
        kept = np.argsort(-scores, kind="stable")[:top_k]
        masked = np.full_like(scores, -np.inf)
        masked[kept] = scores[kept]
        scores = masked
    with np.errstate(over="ignore"):  # a temperature of 1e-300 sends all but the best to −inf, which is right
        weights = np.exp((scores - scores.max()) / temperature)
    return np.asarray(weights / weights.sum(), np.float64)


def draw_token(weights: NDArray[np.float64], number: float) -> int:
    """The token that a number from [0, 1) falls on; one of weight 0 never comes."""
    cumulated = np.cumsum(weights)
    token = int(np.searchsorted(cumulated, number * cumulated[-1], side="right"))
    return min(token, int(np.flatnonzero(weights)[-1]))  # the product may round up to the whole sum


def uniform_numbers(seed: int) -> Iterator[float]:
    """Numbers from [0, 1) without end, the same everywhere.

    Taken from the raw bits of PCG64, which numpy promises not to change; what its `Generator` makes of them it may.
    """
    bits = np.random.PCG64(seed)
    while True:
        yield (int(bits.random_raw()) >> 11) * 2.0**-53
