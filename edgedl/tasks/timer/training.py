"""How timers learn: the recipe of each network, what can be asked for, and the network of a run."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgedl.tasks.timer.data import NAME, SCALE, check_scale, draw_sequences
from edgedl.tasks.timer.network import TimerNetwork
from edgedl.tasks.timer.objective import TimerBatches, TimerLearning
from edgedl.training.arguments import train_options
from edgedl.training.batches import Samples
from edgedl.training.fit import fit
from edgedl.training.lightning_module import TaskModule
from edgedl.training.options import TrainOptions
from edgedl.training.run import Run
from runtime.errors import InputError

log = logging.getLogger(__name__)

TRAINING_LENGTH = 8
"""Scales in a training sequence: four starts on average."""
BATCHES = 100
"""Of an epoch."""
VALIDATION = 128
"""Sequences that choose the best epoch."""
HIDDEN: Mapping[str, int] = {"elman": 32, "jordan": 32, "lstm": 24, "gru": 24}
SELF_WEIGHT = 0.5


def recipe(network: str) -> TrainOptions:
    """How a network is trained unless said otherwise; so small ones gain nothing from a second thread."""
    gated = network in ("lstm", "gru")
    return TrainOptions(
        epochs=30 if gated else 70, batch_size=32, optimiser="adam", lr=1e-2 if gated else 6e-3, schedule="one-cycle",
        ema=0.0, clip=1.0, threads=1,
    )  # fmt: skip


def train_timer(args: Namespace, run_path: Path) -> dict[str, Any]:
    """Trains a timer as the command line says.

    Returns:
        The validation MSE of the best epoch and its share of exact pulses, its number, and the seconds taken.

    Raises:
        InputError: options that do not fit.
    """
    if args.data:
        raise InputError("the timer learns from sequences that are drawn for it; --data is not read")
    run = Run.open(run_path) if args.resume else None
    network_name = args.network or (run.config["network"] if run else "elman")
    _check(args, network_name)
    options = train_options(args, recipe(network_name))
    config = dict(run.config) if run else _config(args, network_name, options)
    if run is not None:
        _check_resumed(args, config, run_path)
    scale, steps = int(config["scale"]), int(config["steps"])
    held_out = draw_sequences(VALIDATION, scale=scale, steps=steps, seed=options.seed, split="val")
    torch.manual_seed(options.seed)
    network = network_of(config)
    if run is None:
        run = Run.create(run_path, config)
    count = sum(parameter.numel() for parameter in network.parameters())
    log.info("%s: %d units, %d weights, sequences of %d steps", network_name, config["hidden"], count, steps)
    result = fit(
        TaskModule(network, TimerLearning(scale, config["truncate"])),
        TimerBatches(scale, steps, options.batch_size, BATCHES, options.seed),
        Samples({"inputs": held_out.inputs, "targets": held_out.targets}),
        run,
        options,
    )
    best = result.history[result.best_epoch - 1]
    return {
        "network": network_name,
        "weights": count,
        "metric": result.metric,
        "best": result.best,
        "exact": best["exact"],
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "seconds": round(result.seconds, 1),
    }


def network_of(config: Mapping[str, Any]) -> TimerNetwork:
    """The network that a run's configuration describes, with weights from chance.

    Raises:
        InputError: a network that this version does not have.
    """
    return TimerNetwork(config["network"], int(config["hidden"]), config.get("self_weight", SELF_WEIGHT))


def _check(args: Namespace, network: str) -> None:
    """What argparse cannot see.

    Raises:
        InputError: an option is out of range, or belongs to another network.
    """
    check_scale(SCALE if args.scale is None else args.scale)
    for name in ("hidden", "steps", "truncate"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, not {value}")
    if args.self_weight is not None:
        if network != "jordan":
            raise InputError("--self-weight belongs to a Jordan network's context; add --network jordan")
        if not 0 <= args.self_weight < 1:
            raise InputError(f"--self-weight is from 0 to below 1, not {args.self_weight}")


def _check_resumed(args: Namespace, config: Mapping[str, Any], run_path: Path) -> None:
    for name in ("network", "hidden", "scale", "steps", "truncate", "self_weight"):
        asked = getattr(args, name)
        if asked is not None and asked != config.get(name):
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{run_path} was begun with {option} {config.get(name)}; resume it without {option}")


def _config(args: Namespace, network: str, options: TrainOptions) -> dict[str, Any]:
    """Everything needed to build the network again and to say where it came from."""
    scale = SCALE if args.scale is None else args.scale
    self_weight = SELF_WEIGHT if args.self_weight is None else args.self_weight
    return {
        "task": "timer",
        "network": network,
        "hidden": args.hidden if args.hidden is not None else HIDDEN[network],
        **({"self_weight": self_weight} if network == "jordan" else {}),
        "scale": scale,
        "steps": args.steps if args.steps is not None else TRAINING_LENGTH * scale,
        "truncate": args.truncate,
        "weights": [],
        "license": "Apache-2.0",
        "data": {"name": NAME, "n": options.epochs * BATCHES * options.batch_size, "skipped": {}, "notes": []},
        "seed": options.seed,
        "lr": options.lr,
        "epochs": options.epochs,
        "optimiser": options.optimiser,
    }
