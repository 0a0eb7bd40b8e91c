"""Paths of descent on the cost surface that they go down, and the cost against what was paid for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from edgedl.figures.style import GREY, SERIES, new_figure, save_figure
from runtime.errors import InputError

LEVELS = 14
MARGIN = 0.12
"""Share of the paths' extent that is shown around them."""

FEW = 200
"""Up to so many updates each one is marked with a dot."""

LEAST = 1e-9
"""Excess cost below which nothing is drawn: float32 ends about there."""

PANELS: tuple[tuple[Literal["step", "cost"], str], ...] = (
    ("step", "the same cost, descended in other ways"),
    ("cost", "another cost: each ★ is where its own is least"),
)


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
        group: the surface that it is drawn on: ``step`` goes down the cost itself, ``cost`` one with a penalty.
        samples: (U + 1,) training samples seen at each point.
        weights: (U + 1, 2) before the first update and after each.
        target: (2,) where its own cost is least; None where there is no such cost.
    """

    label: str
    group: Literal["step", "cost"]
    samples: NDArray[np.int64]
    weights: NDArray[np.float64]
    target: NDArray[np.float64] | None = None


def descent_figure(cost: Cost, descents: Sequence[Descent]) -> Figure:
    """Above the surface with its paths, one panel per group; below the excess cost against updates and samples.

    Args:
        cost: what is drawn as contours and what the excess is measured in: J(w) less its least value.
        descents: at least one.
    """
    if not descents:
        raise InputError("there is no path to draw")
    panels = [(group, title) for group, title in PANELS if any(path.group == group for path in descents)]
    figure = new_figure(5.6 * 2, 9.2)
    extent = _extent(cost, descents)
    places = (221, 222) if len(panels) == 2 else (211,)
    for place, (group, title) in zip(places, panels, strict=True):
        axes = figure.add_subplot(place)
        _surface(axes, cost, extent)
        chosen = [path for path in descents if path.group == group]
        for colour, path in zip(_colours(len(chosen)), chosen, strict=True):
            _path(axes, path, colour)
        least = cost.minimum()
        axes.plot(*least, marker="+", markersize=11, color="black", linestyle="none")
        axes.set_title(title, fontsize="medium")
        axes.legend(frameon=True, framealpha=0.9, fontsize="small", loc="lower left")
    # Costs against effort make sense for paths down the same surface.
    compared = [path for path in descents if path.group == panels[0][0]]
    for place, label in ((223, "updates"), (224, "training samples seen")):
        _effort(figure.add_subplot(place), cost, compared, label)
    return figure


def save_descent(cost: Cost, descents: Sequence[Descent], path: str | os.PathLike[str]) -> Path:
    """Draws `descent_figure` into a PNG."""
    return save_figure(descent_figure(cost, descents), path)


def _colours(count: int) -> list[str]:
    return [SERIES[number % len(SERIES)] for number in range(count)]


def _extent(cost: Cost, descents: Sequence[Descent]) -> tuple[float, float, float, float]:
    points = np.concatenate([cost.minimum()[None], *(path.weights for path in descents)])
    low, high = points.min(axis=0), points.max(axis=0)
    margin = MARGIN * np.maximum(high - low, 1e-3)
    (left, bottom), (right, top) = low - margin, high + margin
    return float(left), float(right), float(bottom), float(top)


def _surface(axes: Axes, cost: Cost, extent: tuple[float, float, float, float]) -> None:
    left, right, bottom, top = extent
    grid = np.stack(np.meshgrid(np.linspace(left, right, 220), np.linspace(bottom, top, 220)), axis=-1)
    heights = cost(grid)
    least = float(cost(cost.minimum()))
    # Equal steps of the root of the excess: of a bowl, contours at equal distances.
    levels = least + np.linspace(0.0, np.sqrt(max(float(heights.max()) - least, 1e-12)), LEVELS) ** 2
    filled = axes.contourf(grid[..., 0], grid[..., 1], heights, levels=levels, cmap="Greys", alpha=0.55)
    axes.contour(grid[..., 0], grid[..., 1], heights, levels=levels, colors=GREY, linewidths=0.4)
    bar = axes.figure.colorbar(filled, ax=axes, shrink=0.85, format="%.2g")
    bar.set_label("cost J of the data (N²)")
    axes.set_xlabel("weight w₁ (N/mV)")
    axes.set_ylabel("weight w₂ (N/mV)")
    axes.set_aspect("equal")


def _path(axes: Axes, path: Descent, colour: str) -> None:
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
        axes.plot(*path.target, marker="*", markersize=13, color=colour, markeredgecolor="black", zorder=4)


def _effort(axes: Axes, cost: Cost, paths: Sequence[Descent], label: str) -> None:
    least = cost(cost.minimum())
    for colour, path in zip(_colours(len(paths)), paths, strict=True):
        paid = np.arange(len(path.samples)) if label == "updates" else path.samples
        excess = np.maximum(cost(path.weights) - least, LEAST)
        axes.plot(paid[1:], excess[1:], color=colour, linewidth=1.4 if len(paid) <= FEW else 0.6, label=path.label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("cost above the least, J − J* (N²)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", loc="lower left")
