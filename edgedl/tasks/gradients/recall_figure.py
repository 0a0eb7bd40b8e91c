"""What training makes of the vanishing gradient, and memory blocks at work: gates, cells and what is left of x_1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from edgedl.figures.style import BLUE, GREY, ORANGE, SERIES, new_figure
from runtime.errors import InputError

Array = NDArray[Any]

LABELS = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM", "peephole": "LSTM with peepholes"}
COLOURS = {"rnn": SERIES[0], "gru": SERIES[1], "lstm": SERIES[2], "peephole": SERIES[3]}
CELL = SERIES[4]
BASELINE = 1 / 3
"""The mean squared error of always answering 0: the variance of values from -1 to 1."""
LEAST = 1e-20
"""The axis goes no lower."""


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """What is drawn of one network.

    Attributes:
        kind: a key of `LABELS`.
        before: (3, T) quartiles of |∂h_t/∂x_1| before training.
        after: (3, T) after it.
        cell: (3, T) of |∂c_t/∂x_1| after it, of memory blocks.
        errors: (E,) the mean squared error after each epoch.
        updates: (E,) made by then.
    """

    kind: str
    before: Array
    after: Array
    cell: Array | None
    errors: Array
    updates: Array


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Memory blocks on one sequence.

    Attributes:
        inputs: (T, 3) value, store, recall.
        targets: (T,).
        answers: (T,).
        gates: name -> (T, H), 0 shut to 1 open.
        cell: (T, H).
        left: (T, H) |∂c_t/∂x_1| of each block.
    """

    inputs: Array
    targets: Array
    answers: Array
    gates: Mapping[str, Array]
    cell: Array
    left: Array

    def ordered(self) -> Array:
        """(H,) the blocks, those first that keep most of the first input on average over time."""
        order: Array = np.argsort(-self.left.mean(axis=0), kind="stable")
        return order


def gradients_after_training(networks: Sequence[Network], recalls: Sequence[int], title: str = "") -> Figure:
    """A panel for each network, |∂h_t/∂x_1| over time before and after training, and one for the errors.

    Args:
        networks: at least one.
        recalls: the steps, from 1, at which the sequences are asked for their first value.
        title: above all.
    """
    if not networks:
        raise InputError("there is no network to draw")
    figure = new_figure(8.8, 2.9 * -(-(len(networks) + 1) // 2) + 0.3)
    panels = figure.subplots(-(-(len(networks) + 1) // 2), 2, squeeze=False).ravel().tolist()
    curves = [curve for one in networks for curve in (one.before, one.after, one.cell) if curve is not None]
    low = max(min(float(curve.min()) for curve in curves), LEAST)
    high = max(float(curve.max()) for curve in curves)
    for one, axes in zip(networks, panels, strict=False):
        floor = np.full(len(recalls), low / 20)
        axes.plot(recalls, floor, "^", color="black", markersize=4, label="asked", clip_on=False)
        _sensitivity(axes, one.before, GREY, "h, before training", "--")
        _sensitivity(axes, one.after, COLOURS[one.kind], "h, after")
        if one.cell is not None:
            _sensitivity(axes, one.cell, CELL, "c, after")
        axes.legend(frameon=False, fontsize="small", loc="lower left")
        axes.set(yscale="log", ylim=(low / 30, high * 10), xlim=(0, one.before.shape[1] + 1))
        axes.set(
            xlabel="t (steps)", ylabel="|∂h$_t$/∂x$_1$|" if one.cell is None else "|∂h$_t$/∂x$_1$|, |∂c$_t$/∂x$_1$|"
        )
        axes.set_title(LABELS[one.kind], fontsize="medium")
        _plain(axes)
    _errors(panels[len(networks)], networks)
    for axes in panels[len(networks) + 1 :]:
        axes.remove()
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure


def blocks_figure(blocks: Blocks, title: str = "") -> Figure:
    """What comes in and out, then the blocks' gates, cells and |∂c_t/∂x_1|, a row a block, over the same steps.

    Shades are Graves': dark is open, and dark is much of the first input (2012, figures 4.1 and 4.4).
    """
    steps = np.arange(1, len(blocks.targets) + 1)
    order = blocks.ordered()
    shades = {f"{name} gate": values[:, order].T for name, values in blocks.gates.items()}
    count = len(order)
    figure = new_figure(8.8, 2.6 + (len(shades) + 2) * (0.55 + 0.1 * count))
    ratios = [2.2, *(0.5 + 0.1 * count for _ in range(len(shades) + 2))]
    first, *rest = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
    _what_goes_on(first, steps, blocks)
    for axes, (name, values) in zip(rest, shades.items(), strict=False):
        image = _heat(axes, values, name, cmap="Greys", vmin=0, vmax=1)
    figure.colorbar(image, ax=rest[: len(shades)], label="0: shut   1: open", aspect=30)
    cells, left = rest[len(shades) :]
    most = max(float(np.abs(blocks.cell).max()), 1e-9)
    image = _heat(cells, blocks.cell[:, order].T, "cell c$_t$", cmap="RdBu_r", vmin=-most, vmax=most)
    figure.colorbar(image, ax=cells, label="c$_t$")
    most = max(float(blocks.left.max()), 1e-9)
    image = _heat(left, blocks.left[:, order].T, "|∂c$_t$/∂x$_1$|", cmap="Greys", vmin=0, vmax=most)
    figure.colorbar(image, ax=left, label="left of x$_1$")
    left.set_xlabel("t (steps)")
    left.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure


def _sensitivity(axes: Axes, quartiles: Array, colour: str, label: str, line: str = "-") -> None:
    t = np.arange(1, quartiles.shape[1] + 1)
    low, middle, high = np.maximum(quartiles, LEAST)
    axes.fill_between(t, low, high, color=colour, alpha=0.25, linewidth=0)
    axes.plot(t, middle, color=colour, label=label, linestyle=line, linewidth=1.3)


def _errors(axes: Axes, networks: Sequence[Network]) -> None:
    for one in networks:
        axes.plot(one.updates, one.errors, color=COLOURS[one.kind], marker=".", label=LABELS[one.kind])
    axes.axhline(BASELINE, color=GREY, linewidth=0.9, linestyle=":", label="always 0: 1/3")
    axes.set(yscale="log", xlabel="updates", ylabel="MSE of what is asked")
    axes.set_title("the answers", fontsize="medium")
    axes.legend(frameon=False, fontsize="small", loc="lower left")
    _plain(axes)


def _what_goes_on(axes: Axes, steps: Array, blocks: Blocks) -> None:
    value, stored, asked = blocks.inputs[:, 0], blocks.inputs[:, 1] > 0.5, blocks.inputs[:, 2] > 0.5
    axes.plot(steps, value, ".", color=GREY, markersize=3, label="value in")
    axes.plot(steps[stored], value[stored], "s", color=ORANGE, markersize=7, label="store")
    axes.plot(
        steps[asked],
        blocks.targets[asked],
        "o",
        color="black",
        markersize=8,
        markerfacecolor="none",
        label="recall: target",
    )
    axes.plot(steps, blocks.answers, color=BLUE, marker=".", markersize=3, linewidth=1, label="answer")
    axes.set(ylabel="value", ylim=(-1.15, 1.15), yticks=(-1, 0, 1), xlim=(0.5, len(steps) + 0.5))
    axes.legend(frameon=False, ncols=4, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _plain(axes)


def _heat(axes: Axes, values: Array, name: str, **look: Any) -> Any:
    count, steps = values.shape
    image = axes.imshow(
        values, aspect="auto", interpolation="nearest", extent=(0.5, steps + 0.5, count + 0.5, 0.5), **look
    )
    axes.set_ylabel(f"{name}\n(block)", fontsize="small")
    axes.set_yticks([1, count] if count > 1 else [1])
    return image


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
