"""How the networks of long time lags are compared: each a training run of its own, on the same sequences and budget."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from edgedl.tasks.comparison import Comparison
from edgedl.tasks.longlag.config import BUDGETS, NETWORKS, PROBLEM, LagConfig, Network, recipe
from edgedl.tasks.longlag.data import PROBLEMS, ProblemName, draw_sequences
from edgedl.tasks.longlag.network import LagNetwork
from edgedl.tasks.longlag.objective import LagBatches, LagLearning
from edgedl.training.arguments import train_options
from edgedl.training.batches import Samples
from edgedl.training.fit import FitResult, fit
from edgedl.training.lightning_module import TaskModule
from edgedl.training.options import TrainOptions
from edgedl.training.run import Run
from runtime.errors import InputError

log = logging.getLogger(__name__)

VALIDATION = 1000
"""Sequences that choose the best epoch."""


def train_longlag(args: Namespace, run_path: Path) -> dict[str, Any]:
    """Trains every network that was asked for, one after the other.

    Returns:
        The network with the least validation loss with that loss and its share of right sequences, and a row for each.

    Raises:
        InputError: options that do not fit.
    """
    if args.data:
        raise InputError("long time lags are drawn, or embedded digits; --data is not read")
    main = Run.open(run_path) if args.resume else None
    if main:
        comparison = Comparison.of(main, LagConfig)
        comparison.check_resumed(args, run_path)
        options = {
            name: train_options(args, config.begun_with(recipe(config.problem, config.network)))
            for name, config in comparison.trainings.items()
        }
        comparison = Comparison({name: one.resumed_with(options[name]) for name, one in comparison.trainings.items()})
        main = main.amended(**comparison.to_json())
    else:
        problem: ProblemName = args.problem or PROBLEM
        names: tuple[Network, ...] = tuple(dict.fromkeys(args.network or NETWORKS))
        options = {name: train_options(args, recipe(problem, name)) for name in names}
        comparison = Comparison({name: LagConfig.asked(args, name, options[name]) for name in names})
        main = Run.create(run_path, comparison.to_json())
    rows = [_train(main, config, options[name]) for name, config in comparison.trainings.items()]
    best = min(rows, key=lambda row: float(row[row["metric"]]))
    return {
        "problem": comparison.first.problem,
        "network": best["network"],
        "metric": best["metric"],
        "best": best[best["metric"]],
        "right": best["right"],
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "networks": rows,
    }


def network_of(config: LagConfig) -> LagNetwork:
    """The network that the configuration of a network's run describes, with the weights that training began with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        steps = PROBLEMS[config.problem].steps(config.length)
        return LagNetwork(config.problem, config.network, config.hidden, steps)


def trained_network(run: Run) -> LagNetwork:
    """The network of one network's run as it was in its best epoch, in evaluation mode.

    Raises:
        InputError: the run is none of a network on long time lags, or none of its epochs has ended.
    """
    network = network_of(LagConfig.of(run))
    network.load_state_dict(run.best_weights())
    return network.eval()


def network_runs(run: Run) -> dict[str, Run]:
    """The runs of the single networks by name, those that have ended an epoch; of such a run itself that one.

    Raises:
        InputError: none has.
    """
    found = dict(_network_runs(run))
    if not found:
        raise InputError(f"{run.path}: none of its networks has finished an epoch yet; resume it with --resume")
    return found


def best_run(run: Run) -> Run:
    """The run of the network that validates best; of a single network's run that one.

    Raises:
        InputError: no network has ended an epoch.
    """
    found = network_runs(run)
    monitor = LagLearning(Comparison.of(run, LagConfig, single=True).first.problem).monitor
    return min(found.values(), key=lambda one: min(row[monitor] for row in one.history()))


def _network_runs(run: Run) -> Iterator[tuple[str, Run]]:
    comparison = Comparison.of(run, LagConfig, single=True)
    for name in comparison.trainings:
        folder = LagConfig.folder(run.path, name) if LagConfig.compared(run) else run.path
        if folder.is_dir() and (one := Run.open(folder)).history():
            yield name, one


def _train(main: Run, config: LagConfig, options: TrainOptions) -> dict[str, Any]:
    """Trains one network in its own folder, or what is left of it."""
    folder = LagConfig.folder(main.path, config.network)
    begun = (folder / "config.json").is_file()
    run = Run.open(folder).amended(**config.to_json()) if begun else Run.create(folder, config.to_json())
    problem, length = config.problem, config.length
    held_out = draw_sequences(problem, VALIDATION, length=length, seed=options.seed, split="val")
    network = network_of(config)
    weights = sum(parameter.numel() for parameter in network.parameters())
    log.info("%s: %d units, %d weights, %s of length %d", config.network, network.hidden, weights, problem, length)
    result = fit(
        TaskModule(network, LagLearning(problem)),
        LagBatches(problem, length, options.batch_size, BUDGETS[problem].batches, options.seed),
        Samples({"inputs": held_out.inputs, "lengths": held_out.lengths, "targets": held_out.targets}),
        run,
        options,
    )
    return {"network": config.network, "hidden": network.hidden, "weights": weights, **_outcome(result)}


def _outcome(result: FitResult) -> dict[str, Any]:
    best = result.history[result.best_epoch - 1]
    return {
        "metric": result.metric,
        result.metric: result.best,
        "right": best["right"],
        "best_epoch": result.best_epoch,
        "updates": int(result.history[-1]["step"]),
        "seconds": round(result.history[-1]["seconds"], 1),
    }
