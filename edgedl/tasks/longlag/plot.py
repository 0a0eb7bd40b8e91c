"""The picture of a run on long time lags: errors against updates, and what of the beginning reaches the end."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from edgedl.figures.style import save_figure
from edgedl.tasks.comparison import Comparison
from edgedl.tasks.longlag.config import LagConfig
from edgedl.tasks.longlag.data import PROBLEMS, LagSequences, draw_sequences
from edgedl.tasks.longlag.figure import LagCurve, longlag_figure, write_gradients, write_updates
from edgedl.tasks.longlag.network import LagNetwork
from edgedl.tasks.longlag.objective import LagLearning
from edgedl.tasks.longlag.training import network_of, network_runs, trained_network
from edgedl.training.run import Run

ROWS = 64
"""Sequences that gradients are averaged over."""


def plot_longlag(run_path: str | PathLike[str], output: str | PathLike[str] | None) -> list[Path]:
    """Draws a run.

    Args:
        run_path: the run, of several networks or of one.
        output: the picture; by default ``longlag.png`` in the run.

    Returns:
        The picture. Beside it lie its numbers: ``….csv`` of the updates and ``…-gradients.csv`` of the lags.

    Raises:
        InputError: there is no run, or no network has ended an epoch.
    """
    run = Run.open(run_path)
    comparison = Comparison.of(run, LagConfig, single=True)
    problem, length = comparison.first.problem, comparison.first.length
    monitor = LagLearning(problem).monitor
    drawn = draw_sequences(problem, ROWS, length=length, split="val", seed=3)
    curves = []
    for name, one in network_runs(run).items():
        config, history = comparison.trainings[name], one.history()
        curves.append(
            LagCurve(
                name,
                [int(row["step"]) for row in history],
                [int(row["step"]) * config.batch_size for row in history],
                [1 - row["right"] for row in history],
                [row[monitor] for row in history],
                reach(network_of(config), drawn).tolist(),
                reach(trained_network(one), drawn).tolist(),
            )
        )
    picture = Path(output) if output else run.path / "longlag.png"
    constant = PROBLEMS[problem].constant(length)
    save_figure(longlag_figure(curves, constant, f"{problem}, T = {length}"), picture)
    write_updates(curves, constant, monitor, picture.with_suffix(".csv"))
    write_gradients(curves, picture.with_name(f"{picture.stem}-gradients.csv"))
    return [picture]


def reach(network: LagNetwork, drawn: LagSequences) -> Tensor:
    """How much the last answer depends on each step before it: |∂answer/∂x| by lag, 0 being the last step.

    The answer is the number that is asked for, or the logit of the right class; of ``copy`` at the last step.

    Returns:
        (L,) float64, the mean over rows of the norm over features; L steps are what the shortest row has.
    """
    exact = network.double()
    encoded = exact.encode(_as_double(drawn)).detach().requires_grad_()
    lengths, targets = torch.from_numpy(drawn.lengths), torch.from_numpy(drawn.targets)
    if exact.problem.every_step:
        answers, targets = exact.read(encoded, None)[:, -1], targets[:, -1]
    else:
        answers = exact.read(encoded, lengths)
    if answers.dim() == 2:
        answers = answers.gather(1, targets.unsqueeze(1))
    (gradient,) = torch.autograd.grad(answers.sum(), encoded)  # (B, T, F)
    steps = torch.arange(int(lengths.min()))
    rows = torch.arange(len(lengths)).unsqueeze(1)
    reached: Tensor = gradient.norm(dim=-1)[rows, lengths.unsqueeze(1) - 1 - steps].mean(dim=0)
    return reached


def _as_double(drawn: LagSequences) -> Tensor:
    given = torch.from_numpy(drawn.inputs)
    return given.double() if given.is_floating_point() else given
