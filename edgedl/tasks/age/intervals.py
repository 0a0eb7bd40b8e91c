"""Calibrates the interval of an age on faces of known age: split conformal prediction given the true age. No torch.

Ages are predicted too close to the middle: a network that is right on average calls children older and old people
younger than they are. An interval that holds 80 % of all truths, or 80 % at each *predicted* age, then holds far fewer
of them at some *true* ages. So the conformal set is taken given the label (Vovk, Gammerman, Shafer 2005, "Algorithmic
learning in a random world", section 4.5): for each true age y, calibration tells between which ages A(y) and B(y) the
central part of the predictions lies. The answer to a prediction E is every age y that could well have led to it,
A(y) ≤ E ≤ B(y). This holds at each true age, and so for people of any mixture of ages.

A(y) and B(y) are quantiles over the calibration faces whose ages are nearest to y. Neither may fall with y, so that the
set is an interval whose ends are curves over E alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.intervals import Coverage, Interval, Measured

Ages = NDArray[np.float64]

LEVEL = 0.8
LEAST_FACES = 100
"""Fewer tell too little of the tenths at either end."""

FOLDS = 5
UNKNOWN = Measured("", "", Coverage(0.0, 0.0, 0), {})
"""Of the intervals of a fold."""

MOST_BEYOND, HALVINGS = 0.45, 10
"""The share of the predictions beyond A(y), and beyond B(y), is sought from 0 to this by halving the range."""

NEAREST, FEWEST, MOST = 1 / 30, 40, 200
"""A(y) and B(y) rest on this share of the faces, but on at least and at most so many. Where faces are few, a larger
share takes in ages whose predictions err otherwise."""

DIGITS, STEP = 3, 0.001
"""Decimals of the curves in the manifest, and their least step."""

BAND, LAST_BAND = 10, 80
"""Width in years of the bands of true age, and where the last one begins."""


def age_bands(ages: NDArray[np.floating]) -> dict[str, NDArray[np.bool_]]:
    """Which of (n,) true ages lie in each ten years that hold any: {"0-9": (n,), …, "80+": (n,)}."""
    begins = np.minimum(np.floor_divide(ages, BAND).astype(np.int64) * BAND, LAST_BAND)
    return {
        f"{begin}+" if begin == LAST_BAND else f"{begin}-{begin + BAND - 1}": begins == begin
        for begin in np.unique(begins).tolist()
    }


def coverage(low: Ages, high: Ages, ages: Ages) -> Coverage:
    """How intervals (n,) did on true ages (n,)."""
    inside = (low <= ages) & (ages <= high)
    return Coverage(float(inside.mean()), float((high - low).mean()), len(ages))


def calibrate(
    predicted: Sequence[float] | Ages,
    ages: Sequence[float] | Ages,
    keys: Sequence[str],
    *,
    level: float = LEVEL,
    dataset: str,
    split: str,
) -> Interval:
    """Makes the interval from predictions for faces that training has not seen.

    The faces are dealt into five parts by the SHA-256 of their keys. For each part the other four make intervals, which
    this part judges. The narrowest intervals that hold `level` of the true ages over all parts are taken, and then made
    once more from all faces. What `Interval.measured` says is of faces that did not make the intervals they judge.

    Args:
        predicted: (n,) in years.
        ages: (n,) true ages in years.
        keys: n of them, those of one person equal.
        level: share of the true ages that is to lie inside.
        dataset: name of the data set.
        split: the part of it.

    Raises:
        InputError: there are too few faces, or their ages hardly differ.
    """
    found, truth = np.asarray(predicted, np.float64), np.asarray(ages, np.float64)
    if len(found) < LEAST_FACES:
        raise InputError(
            f"{len(found)} faces of {dataset} are too few to calibrate an interval; give at least {LEAST_FACES} that "
            "training has not seen"
        )
    if np.ptp(found) < 1:
        raise InputError(
            f"all of the {len(found)} predicted ages lie within {np.ptp(found):.2g} years, so they tell nothing about "
            "the true ones; train the network first"
        )
    part = _folds(keys)
    tail, beyond = 0.0, MOST_BEYOND
    judged = _judged(found, truth, part, tail)
    for _ in range(HALVINGS):
        middle = (tail + beyond) / 2
        narrower = _judged(found, truth, part, middle)
        if coverage(*narrower, truth).coverage >= level:
            tail, judged = middle, narrower
        else:
            beyond = middle
    bands = {band: coverage(judged[0][rows], judged[1][rows], truth[rows]) for band, rows in age_bands(truth).items()}
    return _interval(level, _curves(found, truth, tail), Measured(dataset, split, coverage(*judged, truth), bands))


def _judged(predicted: Ages, ages: Ages, part: NDArray[np.int64], tail: float) -> tuple[Ages, Ages]:
    """The interval of each face (n,), made from the faces of all parts but its own."""
    low, high = np.empty_like(predicted), np.empty_like(predicted)
    for fold in np.unique(part):
        away = part != fold
        made = _interval(LEVEL, _curves(predicted[away], ages[away], tail), UNKNOWN)
        low[~away], high[~away] = made.ends(predicted[~away])
    return low, high


def _interval(level: float, curves: tuple[Ages, Ages, Ages], measured: Measured) -> Interval:
    years, least, most = (tuple(curve.tolist()) for curve in curves)
    return Interval(level, years, least, most, measured)


def _curves(predicted: Ages, ages: Ages, tail: float) -> tuple[Ages, Ages, Ages]:
    """True ages (Y,), and between which predictions the central part lies for each: A(y) and B(y), each (Y,).

    Args:
        predicted: (n,) in years.
        ages: (n,) true ages.
        tail: share of the predictions beyond either curve.
    """
    order = np.argsort(ages, kind="stable")
    truth, errors = ages[order], (predicted - ages)[order]
    count = min(len(truth), max(FEWEST, min(MOST, round(len(truth) * NEAREST))))
    years = np.arange(max(0.0, math.floor(truth[0])), math.ceil(truth[-1]) + 1.0)
    least, most = np.empty_like(years), np.empty_like(years)
    for place, year in enumerate(years):
        distance = np.abs(truth - year)
        near = np.sort(errors[distance <= np.partition(distance, count - 1)[count - 1]])
        # Conformal prediction's n + 1: so many of n + 1 exchangeable faces lie beyond. Between two faces it is a line.
        rank = tail * (len(near) + 1) - 1
        least[place], most[place] = year + np.interp((rank, len(near) - 1 - rank), np.arange(len(near)), near)
    # The hull of what the rule gives, which can only hold more: neither curve may fall.
    least, most = np.minimum.accumulate(least[::-1])[::-1], np.maximum.accumulate(most)
    return years, _rising(least), _rising(most)


def _rising(curve: Ages) -> Ages:
    """The curve with a step of at least `STEP` from year to year, so that it can be read the other way."""
    steps = STEP * np.arange(len(curve))
    return np.asarray(np.round(np.maximum.accumulate(curve - steps) + steps, DIGITS), np.float64)


def _folds(keys: Sequence[str]) -> NDArray[np.int64]:
    """The part of each face: 0 … FOLDS - 1, decided by its key alone."""
    digests = [hashlib.sha256(f"interval {key}".encode(errors="surrogatepass")).digest() for key in keys]
    return np.array([int.from_bytes(digest[:8], "big") % FOLDS for digest in digests], np.int64)
