"""The distribution of one predicted age."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from edgedl.figures.style import BLUE, GREY, ORANGE, new_figure
from runtime.errors import InputError


def age_distribution(
    probabilities: ArrayLike, years: Sequence[float], *, age: float, low: float, high: float, truth: float | None = None
) -> Figure:
    """Bars of the class probabilities; those between ``low`` and ``high``, the central 80 %, stand out.

    Args:
        probabilities: (K,), the sum being 1.
        years: (K,) years of the classes.
        age: The expectation, drawn as a line.
        low: Lower end of the interval in years.
        high: Upper end.
        truth: The true age, where it is known.
    """
    heights, positions = np.asarray(probabilities, dtype=np.float64), np.asarray(years, dtype=np.float64)
    if heights.ndim != 1 or heights.shape != positions.shape:
        raise InputError(f"expected one probability per year, found {list(heights.shape)} and {list(positions.shape)}")
    figure = new_figure(6.4, 3.2)
    axes = figure.add_subplot()
    width = float(np.diff(positions).min()) if len(positions) > 1 else 1.0
    inside = (positions >= low) & (positions <= high)
    axes.bar(positions[~inside], heights[~inside], width, color=BLUE, alpha=0.35)
    axes.bar(
        positions[inside], heights[inside], width, color=BLUE, alpha=0.9, label=f"central 80 %: {low:.0f}–{high:.0f}"
    )
    axes.axvline(age, color=ORANGE, linewidth=2, label=f"age {age:.1f}")
    if truth is not None:
        axes.axvline(truth, color=GREY, linewidth=1.5, linestyle="--", label=f"true age {truth:.0f}")
    axes.set_xlabel("age (years)")
    axes.set_ylabel("probability")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    axes.legend(frameon=False)
    return figure
