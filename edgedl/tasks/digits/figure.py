"""What a reader of digits has learnt: its first filters, and how a deep belief net was trained and what it draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from edgedl.figures.style import BLUE, GREY, ORANGE, SERIES, new_figure
from runtime.errors import InputError

COLUMNS = 16

Pictures = NDArray[np.floating[Any]]


def filter_sheet(filters: Pictures, title: str, *, names: Sequence[str] = (), columns: int = COLUMNS) -> Figure:
    """Weights as pictures on one scale around 0: orange where ink speaks for the unit, blue where it speaks against.

    Args:
        filters: (n, h, w).
        title: what they are.
        names: of each filter, to stand above it.
        columns: most filters in a row.
    """
    if filters.ndim != 3 or not len(filters):
        raise InputError(f"expected filters (n, h, w), at least one; found {list(filters.shape)}")
    columns = min(columns, len(filters))
    rows = -(-len(filters) // columns)
    figure = new_figure(max(4.5, 0.55 * columns + 1.2), 0.55 * rows + (0.9 if names else 0.6))
    axes = figure.subplots(rows, columns, squeeze=False)
    most = float(np.abs(filters).max()) or 1.0
    scale = Normalize(-most, most)
    for index, place in enumerate(axes.flat):
        place.set_axis_off()
        if index < len(filters):
            place.imshow(filters[index], cmap="PuOr_r", norm=scale, interpolation="nearest")
            if names:
                place.set_title(names[index], fontsize="small")
    figure.suptitle(title, fontsize="medium")
    figure.colorbar(ScalarMappable(scale, "PuOr_r"), ax=axes, label="weight", shrink=0.9, aspect=12)
    return figure


def pretraining_curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """For each Boltzmann machine, free energies of learnt and held-out data, their gap, and the reconstruction's error.

    Free energies of two epochs cannot be compared, since each has a constant of its own; the gap between two data sets
    in one epoch can: where it opens, the machine begins to learn by heart.

    Args:
        history: rows with ``layer``, ``epoch``, ``free_energy``, ``held_out_free_energy`` and ``reconstruction``.
    """
    if not history:
        raise InputError("there is nothing to draw: no machine has been trained")
    layers = sorted({int(row["layer"]) for row in history})
    figure = new_figure(12.0, 2.9 * len(layers))
    axes = figure.subplots(len(layers), 3, squeeze=False)
    for (energy, gap, error), layer in zip(axes, layers, strict=True):
        rows = [row for row in history if int(row["layer"]) == layer]
        epochs = [row["epoch"] for row in rows]
        energy.plot(epochs, [row["free_energy"] for row in rows], color=BLUE, label="learnt")
        energy.plot(
            epochs, [row["held_out_free_energy"] for row in rows], color=ORANGE, linestyle="--", label="held out"
        )
        energy.set_ylabel("mean free energy (nats)")
        energy.legend(frameon=False)
        gap.axhline(0, color=GREY, linewidth=0.8)
        gap.plot(epochs, [row["held_out_free_energy"] - row["free_energy"] for row in rows], color=BLUE)
        gap.set_ylabel("gap of free energies,\nheld out − learnt (nats)")
        error.plot(epochs, [row["reconstruction"] for row in rows], color=ORANGE)
        error.set_ylim(bottom=0)
        error.set_ylabel("reconstruction, held out\n(mean squared error)")
        for place in (energy, gap, error):
            place.set_title(f"layer {layer}", fontsize="medium")
            place.set_xlabel("epoch")
            place.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            place.grid(alpha=0.25)
            place.spines[["top", "right"]].set_visible(False)
    return figure


def picture_rows(rows: Mapping[str, Pictures], title: str, columns: Sequence[str] = ()) -> Figure:
    """Ink as rows of pictures with their names, dark on bright.

    Args:
        rows: name of the row -> (n, 8, 8) shares of ink, n the same in every row.
        title: what is to be seen.
        columns: names of the n columns.
    """
    count = {len(pictures) for pictures in rows.values()}
    if len(count) != 1 or 0 in count:
        raise InputError(f"expected rows of the same number of pictures, found {sorted(count)}")
    (across,) = count
    figure = new_figure(0.62 * across + 1.6, 0.66 * len(rows) + 0.7)
    axes = figure.subplots(len(rows), across, squeeze=False)
    for number, (name, pictures) in enumerate(rows.items()):
        for column, picture in enumerate(pictures):
            place = axes[number, column]
            place.imshow(picture, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
            place.set_xticks([])
            place.set_yticks([])
            if number == 0 and columns:
                place.set_title(columns[column], fontsize="small")
        axes[number, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
    figure.suptitle(title, fontsize="medium")
    return figure


def learning_curves(errors: Mapping[str, Mapping[int, Sequence[float]]], least: float) -> Figure:
    """Errors against the amount of data on logarithmic axes: the median of several draws, shaded from least to most.

    Args:
        errors: technique -> digits -> the error of each draw, in per cent.
        least: an error below it is drawn as this, since a logarithmic axis has no 0.
    """
    if not errors:
        raise InputError("there is nothing to draw: no technique has been trained")
    figure = new_figure(7.0, 4.6)
    axes = figure.subplots()
    for colour, (name, of_size) in zip(SERIES, errors.items(), strict=False):
        sizes = sorted(of_size)
        drawn = np.maximum([of_size[size] for size in sizes], least)  # (sizes, draws)
        axes.plot(sizes, np.median(drawn, axis=1), color=colour, marker="o", markersize=4, label=name)
        axes.fill_between(sizes, drawn.min(axis=1), drawn.max(axis=1), color=colour, alpha=0.18, linewidth=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, labels=[f"{size:,}" for size in sizes])
    axes.set_yticks(
        ticks := [tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20, 50) if tick >= least], labels=map(str, ticks)
    )
    axes.minorticks_off()
    axes.set_xlabel("training digits")
    axes.set_ylabel("test digits read wrongly (%)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    draws = {len(drawn) for of_size in errors.values() for drawn in of_size.values()}
    axes.legend(frameon=False, title=f"median of {max(draws)} draws, shaded from least to most")
    return figure
