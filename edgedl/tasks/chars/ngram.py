"""What a language model has to beat: the n characters before, counted. Needs no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError

Tokens = NDArray[np.int64]

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Among which the smoothing of each order is chosen."""

CHOSEN_ON = 10
"""One part in so many of the training text, its end, chooses the smoothing."""


class NGram:
    """An n-gram model whose orders are interpolated by counts (hierarchical Dirichlet prior, MacKay and Peto 1995).

    With c counts, h a context and h' the same without its first token,

        p(t | h) = (c(h t) + α·p(t | h')) / (c(h) + α)

    down to no context at all, below which every token is equally likely.

    Args:
        tokens: (n,) to count.
        size: V, how many tokens there are.
        strengths: α of each order, from no context on; their number is the order of the model.
    """

    def __init__(self, tokens: Tokens, size: int, strengths: tuple[float, ...]) -> None:
        order = len(strengths)
        if float(size) ** order >= 2.0**62:
            raise InputError(f"{size} characters are too many for a model of order {order}")
        self.size, self.strengths = size, strengths
        self._tables = [_count(_keys(tokens, size, width + 1)) for width in range(order)]

    def probabilities(self, tokens: Tokens, before: Tokens) -> NDArray[np.float64]:
        """What each token was given after those before it.

        Args:
            tokens: (n,).
            before: what stands before them, at least order − 1 tokens.

        Returns:
            (n,).
        """
        order = len(self.strengths)
        if len(before) < order - 1:
            raise InputError(f"a model of order {order} needs {order - 1} tokens before the first one")
        joined = np.concatenate([before[len(before) - order + 1 :], tokens])
        found = np.full(len(tokens), 1 / self.size)
        for width, strength in enumerate(self.strengths):
            start = order - 1 - width
            seen = _look_up(self._tables[width], _keys(joined[start:], self.size, width + 1))
            context = _keys(joined[start : len(joined) - 1], self.size, width) if width else None
            # Counted where a token follows: the end of the text is a context of nothing.
            total = self._totals(width, context, len(tokens))
            found = (seen + strength * found) / (total + strength)
        return found

    def nats(self, tokens: Tokens, before: Tokens) -> float:
        """Mean −log p of the tokens."""
        return float(-np.log(self.probabilities(tokens, before)).mean())

    def _totals(self, width: int, context: NDArray[np.int64] | None, count: int) -> NDArray[np.float64]:
        keys, counts = self._tables[width]
        if context is None:
            return np.full(count, float(counts.sum()))
        contexts, where = np.unique(keys // self.size, return_inverse=True)
        return _look_up((contexts, np.bincount(where, weights=counts).astype(np.float64)), context)


def fit_ngram(tokens: Tokens, size: int, order: int = 3) -> NGram:
    """Counts all of a training text, with the smoothing that fits its last tenth best after the rest.

    Each order's strength is chosen in turn, from below, with those above not yet there.

    Args:
        tokens: (n,) of the training text only.
        size: V.
        order: of the model; 3 for a trigram.
    """
    cut = len(tokens) - len(tokens) // CHOSEN_ON
    if cut < order:
        raise InputError(f"{len(tokens)} tokens are too few for a model of order {order}")
    chosen: tuple[float, ...] = ()
    for _ in range(order):
        candidates = [(*chosen, strength) for strength in STRENGTHS]
        chosen = min(candidates, key=lambda s: NGram(tokens[:cut], size, s).nats(tokens[cut:], tokens[:cut]))
    return NGram(tokens, size, chosen)


def _keys(tokens: Tokens, size: int, width: int) -> NDArray[np.int64]:
    """One number for each run of ``width`` tokens: (n − width + 1,)."""
    count = len(tokens) - width + 1
    keys = np.zeros(max(count, 0), np.int64)
    for place in range(width):
        keys = keys * size + tokens[place : place + count]
    return keys


def _count(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    found, counts = np.unique(keys, return_counts=True)
    return found, counts.astype(np.float64)


def _look_up(table: tuple[NDArray[np.int64], NDArray[np.float64]], keys: NDArray[np.int64]) -> NDArray[np.float64]:
    known, counts = table
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[places] == keys, counts[places], 0.0)
