"""The pictures of a timer run: its curves, and u1, u2, target and answer over time."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgedl.figures.curves import save_curves
from edgedl.figures.style import save_figure
from edgedl.tasks.timer.config import TimerConfig
from edgedl.tasks.timer.data import draw_sequences, find_pulses
from edgedl.tasks.timer.figure import timer_figure, write_table
from edgedl.tasks.timer.training import trained_network
from edgedl.training.run import Run

CHOICE, SCALES = 32, 12
"""Sequences to choose from, and their length."""


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
    config, network = TimerConfig.of(run), trained_network(run)
    scale = config.scale
    inputs, targets = lively_sequence(scale)
    with torch.no_grad():
        answers = network(torch.from_numpy(inputs[None]), *network.initial_state(1))[0].numpy()[0]
    first = Path(output) if output else run.path / "timer.png"
    curves = first.with_name("curves.png" if output is None else f"{first.stem}-curves.png")
    title = f"{config.network}, {network.hidden} units, {scale}·u2 steps"
    save_figure(timer_figure(inputs, targets, answers, title), first)
    write_table(inputs, targets, answers, first.with_suffix(".csv"))
    save_curves(history, curves)
    return [first, curves]


def lively_sequence(scale: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Inputs (T, 2) and targets (T,) of the test sequence, out of 32, with the most different whole durations.

    It is chosen by what goes in, not by how well a network answers it.
    """
    drawn = draw_sequences(CHOICE, scale=scale, steps=SCALES * scale, split="test")
    pulses = find_pulses(drawn.inputs, scale)
    whole = pulses.complete
    kinds = [len(set(pulses.duration[whole & (pulses.row == row)].tolist())) for row in range(CHOICE)]
    best = int(np.argmax(kinds))
    return drawn.inputs[best], drawn.targets[best]
