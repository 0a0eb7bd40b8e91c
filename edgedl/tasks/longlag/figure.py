"""Long time lags: how the networks come down, or stay at what a constant answer has, and what reaches back to them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from edgedl.figures.style import BLUE, GREY, ORANGE, SERIES, new_figure
from runtime.errors import InputError

COLOURS = {"elman": ORANGE, "lstm": BLUE, "gru": SERIES[2], "orthogonal": SERIES[3]}
LABELS = {"elman": "Elman", "lstm": "LSTM", "gru": "GRU", "orthogonal": "orthogonal"}
LEAST = 1e-16
"""Gradients below are not drawn: float64 loses them beside 1."""


@dataclass(frozen=True, slots=True)
class LagCurve:
    """One network.

    Attributes:
        network: its name.
        updates: (E,) of the weights so far, at the end of each epoch.
        sequences: (E,) seen so far.
        wrong: (E,) share of validation sequences that are not right.
        loss: (E,) of validation.
        reach_before: (L,) what of each step reaches the answer, by lag, before training.
        reach_after: (L,) the same of the best epoch.
    """

    network: str
    updates: Sequence[int]
    sequences: Sequence[int]
    wrong: Sequence[float]
    loss: Sequence[float]
    reach_before: Sequence[float]
    reach_after: Sequence[float]


def longlag_figure(curves: Sequence[LagCurve], constant: float, title: str = "") -> Figure:
    """Three panels: the share of wrong sequences, the loss over a constant's, and the gradient by lag.

    Args:
        curves: a network each.
        constant: the least loss of an answer that does not look at the sequence.
        title: above all.

    Raises:
        InputError: there is no curve.
    """
    if not curves:
        raise InputError("there is no network to draw")
    figure = new_figure(12.6, 4.0)
    wrong, loss, reach = figure.subplots(1, 3)
    for curve in curves:
        look = {"color": COLOURS.get(curve.network, GREY), "label": LABELS.get(curve.network, curve.network)}
        wrong.plot(curve.updates, [100 * share for share in curve.wrong], marker=".", **look)
        loss.plot(curve.updates, [value / constant for value in curve.loss], marker=".", **look)
        reach.plot(*_seen(curve.reach_before), linestyle=":", color=look["color"], linewidth=1.2)
        reach.plot(*_seen(curve.reach_after), **look)
    wrong.set(ylabel="wrong sequences (% of validation)", xlabel="updates", ylim=(-3, 103))
    loss.axhline(1, color=GREY, linewidth=0.9, linestyle="--", label="a constant answer")
    loss.set(ylabel="loss / loss of the best constant answer", xlabel="updates", yscale="log")
    reach.plot([], [], color=GREY, linestyle=":", label="before training")
    reach.set(ylabel="|∂answer / ∂input|, mean over sequences", xlabel="lag (steps before the answer)", yscale="log")
    for axes in (wrong, loss, reach):
        _tidy(axes)
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure


def write_updates(curves: Sequence[LagCurve], constant: float, loss: str, path: str | PathLike[str]) -> Path:
    """Writes the numbers behind the first two panels: a row per network and epoch."""
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["network", "update", "sequences", "wrong_share", loss, f"{loss}_constant"])
        for curve in curves:
            for row in zip(curve.updates, curve.sequences, curve.wrong, curve.loss, strict=True):
                update, sequences, share, value = row
                writer.writerow([curve.network, update, sequences, f"{share:.6g}", f"{value:.6g}", f"{constant:.6g}"])
    return Path(path)


def write_gradients(curves: Sequence[LagCurve], path: str | PathLike[str]) -> Path:
    """Writes the numbers behind the third panel: a row per network and lag."""
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["network", "lag", "before", "after"])
        for curve in curves:
            for lag, (before, after) in enumerate(zip(curve.reach_before, curve.reach_after, strict=True)):
                writer.writerow([curve.network, lag, f"{before:.6g}", f"{after:.6g}"])
    return Path(path)


def _seen(values: Sequence[float]) -> tuple[list[int], list[float]]:
    """Lags and values, as far as there is anything to see."""
    points = [(lag, value) for lag, value in enumerate(values) if value > LEAST]
    return [lag for lag, _ in points], [value for _, value in points]


def _tidy(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
