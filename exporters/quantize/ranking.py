"""Which layers cost the most in int8: each alone, by how far the answers move.

The habit of ranking layers, taking the worst back to float32 one by one and measuring after each is that of NNCF's
accuracy control. Here the answers rank the layers, for which no labels are needed, and the task's metric decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.quantize.candidates import Candidates, Form
from exporters.quantize.inputs import Feed
from runtime.engine import Engine
from runtime.errors import EdgedlError

Answers = Sequence[NDArray[Any]]


def rank_layers(
    candidates: Candidates, form: Form, calibration: str, feeds: Sequence[Feed], threads: int = 1
) -> dict[str, float]:
    """The layers of a form, the most sensitive first, each with the distance that it alone causes.

    A layer that cannot be computed in int8 alone counts as infinitely far.
    """
    exact = _answers(candidates.graph, feeds, threads)
    found: dict[str, float] = {}
    for layer in candidates.weighted(form):
        try:
            found[layer] = distance(_answers(candidates.build(form, calibration, [layer]), feeds, threads), exact)
        except EdgedlError:
            found[layer] = float("inf")
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def distance(answers: Sequence[Answers], exact: Sequence[Answers]) -> float:
    """The mean over inputs and outputs of |a - b| / |b| in the 2-norm; 1 where the shape is another one."""
    distances = [
        _relative(one, other)
        for row, truth in zip(answers, exact, strict=True)
        for one, other in zip(row, truth, strict=True)
    ]
    return float(np.mean(distances)) if distances else 0.0


def _relative(answer: NDArray[Any], exact: NDArray[Any]) -> float:
    if answer.shape != exact.shape or exact.dtype.kind not in "fiub":
        return float(answer.shape != exact.shape or not np.array_equal(answer, exact))
    scale = np.linalg.norm(exact.astype(np.float64))
    error = np.linalg.norm(answer.astype(np.float64) - exact.astype(np.float64))
    return float(error / scale) if scale > 0 else float(error > 0)


def _answers(graph: bytes, feeds: Sequence[Mapping[str, NDArray[Any]]], threads: int) -> list[Answers]:
    with Engine(graph, threads=threads, name="candidate") as engine:
        return [engine.session.run(None, feed) for feed in feeds]
