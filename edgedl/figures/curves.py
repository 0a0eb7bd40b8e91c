"""Loss and metrics against the epoch."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from edgedl.figures.style import GREY, SERIES, new_figure, save_figure
from edgedl.training.run import Run
from runtime.errors import InputError

_NOT_DRAWN = ("epoch", "step", "seconds", "lr")
_UNITS = {"MAE": "MAE (years)", "CS@5": "CS@5 (share)"}
_SMALL_IS_GOOD = ("loss", "MAE", "MSE", "nats")


def curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """One panel for the losses and one per validation metric, the best epoch marked.

    Args:
        history: Rows of ``metrics.csv``, each with ``epoch``; losses and metrics as they are there.
    """
    if not history:
        raise InputError("there is nothing to draw: no epoch has ended")
    panels = _panels(history)
    figure = new_figure(4.6 * len(panels), 3.4)
    for index, (title, names) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), index)
        for colour, name in zip(SERIES, names, strict=False):
            points = [(row["epoch"], row[name]) for row in history if name in row]
            # A single epoch is a point, which a line alone would not show.
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=name.replace("_", " "))
        if title != "loss":
            _mark_best(axes, history, names[0])
        axes.set_xlabel("epoch")
        axes.set_ylabel(_UNITS.get(title, title))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if len(names) > 1:
            axes.legend(frameon=False)
    return figure


def save_curves(history: Sequence[Mapping[str, float]], path: str | os.PathLike[str]) -> Figure:
    """Draws the curves into ``path`` (PNG) and writes their numbers beside it, with the suffix ``.csv``."""
    figure = curves(history)
    target = save_figure(figure, path)
    names = [name for group in _panels(history).values() for name in group]
    with Path(target).with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["epoch", *names])
        writer.writerows([int(row["epoch"]), *(row.get(name, "") for name in names)] for row in history)
    return figure


def draw_curves(run_path: str | os.PathLike[str]) -> None:
    """Draws ``curves.png`` beside each ``metrics.csv`` in a run: one for each training that the run holds."""
    for metrics in sorted(Path(run_path).rglob("metrics.csv")):
        plot_run(metrics.parent, None)


def plot_run(run_path: str | os.PathLike[str], output: str | os.PathLike[str] | None) -> Path:
    """Draws the curves of a run and gives the picture's path, by default ``curves.png`` in the run.

    Raises:
        InputError: there is no run, or none of its epochs has ended.
    """
    run = Run.open(run_path)
    picture = Path(output) if output else run.path / "curves.png"
    save_curves(run.history(), picture)
    return picture


def _panels(history: Sequence[Mapping[str, float]]) -> dict[str, list[str]]:
    """Titles and the columns that share a panel: losses together, ``aligned/MAE`` with ``MAE``."""
    names = dict.fromkeys(name for row in history for name in row if name not in _NOT_DRAWN)
    panels: dict[str, list[str]] = {}
    for name in names:
        title = "loss" if name.endswith("loss") else name.rsplit("/", 1)[-1]
        panels.setdefault(title, []).append(name)
    return panels


def _mark_best(axes: Axes, history: Sequence[Mapping[str, float]], name: str) -> None:
    rows = [row for row in history if name in row]
    choose = min if name.rsplit("/", 1)[-1].startswith(_SMALL_IS_GOOD) else max
    best = choose(rows, key=lambda row: row[name])
    axes.axhline(best[name], color=GREY, linewidth=0.8, linestyle=":")
    axes.set_title(f"best {best[name]:.4g} in epoch {int(best['epoch'])}", fontsize="medium", color=GREY)
