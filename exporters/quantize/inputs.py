"""Real calls of each model: what the pipeline feeds its engines while it answers a part of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporters.quantize.judge import AnyJudge, Part
from runtime.axes import batch_axes
from runtime.bundle import Bundle
from runtime.manifest import ModelSpec

Feed = dict[str, NDArray[Any]]
MOST_BYTES = 256 << 20
"""Of the calls of one model that are kept. Photos are large; those that come after are not kept."""


class Call(NamedTuple):
    """What a session was fed, and what it answered."""

    feed: Feed
    answers: dict[str, NDArray[Any]]


class Recorder:
    """Runs a session and keeps the calls."""

    def __init__(self, session: Any, kept: list[Call]) -> None:
        self._session = session
        self._kept = kept
        self._bytes = 0

    def run(self, names: Sequence[str], feed: Feed) -> Any:
        """Runs the session."""
        answers = self._session.run(names, feed)
        size = sum(array.nbytes for array in (*feed.values(), *answers))
        # Several threads may come at once; then a few more are kept, which harms nothing.
        if self._bytes + size <= MOST_BYTES:
            self._bytes += size
            self._kept.append(Call(dict(feed), dict(zip(names, answers, strict=True))))
        return answers


def recorded_calls(
    judge: AnyJudge, bundle: Bundle, part: Part, models: Sequence[str]
) -> tuple[dict[str, list[Call]], float]:
    """The calls of some models on a part of the data, with the first variant, and the metric that it had there."""
    kept: dict[str, list[Call]] = {name: [] for name in models}
    with judge.open(bundle, None) as pipeline:
        for name, calls in kept.items():
            pipeline.engines[name].through(lambda session, calls=calls: Recorder(session, calls))
        value = judge.measure(pipeline, part, None)
    return kept, value


def each_row(spec: ModelSpec, feeds: Sequence[Feed]) -> list[Feed]:
    """All rows of some feeds, each as a call of its own: the ranges are the same, and the memory is that of one row.

    A model without a batch dimension gets the feeds as they are.
    """
    axes = batch_axes(spec)
    if axes is None:
        return list(feeds)
    return [
        {name: np.take(array, [row], axes[0][name]) if name in axes[0] else array for name, array in feed.items()}
        for feed in feeds
        for row in range(min(feed[name].shape[axis] for name, axis in axes[0].items()))
    ]


def single_rows(spec: ModelSpec, feeds: Sequence[Feed], most: int) -> list[Feed]:
    """The first row of some feeds, spread over all of them: what a call with batch 1 looks like."""
    chosen = [feeds[i] for i in np.unique(np.linspace(0, len(feeds) - 1, most).astype(int))] if feeds else []
    rows = (each_row(spec, [feed]) for feed in chosen)
    return [first[0] for first in rows if first]
