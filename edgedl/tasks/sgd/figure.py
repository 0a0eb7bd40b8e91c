"""Paths of descent on the cost surface that they go down, and the cost against what was paid for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from edgedl.figures.style import GREY, SERIES, new_figure, save_figure
from runtime.errors import InputError

Group = Literal["step", "batch", "cost"]

PANELS: tuple[tuple[Group, str], ...] = (
    ("step", "all samples in every update"),
    ("batch", "a few samples in every update"),
    ("cost", "another cost, close up: ★ is where it is least"),
)

LEVELS = 14
MARGIN = 0.12
"""Share of the paths' extent that is shown around them."""

CLOSE_UP = 0.6
"""The same of the places where costs are least."""

FEW = 200
"""Up to so many updates each one is marked with a dot."""

WINDOWS = 40
"""A longer path's cost is drawn as its means over so many windows, equally long on the logarithmic axis."""

TEAL = "#17918f"

LEAST = 1e-9
"""Excess cost below which nothing is drawn: float32 ends about there."""


class Cost(Protocol):
    """A cost over two weights, in N²."""

    def __call__(self, weights: ArrayLike) -> NDArray[np.float64]:
        """The cost at weights (…, 2)."""
        ...

    def minimum(self) -> NDArray[np.float64]:
        """Where it is least, (2,)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Descent:
    """One path.

    Attributes:
        label: what it is called.
        group: the surface that it is drawn on: ``step`` goes down the cost itself, ``batch`` does
            so by samples of it, ``cost`` goes down one with a penalty.
        samples: (U + 1,) training samples seen at each point.
        weights: (U + 1, 2) before the first update and after each.
        target: (2,) where its own cost is least; None where there is no such cost.
    """

    label: str
    group: Group
    samples: NDArray[np.int64]
    weights: NDArray[np.float64]
    target: NDArray[np.float64] | None = None


def descent_figure(cost: Cost, descents: Sequence[Descent]) -> Figure:
    """Above the surface with its paths, one panel per group; below the excess cost against updates and samples.

    Args:
        cost: what is drawn as contours and what the excess is measured in: J(w) less its least value.
        descents: at least one. Below, those with a penalty are shown only if there are no others: they go elsewhere.
    """
    if not descents:
        raise InputError("there is no path to draw")
    panels = [(group, title) for group, title in PANELS if any(path.group == group for path in descents)]
    figure = new_figure(max(4.6 * len(panels), 9.0), 9.4)
    (above,), (below,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.4, 1.0))
    surfaces = above.subplots(1, len(panels), squeeze=False)[0]
    for axes, (group, title) in zip(surfaces, panels, strict=True):
        chosen = [path for path in descents if path.group == group]
        # Costs that differ by a penalty are least at places close to one another: the start would make them one.
        filled = _surface(axes, cost, _ends(cost, chosen) if group == "cost" else _extent(cost, descents))
        for number, (colour, path) in enumerate(zip(_colours(group, len(chosen)), chosen, strict=True)):
            _path(axes, path, colour, star=max(18 - 3 * number, 8))  # so that two at one place are both seen
        axes.plot(*cost.minimum(), marker="+", markersize=11, color="black", linestyle="none", zorder=5)
        axes.set_title(title, fontsize="medium")
        axes.legend(framealpha=0.9, fontsize="x-small", loc="lower left")
        bar = above.colorbar(filled, ax=axes, location="bottom", shrink=0.8, format="%.2g")
        bar.ax.tick_params(labelsize="x-small")
        bar.set_label("cost J of the data (N²), + where it is least", fontsize="small")
    compared = [path for path in descents if path.group != "cost"] or list(descents)
    colours = [
        colour for group, _ in PANELS for colour in _colours(group, sum(path.group == group for path in compared))
    ]
    compared.sort(key=lambda path: [group for group, _ in PANELS].index(path.group))
    for axes, label in zip(below.subplots(1, 2), ("updates", "training samples seen"), strict=True):
        _effort(axes, cost, compared, colours, label)
    return figure


def save_descent(cost: Cost, descents: Sequence[Descent], path: str | os.PathLike[str]) -> Path:
    """Draws `descent_figure` into a PNG."""
    return save_figure(descent_figure(cost, descents), path)


def _colours(group: Group, count: int) -> list[str]:
    """Each group has colours of its own as long as there are any."""
    colours = (*SERIES[3:5], TEAL, *SERIES[:3]) if group == "batch" else SERIES
    return [colours[number % len(colours)] for number in range(count)]


def _extent(cost: Cost, descents: Sequence[Descent]) -> tuple[float, float, float, float]:
    return _box([cost.minimum()[None], *(path.weights for path in descents)], MARGIN)


def _ends(cost: Cost, descents: Sequence[Descent]) -> tuple[float, float, float, float]:
    targets = [path.target[None] for path in descents if path.target is not None]
    return _box([cost.minimum()[None], *targets, *(path.weights[-1:] for path in descents)], CLOSE_UP)


def _box(points: Sequence[NDArray[np.float64]], margin: float) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of a square around all points."""
    together = np.concatenate(points)
    middle = (together.min(axis=0) + together.max(axis=0)) / 2
    half = (0.5 + margin) * max(float(np.ptp(together, axis=0).max()), 1e-3)
    (left, bottom), (right, top) = middle - half, middle + half
    return float(left), float(right), float(bottom), float(top)


def _surface(axes: Axes, cost: Cost, extent: tuple[float, float, float, float]) -> Any:
    left, right, bottom, top = extent
    grid = np.stack(np.meshgrid(np.linspace(left, right, 220), np.linspace(bottom, top, 220)), axis=-1)
    heights = cost(grid)
    least = float(cost(cost.minimum()))
    # Equal steps of the root of the excess: of a bowl, contours at equal distances.
    levels = least + np.linspace(0.0, np.sqrt(max(float(heights.max()) - least, 1e-12)), LEVELS) ** 2
    filled = axes.contourf(grid[..., 0], grid[..., 1], heights, levels=levels, cmap="Greys", alpha=0.55)
    axes.contour(grid[..., 0], grid[..., 1], heights, levels=levels, colors=GREY, linewidths=0.4)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_xlabel("weight w₁ (N/mV)")
    axes.set_ylabel("weight w₂ (N/mV)")
    axes.set_aspect("equal")
    return filled


def _path(axes: Axes, path: Descent, colour: str, star: int) -> None:
    few = len(path.weights) <= FEW
    axes.plot(
        path.weights[:, 0],
        path.weights[:, 1],
        color=colour,
        linewidth=1.3 if few else 0.5,
        marker="o" if few else None,
        markersize=2.2,
        label=path.label,
        zorder=3 if few else 2,
    )
    if path.group == "cost" and path.target is not None:
        axes.plot(*path.target, marker="*", markersize=star, color=colour, markeredgecolor="black", zorder=4)


def _effort(axes: Axes, cost: Cost, paths: Sequence[Descent], colours: Sequence[str], label: str) -> None:
    least = cost(cost.minimum())
    for colour, path in zip(colours, paths, strict=True):
        paid = np.arange(len(path.samples)) if label == "updates" else path.samples
        excess = np.maximum(cost(path.weights) - least, LEAST)
        axes.plot(*_windowed(paid[1:], excess[1:]), color=colour, linewidth=1.4, label=path.label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("cost above the least, J − J* (N²)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", loc="lower left")


def _windowed(paid: NDArray[np.int64], excess: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Means of a long path over windows; a short one as it is."""
    if len(paid) <= FEW:
        return paid, excess
    edges = np.unique(np.round(np.geomspace(1, len(paid) + 1, WINDOWS + 1)).astype(np.int64)) - 1
    spans = list(pairwise(edges.tolist()))
    return (
        np.array([np.exp(np.log(paid[start:stop]).mean()) for start, stop in spans]),
        np.array([excess[start:stop].mean() for start, stop in spans]),
    )
