"""From pixels to objects: what the units of a network answer to, and where in a photo they do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from edgedl.figures.caption import enlarged
from edgedl.figures.occlusion import draw_effect
from edgedl.figures.style import GREY, new_figure, save_figure

MOST_FILTERS = 36


@dataclass(frozen=True, slots=True, eq=False)
class UnitRow:
    """Some units at one depth.

    Attributes:
        stage: what is built there: texture, motif, part, object.
        names: (U,) of the units.
        pictures: (U, S, S, 3) uint8, what excites each most.
        answers: (U, h, w) what each answers to the photo; None where there is one number only.
    """

    stage: str
    names: tuple[str, ...]
    pictures: NDArray[np.uint8]
    answers: NDArray[np.floating] | None


@dataclass(frozen=True, slots=True, eq=False)
class ClassMap:
    """A score's map (h, w) over the photo; `signed` where it has two directions."""

    name: str
    values: NDArray[np.floating]
    signed: bool


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSheet:
    """All that the figure shows.

    Attributes:
        name: of the network.
        photo: (S, S, 3) uint8, as the network gets it.
        kernels: (C, 3, k, k) of the first convolution.
        rows: from shallow to deep.
        maps: over the photo.
    """

    name: str
    photo: NDArray[np.uint8]
    kernels: NDArray[np.floating]
    rows: tuple[UnitRow, ...]
    maps: tuple[ClassMap, ...]


def features_figure(sheet: FeatureSheet) -> Figure:
    """Columns pixel, edge, texture, motif, part, object; below them where the photo excites the first unit of each.

    The last row is the photo with the maps of its scores.
    """
    columns = 2 + len(sheet.rows)
    figure = new_figure(2.35 * columns, 9.8)
    figure.suptitle(f"{sheet.name}: pixel → edge → {' → '.join(row.stage for row in sheet.rows)}", fontsize="large")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.1, 1.0))[:, 0]
    axes = above.subplots(2, columns, squeeze=False)
    size = sheet.kernels.shape[-1]
    rows, columns_shown = _detail(sheet.photo)
    _photo(axes[0, 0], sheet.photo, (0, 0), "the photo")
    axes[0, 0].set_title("pixel", fontsize="x-large", color="black")
    _sheet(
        axes[0, 1],
        filter_sheet(sheet.kernels),
        "edge",
        f"{len(sheet.kernels)} first filters\n{size} × {size} pixels each",
    )
    detail = sheet.photo[rows, columns_shown]
    _photo(
        axes[1, 0], detail, (rows.start, columns_shown.start), f"{detail.shape[1]} × {detail.shape[0]} of its pixels"
    )
    _response(axes[1, 1], first_answer(sheet.photo, sheet.kernels), "|a first filter| on the photo")
    for column, row in enumerate(sheet.rows, start=2):
        count, height, width = row.pictures.shape[:3]
        _sheet(
            axes[0, column],
            tiled(row.pictures),
            row.stage,
            f"what excites {count} units\n{width} × {height} pixels each",
        )
        if row.answers is None:
            axes[1, column].set_axis_off()
            axes[1, column].text(0.5, 0.5, "\n".join(row.names), ha="center", va="center", fontsize="small")
        else:
            _response(axes[1, column], row.answers[0], f"{row.names[0]} on the photo")
    _maps(below.subplots(1, 1 + len(sheet.maps), squeeze=False)[0], sheet)
    return figure


def save_features(sheet: FeatureSheet, path: str | os.PathLike[str]) -> Path:
    """Draws `features_figure` into a PNG."""
    return save_figure(features_figure(sheet), path)


def filter_sheet(kernels: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Kernels (C, 3, k, k) as a square of tiles, the most colourful or contrasted first, 0 being mid grey."""
    order = np.argsort(-np.square(kernels - kernels.mean(axis=(2, 3), keepdims=True)).sum(axis=(1, 2, 3)))
    chosen = kernels[order[:MOST_FILTERS]]
    scaled = chosen / np.maximum(np.abs(chosen).max(axis=(1, 2, 3), keepdims=True), 1e-12)
    return tiled((127.5 + 127.5 * scaled).round().astype(np.uint8).transpose(0, 2, 3, 1), gap=1)


def tiled(pictures: NDArray[np.uint8], gap: int = 3) -> NDArray[np.uint8]:
    """Pictures (U, S, S, 3) in a square with white gaps: (H, W, 3)."""
    count, height, width = pictures.shape[:3]
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        top, left = row * (height + gap), column * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def first_answer(photo: NDArray[np.uint8], kernels: NDArray[np.floating]) -> NDArray[np.float64]:
    """What the most contrasted kernel answers to the photo, at every pixel that it fits on."""
    spread = np.square(kernels - kernels.mean(axis=(2, 3), keepdims=True)).sum(axis=(1, 2, 3))
    kernel = kernels[int(spread.argmax())]  # (3, k, k)
    windows = np.lib.stride_tricks.sliding_window_view(photo.astype(np.float64) / 255, kernel.shape[1:], axis=(0, 1))
    return np.asarray(np.abs(np.einsum("hwckl,ckl->hw", windows, kernel)), np.float64)


def _detail(photo: NDArray[np.uint8]) -> tuple[slice, slice]:
    """24 × 24 pixels where the photo is liveliest."""
    grey = photo.astype(np.float64).mean(axis=2)
    side = min(24, *grey.shape)
    windows = np.lib.stride_tricks.sliding_window_view(grey, (side, side))[::8, ::8]
    row, column = np.unravel_index(int(windows.std(axis=(2, 3)).argmax()), windows.shape[:2])
    return slice(8 * int(row), 8 * int(row) + side), slice(8 * int(column), 8 * int(column) + side)


def _sheet(axes: Axes, picture: NDArray[np.uint8], title: str, below: str) -> None:
    """Many small pictures side by side: there is no place in them that an axis could tell."""
    axes.imshow(picture, interpolation="nearest")
    axes.set_title(title, fontsize="x-large")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(below, fontsize="small", color=GREY)


def _photo(axes: Axes, picture: NDArray[np.uint8], corner: tuple[int, int], what: str) -> None:
    """Pixels (h, w, 3) of the photo, from row and column `corner` on."""
    (top, left), (height, width) = corner, picture.shape[:2]
    extent = (left - 0.5, left + width - 0.5, top + height - 0.5, top - 0.5)
    axes.imshow(picture, interpolation="nearest", extent=extent)
    _placed(axes, "pixels", what)


def _response(axes: Axes, values: NDArray[np.floating], what: str) -> None:
    """What a unit answers at each of its places over the photo, with its scale."""
    image = axes.imshow(values, cmap="magma", interpolation="nearest")
    _placed(axes, "places", what)
    bar = axes.figure.colorbar(image, ax=axes, location="bottom", shrink=0.8, aspect=24)
    bar.set_label("answer of the unit", fontsize="x-small")
    bar.locator = MaxNLocator(4)
    bar.ax.tick_params(labelsize="x-small")


def _placed(axes: Axes, unit: str, what: str) -> None:
    axes.set_title(what, fontsize="small", color=GREY)
    axes.set_xlabel(f"x ({unit})", fontsize="x-small")
    axes.set_ylabel(f"y ({unit})", fontsize="x-small")
    axes.tick_params(labelsize="x-small")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, integer=True))


def _maps(places: NDArray[np.object_], sheet: FeatureSheet) -> None:
    """The photo, then each score's map over it with its scale."""
    height, width = sheet.photo.shape[:2]
    places[0].imshow(sheet.photo)
    places[0].set_title("the photo", fontsize="medium")
    for axes, shown in zip(places[1:], sheet.maps, strict=True):
        values = enlarged(shown.values, height, width)
        if shown.signed:
            image = draw_effect(axes, sheet.photo, values)
        else:
            axes.imshow(sheet.photo.mean(axis=2), cmap="gray", vmin=0, vmax=255)
            image = axes.imshow(values / max(float(values.max()), 1e-12), cmap="inferno", vmin=0, vmax=1, alpha=0.6)
        axes.set_title(shown.name, fontsize="medium")
        bar = axes.figure.colorbar(image, ax=axes, shrink=0.8)
        bar.set_label("score, whole less hidden" if shown.signed else "share of the largest", fontsize="small")
    for axes in places:
        axes.set_xlabel("x (pixels)", fontsize="small")
        axes.set_ylabel("y (pixels)", fontsize="small")
