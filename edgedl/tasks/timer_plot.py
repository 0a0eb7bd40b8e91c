"""The pictures of a timer run: its curves, and u1, u2, target and answer over time."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import torch

from edgedl.data.timer import draw_sequences
from edgedl.figures.curves import save_curves
from edgedl.figures.style import save_figure
from edgedl.figures.timer import timer_figure, write_table
from edgedl.tasks.timer_training import network_of
from edgedl.training.run import Run

SCALES = 12
"""So many of them are drawn."""


def plot_timer(run_path: str | PathLike[str], output: str | PathLike[str] | None) -> list[Path]:
    """Draws the pictures of a run.

    Args:
        run_path: the run.
        output: the timer's picture; the curves are named after it. By default they lie in the run.

    Returns:
        ``timer.png`` (its numbers beside it in ``timer.csv``) and ``curves.png``.

    Raises:
        InputError: there is no run, or none of its epochs has ended.
    """
    run = Run.open(run_path)
    history = run.history()
    network = network_of(run.config)
    network.load_state_dict(run.best_weights())
    network.eval()
    scale = int(run.config["scale"])
    shown = draw_sequences(1, scale=scale, steps=SCALES * scale, split="test", part=7)
    with torch.no_grad():
        answers = network(torch.from_numpy(shown.inputs), *network.initial_state(1))[0].numpy()
    first = Path(output) if output else run.path / "timer.png"
    curves = first.with_name("curves.png" if output is None else f"{first.stem}-curves.png")
    title = f"{run.config['network']}, {network.hidden} units, {scale}·u2 steps"
    save_figure(timer_figure(shown.inputs[0], shown.targets[0], answers[0], title), first)
    write_table(shown.inputs[0], shown.targets[0], np.asarray(answers[0]), first.with_suffix(".csv"))
    save_curves(history, curves)
    return [first, curves]
