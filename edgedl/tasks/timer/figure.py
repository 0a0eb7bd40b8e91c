"""The timer over time: what goes in, what should come out, and what does."""

from __future__ import annotations

import csv
from os import PathLike
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edgedl.figures.style import BLUE, GREY, ORANGE, SERIES, new_figure

Array = NDArray[np.float32]


def timer_figure(inputs: Array, targets: Array, answers: Array, title: str = "") -> Figure:
    """Three panels over the same steps: the starts u1, the durations u2, and target and answer.

    Args:
        inputs: (T, 2) u1 and u2.
        targets: (T,).
        answers: (T,).
        title: above all.
    """
    steps = np.arange(len(targets))
    figure = new_figure(8.4, 4.6)
    panels = figure.subplots(3, 1, sharex=True, height_ratios=(1, 1, 2))
    begun = np.flatnonzero(inputs[:, 0] > 0.5)
    panels[0].vlines(begun, 0, 1, color=SERIES[2], linewidth=1.5)
    panels[0].plot(begun, np.ones(len(begun)), "o", color=SERIES[2], markersize=3)
    panels[0].set(ylabel="u1\n(1: start)", ylim=(-0.05, 1.2), yticks=(0, 1))
    panels[1].step(steps, inputs[:, 1], where="mid", color=SERIES[3])
    panels[1].set(ylabel="u2\n(share of scale)", ylim=(0, 1.1), yticks=(0, 0.5, 1))
    panels[2].fill_between(steps, targets, step="mid", color=GREY, alpha=0.35, linewidth=0, label="target")
    panels[2].plot(steps, answers, color=BLUE, marker=".", markersize=3, linewidth=1, label="answer")
    panels[2].axhline(0.25, color=ORANGE, linewidth=0.8, linestyle=":", label="above this it is up")
    top = max(0.62, float(answers.max()) * 1.1)
    panels[2].set(ylabel="output\n(0.5: running)", xlabel="time (steps)", ylim=(min(-0.12, float(answers.min())), top))
    panels[2].legend(frameon=False, ncols=3, loc="upper right", fontsize="small", bbox_to_anchor=(1, 1.22))
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="x", alpha=0.25)
        panel.set_xlim(-0.5, len(targets) - 0.5)
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure


def write_table(inputs: Array, targets: Array, answers: Array, path: str | PathLike[str]) -> Path:
    """Writes the numbers behind the figure, a row a step."""
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "u1", "u2", "target", "answer"])
        for step, (given, target, answer) in enumerate(zip(inputs, targets, answers, strict=True)):
            writer.writerow([step, f"{given[0]:g}", f"{given[1]:g}", f"{target:g}", f"{answer:.6g}"])
    return Path(path)
