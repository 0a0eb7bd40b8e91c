"""One look for all figures, and how they are saved."""

from __future__ import annotations

import os
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#2f6db3", "#d9722e", "#8a8f98"
SERIES = (BLUE, ORANGE, "#3b8f5a", "#8d5aa8", "#b23a48", GREY)


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own, in inches, that draws into memory: no display, no pyplot state."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Writes a PNG atomically; its pixels depend on the figure alone."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format="png", metadata={"Software": None})
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target
