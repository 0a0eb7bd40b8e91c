"""The pictures of a gradients run: what is left of x_1 before and after training, and memory blocks at work."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgedl.figures.style import save_figure
from edgedl.tasks.comparison import Comparison
from edgedl.tasks.gradients.config import BATCHES, BLOCKS, RecallConfig
from edgedl.tasks.gradients.data import RecallSequences, draw_kept, draw_sequences
from edgedl.tasks.gradients.network import RecallNetwork, memory_blocks, units_over_time
from edgedl.tasks.gradients.recall_figure import LABELS, Blocks, Network, blocks_figure, gradients_after_training
from edgedl.tasks.gradients.sensitivity import unit_sensitivity
from edgedl.tasks.gradients.sensitivity_figure import save_gradients
from edgedl.tasks.gradients.training import (
    MEASURED,
    SENSITIVITIES,
    Curve,
    best_of_blocks,
    read_sensitivities,
    sensitivities_table,
    trained_network,
)
from edgedl.training.run import Run
from runtime.errors import InputError

CHOICE = 200
"""Sequences to choose from."""


def plot_gradients(run_path: str | PathLike[str], output: str | PathLike[str] | None) -> list[Path]:
    """Draws the pictures of a run, the numbers of each beside it.

    Args:
        run_path: the run.
        output: the first picture; the others are named after it. By default they lie in the run.

    Returns:
        ``gradients.png``, |∂h_t/∂x_1| before and after training; ``blocks.png``, the gates of the best trained memory
        blocks over time, if the run has any; ``untrained.png``, see `edgedl.tasks.gradients.sensitivity_figure`.

    Raises:
        InputError: there is no run, or its training did not end.
    """
    run = Run.open(run_path)
    comparison = Comparison.of(run, RecallConfig)
    curves = read_sensitivities(run.path / SENSITIVITIES)
    first = Path(output) if output else run.path / "gradients.png"
    stem = "" if output is None else f"{first.stem}-"

    def place(name: str) -> Path:
        return first.with_name(f"{stem}{name}.png")

    steps = comparison.first.steps
    networks = [_network(run, kind, curves) for kind in comparison.trainings]
    asked = np.flatnonzero(draw_kept(1, steps=steps).asked[0]) + 1
    title = f"the first of {steps} values is kept: median and quartiles over {MEASURED} sequences"
    save_figure(gradients_after_training(networks, asked.tolist(), title), first)
    first.with_suffix(".csv").write_text(sensitivities_table(curves), encoding="utf-8")
    pictures = [first]
    if any(kind in BLOCKS for kind in comparison.trainings):
        network = trained_network(best_of_blocks(run))
        blocks = look_into(network, telling_sequence(steps))
        label = f"{LABELS[network.kind]}, {network.hidden} memory blocks"
        pictures.append(save_figure(blocks_figure(blocks, label), place("blocks")))
        write_blocks(blocks, place("blocks").with_suffix(".csv"))
    return [*pictures, save_gradients(place("untrained"))[0]]


def look_into(network: RecallNetwork, sequence: RecallSequences) -> Blocks:
    """What trained memory blocks do with one sequence, in float64."""
    inputs = torch.from_numpy(sequence.inputs).double()
    with torch.no_grad():
        inside = memory_blocks(network, inputs)
        weight, bias = network.readout.weight.double(), network.readout.bias.double()
        answers = (inside["hidden"] @ weight.t() + bias).squeeze(-1)
    return Blocks(
        sequence.inputs[0],
        sequence.targets[0],
        answers[0].numpy(),
        {name: inside[name][0].numpy() for name in ("input", "forget", "output")},
        inside["cell"][0].numpy(),
        unit_sensitivity(units_over_time(network)["cell"], inputs)[0].numpy(),
    )


def telling_sequence(steps: int) -> RecallSequences:
    """Of 200 test sequences the one that stores once more, another value, and is asked most on both sides of it.

    It is chosen by what goes in, not by how well a network answers it.
    """
    drawn = draw_sequences(CHOICE, steps=steps, split="test")
    stores, asked = drawn.inputs[..., 1] > 0.5, drawn.asked
    second = np.cumsum(stores, axis=1) > 1
    told = np.minimum((asked & second).sum(axis=1), (asked & ~second).sum(axis=1))
    kept = np.where(stores, drawn.inputs[..., 0], 0)
    other = np.abs(2 * kept[:, 0] - kept.sum(axis=1)) >= 1  # of two values, one less the other
    best = int(np.argmax(np.where((stores.sum(axis=1) == 2) & other, told, -1)))
    row = slice(best, best + 1)
    return RecallSequences(drawn.inputs[row], drawn.targets[row], drawn.lag[row])


def write_blocks(blocks: Blocks, path: Path) -> Path:
    """Writes the numbers behind the picture of memory blocks, a row a step and block, blocks numbered as drawn."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["t", "value", "store", "recall", "target", "answer", "block", *blocks.gates, "cell", "left"])
        for step, (given, target, answer) in enumerate(zip(blocks.inputs, blocks.targets, blocks.answers, strict=True)):
            for number, block in enumerate(blocks.ordered(), 1):
                inside = [*(gate[step, block] for gate in blocks.gates.values()), blocks.cell[step, block]]
                numbers = [*given, target, answer, number, *inside, blocks.left[step, block]]
                writer.writerow([step + 1, *(f"{value:.8g}" for value in numbers)])
    return path


def _network(run: Run, kind: str, curves: list[Curve]) -> Network:
    one = Run.open(RecallConfig.folder(run.path, kind))
    found: Mapping[tuple[str, str], NDArray[np.float64]] = {
        (curve.units, curve.training): curve.quartiles for curve in curves if curve.network == kind
    }
    history = one.history()
    if ("hidden", "before") not in found or ("hidden", "after") not in found or not history:
        raise InputError(f"{one.path}: the training of {kind} was not recorded to its end; train it anew")
    return Network(
        kind,
        found["hidden", "before"],
        found["hidden", "after"],
        found.get(("cell", "after")),
        np.array([row["MSE"] for row in history]),
        np.array([row["epoch"] * BATCHES for row in history]),
    )
