"""How the networks of long time lags are compared: each a training run of its own, on the same sequences and budget."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from edgedl.data.digits import embedded_digits
from edgedl.tasks.longlag.data import PROBLEMS, check_length, draw_sequences
from edgedl.tasks.longlag.network import NETWORKS, LagNetwork, units_within, weight_count
from edgedl.tasks.longlag.objective import LagBatches, LagLearning
from edgedl.training.arguments import train_options
from edgedl.training.batches import Samples
from edgedl.training.fit import FitResult, fit
from edgedl.training.lightning_module import TaskModule
from edgedl.training.options import TrainOptions
from edgedl.training.run import Run
from runtime.errors import InputError

log = logging.getLogger(__name__)

FOLDER = "networks"
"""Of the run; a network's own run lies there under its name."""
VALIDATION = 1000
"""Sequences that choose the best epoch."""
RATES: Mapping[str, float] = {"elman": 1e-3, "lstm": 1e-2, "gru": 1e-2}
"""Peak learning rates."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What every network of a problem gets.

    Attributes:
        units: of an LSTM; the others get as many as make no more weights than it has.
        epochs: of training.
        batches: updates of an epoch.
    """

    units: int
    epochs: int
    batches: int = 50


BUDGETS: Mapping[str, Budget] = {
    "adding": Budget(units=32, epochs=20),
    "copy": Budget(units=48, epochs=40),
    "order": Budget(units=32, epochs=20),
    "digits": Budget(units=48, epochs=80, batches=20),
}


def recipe(problem: str, network: str) -> TrainOptions:
    """How a network is trained unless said otherwise; so small ones gain nothing from a second thread."""
    return TrainOptions(
        epochs=BUDGETS[problem].epochs, batch_size=64, optimiser="adam", lr=RATES[network], schedule="one-cycle",
        ema=0.0, clip=1.0, threads=1,
    )  # fmt: skip


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
    _check(args, main)
    problem = main.config["problem"] if main else args.problem or "adding"
    names = list(main.config["networks"]) if main else list(dict.fromkeys(args.network or NETWORKS))
    before = main.config["networks"] if main else {}
    options = {name: train_options(args, _begun(recipe(problem, name), before.get(name))) for name in names}
    if main is None:
        configs = {name: _config(args, problem, name, options[name]) for name in names}
        shared = {key: configs[names[0]][key] for key in ("task", "problem", "length", "seed", "data")}
        main = Run.create(run_path, {**shared, "networks": configs})
    rows = [_train(main, name, options[name]) for name in names]
    best = min(rows, key=lambda row: float(row[row["metric"]]))
    return {
        "problem": problem,
        "network": best["network"],
        "metric": best["metric"],
        "best": best[best["metric"]],
        "right": best["right"],
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "networks": rows,
    }


def network_of(config: Mapping[str, Any]) -> LagNetwork:
    """The network that the configuration of a network's run describes, with the weights that training began with.

    Raises:
        InputError: a problem or network that this version does not have.
    """
    if config["problem"] not in PROBLEMS:
        raise InputError(f"unknown problem {config['problem']!r}; there is {', '.join(PROBLEMS)}")
    length = int(config["length"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(config["seed"]))
        return LagNetwork(
            config["problem"], config["network"], int(config["hidden"]), PROBLEMS[config["problem"]].steps(length)
        )


def trained_network(run: Run) -> LagNetwork:
    """The network of its best epoch, in evaluation mode."""
    network = network_of(run.config)
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
    monitor = LagLearning(run.config["problem"]).monitor
    return min(found.values(), key=lambda one: min(row[monitor] for row in one.history()))


def _network_runs(run: Run) -> Iterator[tuple[str, Run]]:
    if "network" in run.config:
        if run.history():
            yield run.config["network"], run
        return
    for name in run.config["networks"]:
        folder = run.path / FOLDER / name
        if folder.is_dir() and (one := Run.open(folder)).history():
            yield name, one


def _train(main: Run, name: str, options: TrainOptions) -> dict[str, Any]:
    """Trains one network in its own folder, or what is left of it."""
    config = main.config["networks"][name]
    folder = main.path / FOLDER / name
    run = Run.open(folder) if (folder / "config.json").is_file() else Run.create(folder, config)
    problem, length = config["problem"], int(config["length"])
    held_out = draw_sequences(problem, VALIDATION, length=length, seed=options.seed, split="val")
    network = network_of(config)
    weights = sum(parameter.numel() for parameter in network.parameters())
    log.info("%s: %d units, %d weights, %s of length %d", name, network.hidden, weights, problem, length)
    result = fit(
        TaskModule(network, LagLearning(problem)),
        LagBatches(problem, length, options.batch_size, BUDGETS[problem].batches, options.seed),
        Samples({"inputs": held_out.inputs, "lengths": held_out.lengths, "targets": held_out.targets}),
        run,
        options,
    )
    return {"network": name, "hidden": network.hidden, "weights": weights, **_outcome(result)}


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


def _begun(fresh: TrainOptions, config: Mapping[str, Any] | None) -> TrainOptions:
    """The recipe; of a run that goes on, with what it was begun with."""
    if config is None:
        return fresh
    return replace(fresh, **{name: config[name] for name in ("epochs", "batch_size", "lr", "optimiser", "seed")})


def _check(args: Namespace, main: Run | None) -> None:
    """What argparse cannot see.

    Raises:
        InputError: an option is out of range, or another than the run was begun with.
    """
    if args.hidden is not None and args.hidden < 1:
        raise InputError(f"--hidden must be at least 1, not {args.hidden}")
    if main is None:
        problem = args.problem or "adding"
        check_length(problem, PROBLEMS[problem].length if args.length is None else args.length)
        return
    if "networks" not in main.config:
        raise InputError(f"{main.path} is one network of a comparison; resume the run that it lies in")
    begun = {
        "problem": main.config["problem"],
        "length": main.config["length"],
        "network": list(main.config["networks"]),
        "hidden": _single(int(config["hidden"]) for config in main.config["networks"].values()),
    }
    for name, value in begun.items():
        asked = getattr(args, name)
        if asked is not None and asked != value:
            told = " ".join(map(str, value)) if isinstance(value, list) else value
            raise InputError(f"{main.path} was begun with --{name} {told}; resume it without --{name}")


def _single(values: Iterable[int]) -> int | list[int]:
    """The value that all share, or all of them."""
    found = list(values)
    return found[0] if len(set(found)) == 1 else found


def _config(args: Namespace, problem: str, network: str, options: TrainOptions) -> dict[str, Any]:
    """Everything needed to build the network again and to say where it came from."""
    budget = BUDGETS[problem]
    hidden = args.hidden or units_within(problem, network, weight_count(problem, "lstm", budget.units))
    drawn = options.epochs * budget.batches * options.batch_size
    count = len(embedded_digits("train")) if problem == "digits" else drawn
    return {
        "task": "longlag",
        "problem": problem,
        "length": PROBLEMS[problem].length if args.length is None else args.length,
        "network": network,
        "hidden": hidden,
        "weights": [],
        "license": "Apache-2.0",
        "data": {"name": f"longlag-{problem}", "n": count, "skipped": {}, "notes": []},
        "seed": options.seed,
        "lr": options.lr,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "optimiser": options.optimiser,
    }
