"""Ratios of times with their spread, as bars."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edgedl.figures.style import BLUE, GREY, new_figure, save_figure
from runtime.turns import Ratio


def save_ratios(title: str, rows: Sequence[tuple[str, Ratio]], path: str | os.PathLike[str]) -> Path:
    """Draws a bar for each ratio, with its quartiles as whiskers and a line at 1, into a PNG.

    Args:
        title: What a longer bar means.
        rows: Labels and ratios, from the top down.
        path: The file to write.
    """
    figure = new_figure(7.0, 1.1 + 0.36 * len(rows))
    axes = figure.add_subplot()
    places = range(len(rows))
    medians = [ratio.median for _, ratio in rows]
    below = [ratio.median - ratio.low for _, ratio in rows]
    above = [ratio.high - ratio.median for _, ratio in rows]
    axes.barh(places, medians, height=0.62, color=BLUE, xerr=(below, above), ecolor="black", capsize=3)
    axes.axvline(1.0, color=GREY, linestyle="--", linewidth=1)
    for place, (_, ratio) in zip(places, rows, strict=True):
        axes.annotate(f"{ratio.median:.2f}", (ratio.high, place), (5, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, [label for label, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, max([1.0, *(ratio.high for _, ratio in rows)]) * 1.15)
    axes.set_xlabel(title)
    axes.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, path)
