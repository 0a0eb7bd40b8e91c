"""A picture and where its answer comes from."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from edgedl.figures.style import BLUE, ORANGE, new_figure, save_figure
from runtime.occlusion import Occlusion

DIVERGING = LinearSegmentedColormap.from_list("speaks", (BLUE, "#ffffff", ORANGE))
LUMINANCE = np.array((0.299, 0.587, 0.114))
COVER = 0.65
"""Share of the colour over the grey picture."""


def occlusion_figure(pixels: NDArray[np.uint8], occlusion: Occlusion, meaning: str, unit: str | None) -> Figure:
    """The picture, and beside it what hiding each place takes away from the answer, with its scale.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        occlusion: of that picture.
        meaning: what the answer is.
        unit: of the answer.
    """
    figure = new_figure(9.2, 0.6 + 4.0 * min(1.4, pixels.shape[0] / pixels.shape[1]))
    left, right = figure.subplots(1, 2)
    left.imshow(pixels)
    left.set_title(f"{meaning} {occlusion.whole:.3g}{f' {unit}' if unit else ''}", fontsize="medium")
    image = draw_effect(right, pixels, occlusion.per_pixel())
    right.set_title(f"hidden patch by patch ({occlusion.patch} pixels)", fontsize="medium")
    for axes in (left, right):
        axes.set_xlabel("x (pixels)")
        axes.set_ylabel("y (pixels)")
    bar = figure.colorbar(image, ax=right, shrink=0.85)
    bar.set_label(f"{meaning}, whole less hidden{f' ({unit})' if unit else ''}")
    return figure


def draw_effect(axes: Axes, pixels: NDArray[np.uint8], effect: NDArray[np.floating]) -> AxesImage:
    """A grey picture (H, W, 3) under an effect (H, W): warm where it raises the answer, blue where it lowers it."""
    largest = max(float(np.abs(effect).max()), 1e-12)
    axes.imshow(pixels @ LUMINANCE, cmap="gray", vmin=0, vmax=255)
    return axes.imshow(effect, cmap=DIVERGING, vmin=-largest, vmax=largest, alpha=COVER)


def save_occlusion(
    pixels: NDArray[np.uint8], occlusion: Occlusion, meaning: str, unit: str | None, path: str | os.PathLike[str]
) -> Path:
    """Draws `occlusion_figure` into a PNG."""
    return save_figure(occlusion_figure(pixels, occlusion, meaning, unit), path)
