"""Where an age network errs: the mean absolute error per band of true ages."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from edgedl.figures.style import BLUE, GREY, ORANGE, new_figure
from runtime.errors import InputError

BANDS = (0, 4, 13, 20, 30, 40, 50, 60, 70, 120)
"""Lower ends of the bands in years, and the end of the last: 0–3, 4–12, 13–19, then decades."""


@dataclass(frozen=True, slots=True)
class BandError:
    """A band of true ages, both ends included, and the errors in it; NaN where nobody is in it."""

    low: int
    high: int
    count: int
    mean_absolute_error: float
    mean_error: float


def errors_by_band(true_ages: ArrayLike, predicted: ArrayLike, bands: Sequence[int] = BANDS) -> tuple[BandError, ...]:
    """Sorts errors (N,) into bands of true ages (N,); ages outside all bands are an error.

    The mean error keeps its sign: above 0 the network says too old.
    """
    ages, errors = np.asarray(true_ages, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if ages.ndim != 1 or ages.shape != errors.shape or len(ages) == 0:
        raise InputError(f"expected one prediction per true age, found {list(errors.shape)} and {list(ages.shape)}")
    errors = errors - ages
    numbers = np.searchsorted(bands, ages, side="right") - 1
    if numbers.min() < 0 or numbers.max() >= len(bands) - 1:
        raise InputError(f"true ages from {ages.min():g} to {ages.max():g} do not lie within {bands[0]} to {bands[-1]}")
    rows = []
    for number, (low, end) in enumerate(pairwise(bands)):
        chosen = errors[numbers == number]
        mean, signed = (float(np.abs(chosen).mean()), float(chosen.mean())) if len(chosen) else (np.nan, np.nan)
        rows.append(BandError(low, end - 1, len(chosen), mean, signed))
    return tuple(rows)


def error_bands(rows: Sequence[BandError]) -> Figure:
    """Bars of the MAE per band with the number of people, and the signed mean error as a line."""
    figure = new_figure(7.0, 3.6)
    axes = figure.add_subplot()
    filled = [row for row in rows if row.count]
    positions = np.arange(len(filled))
    heights = [row.mean_absolute_error for row in filled]
    axes.bar(positions, heights, 0.7, color=BLUE, alpha=0.85, label="mean absolute error")
    axes.plot(positions, [row.mean_error for row in filled], color=ORANGE, marker="o", markersize=4, label="mean error")
    axes.axhline(0, color=GREY, linewidth=0.8)
    for position, row in zip(positions, filled, strict=True):
        axes.annotate(
            f"n={row.count}",
            (position, row.mean_absolute_error),
            (0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    axes.set_xticks(positions, [f"{row.low}–{row.high}" for row in filled])
    axes.set_xlabel("true age (years)")
    axes.set_ylabel("error (years)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def write_bands(rows: Sequence[BandError], path: str | os.PathLike[str]) -> None:
    """Writes the bands as CSV."""
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["low", "high", "count", "MAE", "mean_error"])
        for row in rows:
            values = ["" if np.isnan(x) else f"{x:.4f}" for x in (row.mean_absolute_error, row.mean_error)]
            writer.writerow([row.low, row.high, row.count, *values])
