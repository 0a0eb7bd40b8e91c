"""The vanishing gradient as a picture, and a memory block that keeps it; the numbers beside it as CSV."""

from __future__ import annotations

import csv
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edgedl.figures.style import GREY, SERIES, new_figure, save_figure
from edgedl.tasks.gradients.sensitivity import block_sensitivity, driven_block, networks_sensitivity, run_block

Array = NDArray[np.float64]

STEPS, INPUTS, HIDDEN, NETWORKS = 60, 2, 16, 20
NETWORKS_SHOWN = {
    "RNN": ("rnn", 0.0),
    "GRU": ("gru", 0.0),
    "LSTM": ("lstm", 0.0),
    "GRU, update bias +5": ("gru", 5.0),
    "LSTM, forget bias +5": ("lstm", 5.0),
}
"""Label -> kind, and what is added to the bias of the gate that keeps."""

BLOCK_STEPS = 12
SHOWN_AT = (3, 4, 8)
"""The steps, from 0, at which the driven block's output gate is open."""
FORGET_AT = 10


def measure_networks(seeds: int = NETWORKS) -> dict[str, Array]:
    """|∂h_t/∂x_1| / |∂h_1/∂x_1| of untrained networks as torch makes them: label -> (networks, T)."""
    found = {}
    for label, (kind, keep) in NETWORKS_SHOWN.items():
        rows = networks_sensitivity(kind, INPUTS, HIDDEN, STEPS, seeds=range(seeds), keep=keep).numpy()
        found[label] = rows / rows[:, :1]
    return found


def measure_block() -> dict[str, Array]:
    """A block that takes in a value at step 1, keeps it, shows it three times and forgets it: name -> (T,)."""
    given = torch.zeros(BLOCK_STEPS, 4, dtype=torch.float64)
    given[0, 1] = 1
    given[1:, 2] = 1
    given[FORGET_AT, 2] = 0
    given[list(SHOWN_AT), 3] = 1
    block = driven_block()
    inside = run_block(block, given)
    return {
        "input gate": inside["input"].numpy(),
        "forget gate": inside["forget"].numpy(),
        "output gate": inside["output"].numpy(),
        "|dc_t/dx_1|": block_sensitivity(block, given, "cell").numpy(),
        "|dh_t/dx_1|": block_sensitivity(block, given).numpy(),
    }


def gradients_figure(networks: dict[str, Array], block: dict[str, Array]) -> Figure:
    """Medians of many networks over time, and the gates of one driven block with what they do to the gradient."""
    figure = new_figure(8.4, 6.2)
    above, below = figure.subplots(2, 1, height_ratios=(3, 2))
    for (label, rows), colour in zip(networks.items(), SERIES, strict=False):
        steps = np.arange(1, rows.shape[1] + 1)
        low, middle, high = np.quantile(rows, (0.25, 0.5, 0.75), axis=0)
        above.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        above.plot(steps, middle, color=colour, label=label)
    above.set(yscale="log", xlabel="t (steps)", ylabel="|∂h$_t$/∂x$_1$| over |∂h$_1$/∂x$_1$|")
    count = len(next(iter(networks.values())))
    above.set_title(f"untrained networks of {HIDDEN} units: median and quartiles of {count}", fontsize="medium")
    above.legend(frameon=False, ncols=2, loc="lower left", fontsize="small")
    above.spines[["top", "right"]].set_visible(False)
    above.grid(alpha=0.25)
    shade = np.stack(list(block.values()))
    image = below.imshow(shade, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    names = [name.replace("dc_t/dx_1", "∂c$_t$/∂x$_1$").replace("dh_t/dx_1", "∂h$_t$/∂x$_1$") for name in block]
    below.set_yticks(range(len(block)), names)
    below.set_xticks(range(shade.shape[1]), [str(step + 1) for step in range(shade.shape[1])])
    below.set_xlabel("t (steps)")
    below.set_title("one memory block: open gates, and what is left of the first input", fontsize="medium")
    below.set_xticks(np.arange(-0.5, shade.shape[1]), minor=True)
    below.set_yticks(np.arange(-0.5, len(block)), minor=True)
    below.grid(which="minor", color=GREY, linewidth=0.5)
    below.tick_params(which="minor", length=0)
    figure.colorbar(image, ax=below, label="0: shut, none   1: open, all")
    return figure


def save_gradients(path: str | PathLike[str], seeds: int = NETWORKS) -> list[Path]:
    """Measures, draws the picture into ``path`` (PNG) and writes its numbers beside it.

    Returns:
        The picture; ``NAME.csv``, the networks' quartiles at every step; ``NAME-block.csv``, the block's gates.
    """
    networks, block = measure_networks(seeds), measure_block()
    picture = save_figure(gradients_figure(networks, block), path)
    quartiles = {label: np.quantile(rows, (0.25, 0.5, 0.75), axis=0) for label, rows in networks.items()}
    columns = {f"{label} {name}": quartiles[label][row] for label in networks
               for row, name in enumerate(("25 %", "50 %", "75 %"))}  # fmt: skip
    return [
        picture,
        _write(picture.with_suffix(".csv"), columns),
        _write(picture.with_name(f"{picture.stem}-block.csv"), block),
    ]


def _write(path: Path, columns: dict[str, Array]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["t", *columns])
        for step, row in enumerate(np.stack(list(columns.values()), axis=1), 1):
            writer.writerow([step, *(f"{value:.8g}" for value in row)])
    return path
