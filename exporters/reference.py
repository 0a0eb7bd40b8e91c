"""The float32 noise of torch's answers against its answers in float64."""

from __future__ import annotations

import gc
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from exporters.errors import GuardError
from exporters.spec import Case, Output
from runtime.compare import distance

COLLECTED_AFTER = 20_000
"""New objects after which Python looks for garbage while a module is exported."""

Arrays = dict[str, NDArray[Any]]

SMALL = 0.1
"""The share of the numbers of an output that are taken for small ones."""

ULP = 2.0**-23
"""One unit in the last place of float32, relative to the number."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Holds torch to one thread.

    A proof runs thousands of small operators. Two threads gain nothing on them, and on a busy machine they wait for
    each other at every one: a forward pass of the detector took 10 s instead of 0.2 s there.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def collected_seldom() -> Iterator[None]:
    """Lets Python look for garbage in circles more seldom.

    A trace makes millions of small objects, few of them in circles. Looking for those took a sixth of an export's time.
    """
    before = gc.get_threshold()
    gc.set_threshold(before[0] and max(before[0], COLLECTED_AFTER), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def measure_noise(
    outputs: Sequence[Output],
    cases: Sequence[Case],
    truth: Sequence[Arrays],
    single: Sequence[Arrays],
    relative: Container[str] = (),
) -> dict[str, float]:
    """The float32 noise of each output with a tolerance: the largest difference between torch float32 and float64.

    It is never taken as smaller than one unit in the last place of the output's largest magnitude: float32 cannot
    promise more, and another processor rounds elsewhere. Outputs in ``relative`` have a tolerance that grows with each
    number: their noise is what is beyond one unit in the last place of the number, and at least that of a small one.

    Raises:
        GuardError: float32 and float64 disagree about a size or about an integer output, so that the case lies on the
            edge of a decision and no graph could be held to it.
    """
    noise: dict[str, float] = {}
    for output in outputs:
        worst, magnitudes = 0.0, [np.zeros(1)]
        rtol = ULP if output.name in relative else 0.0
        for case, exact, rounded in zip(cases, truth, single, strict=True):
            a, b = rounded[output.name], exact[output.name]
            if a.shape != b.shape or (b.dtype.kind != "f" and not np.array_equal(a, b)):
                raise GuardError(
                    f"case {case.name!r}: torch float32 and torch float64 decide differently about {output.name}, so "
                    "the case lies on the edge of a decision and proves nothing: change it or leave it out"
                )
            if b.dtype.kind == "f" and b.size:
                worst = max(worst, beyond(a, b, rtol))
                magnitudes.append(np.abs(b[np.isfinite(b)]))
        if float_outputs([output]):
            every = np.concatenate(magnitudes)
            magnitude = np.quantile(every[every > 0], SMALL) if rtol and every.any() else every.max()
            noise[output.name] = max(worst, float(np.spacing(np.float32(magnitude))))
    return noise


def beyond(answer: NDArray[Any], reference: NDArray[Any], rtol: float) -> float:
    """The largest error, without ``rtol`` times the size of the number; infinite as `runtime.compare.distance` is."""
    whole = distance(answer, reference)
    if not rtol or not np.isfinite(whole) or not reference.size:
        return whole
    told = np.isfinite(reference)
    exact = reference[told].astype(np.float64)
    return float((np.abs(answer[told] - exact) - rtol * np.abs(exact)).max(initial=0))


def float_outputs(outputs: Sequence[Output]) -> tuple[Output, ...]:
    """The outputs that have a tolerance: those of a float type which are not to be exactly equal."""
    return tuple(output for output in outputs if np.dtype(output.dtype).kind == "f" and output.decision != "exact")
