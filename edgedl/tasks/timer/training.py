"""How timers learn, and the network of a run."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from edgedl.tasks.run_config import trained_with
from edgedl.tasks.timer.config import BATCHES, NETWORKS, TimerConfig, recipe
from edgedl.tasks.timer.data import SCALE, draw_sequences
from edgedl.tasks.timer.network import TimerNetwork, let_starts_overwrite
from edgedl.tasks.timer.objective import TimerBatches, TimerLearning
from edgedl.training.arguments import train_options
from edgedl.training.batches import Samples
from edgedl.training.fit import fit
from edgedl.training.lightning_module import TaskModule
from edgedl.training.run import Run
from runtime.errors import InputError

log = logging.getLogger(__name__)

VALIDATION = 128
"""Sequences that choose the best epoch."""


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
    begun = TimerConfig.of(run) if run else None
    usual = recipe(begun.network if begun else args.network or NETWORKS[0])
    options = train_options(args, begun.begun_with(usual) if begun else usual)
    config = begun or TimerConfig.asked(args, options)
    config.check_resumed(args, run_path)
    held_out = draw_sequences(VALIDATION, scale=config.scale, steps=config.steps, seed=options.seed, split="val")
    torch.manual_seed(options.seed)
    network = network_of(config)
    run = Run.create(run_path, config.to_json()) if run is None else run.amended(**trained_with(options))
    count = sum(parameter.numel() for parameter in network.parameters())
    log.info("%s: %d units, %d weights, sequences of %d steps", config.network, config.hidden, count, config.steps)
    result = fit(
        TaskModule(network, TimerLearning(config.scale, config.truncate)),
        TimerBatches(config.scale, config.steps, options.batch_size, BATCHES, options.seed, config.spacing),
        Samples({"inputs": held_out.inputs, "targets": held_out.targets}),
        run,
        options,
    )
    best = result.history[result.best_epoch - 1]
    return {
        "network": config.network,
        "weights": count,
        "metric": result.metric,
        "best": result.best,
        "exact": best["exact"],
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "seconds": round(result.seconds, 1),
    }


def network_of(config: TimerConfig) -> TimerNetwork:
    """The network that a run's configuration describes, with weights from chance."""
    network = TimerNetwork(config.network, config.hidden, config.self_weight or 0.0)
    if config.scale > SCALE:  # so short a memory is learnt from torch's own start
        let_starts_overwrite(network, config.scale)
    return network


def trained_network(run: Run) -> TimerNetwork:
    """The network of a run as it was in its best epoch, in evaluation mode.

    Raises:
        InputError: the run is none of a timer, or none of its epochs has ended.
    """
    network = network_of(TimerConfig.of(run))
    network.load_state_dict(run.best_weights())
    return network.eval()
