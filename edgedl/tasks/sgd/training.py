"""How the methods of descent are run and recorded: each as a training run of its own, beside one another."""

from __future__ import annotations

import contextlib
import logging
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgedl.tasks.comparison import Comparison
from edgedl.tasks.sgd.config import SgdConfig
from edgedl.tasks.sgd.data import GaugeReadings, embedded_readings, read_readings
from edgedl.tasks.sgd.methods import METHODS
from edgedl.tasks.sgd.network import TwoWeights
from edgedl.tasks.sgd.path_table import PATHS, paths_table
from edgedl.tasks.sgd.paths import RecordedLearning, WeightPath
from edgedl.tasks.sgd.quadratic_cost import QuadraticCost
from edgedl.training.arguments import train_options
from edgedl.training.batches import Samples
from edgedl.training.fit import fit
from edgedl.training.lightning_module import TaskModule
from edgedl.training.options import TrainOptions
from edgedl.training.processes import launched
from edgedl.training.run import Run, write_atomically
from runtime.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GaugeLearning:
    """Learns from half the mean squared error, the data term of J, and is judged by the mean squared error in N²."""

    monitor: str = "MSE"
    mode: Literal["min", "max"] = "min"

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """½·mean (f − y)² of a batch, a scalar."""
        loss: Tensor = (network(batch["gauges"]) - batch["force"]).square().mean() / 2
        return loss

    def measure(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, int]]:
        """The sum of squared errors over the batch and its size."""
        errors = network(batch["gauges"]) - batch["force"]
        return {"MSE": (errors.square().sum(), len(errors))}


def train_sgd(args: Namespace, run_path: Path) -> dict[str, Any]:
    """Runs every method that was asked for, records its path, and keeps the network that validates best.

    Returns:
        The best method with its MSE in N² and its weights, and a row for each method.

    Raises:
        InputError: data or options that do not fit.
        CheckFailedError: a method diverged.
    """
    _check(args)
    chosen = tuple(dict.fromkeys(args.method or METHODS))
    # Whatever can be wrong with what was asked for shows before the run's folder is made.
    options = {name: _options(args, name) for name in chosen}
    train, validation = readings(args.data, "train", args.seed), readings(args.data, "val", args.seed)
    cost = QuadraticCost.of_data(train.gauges, train.force)
    cost.minimum()  # refuses data that leave a direction open
    configs = {name: SgdConfig.asked(args, name, options[name], cost.to_json(), train, validation) for name in chosen}
    main = Run.create(run_path, Comparison(configs).to_json())
    rows, paths = [], {}
    for name in chosen:
        run = Run.create(SgdConfig.folder(run_path, name), configs[name].to_json())
        learning = RecordedLearning(GaugeLearning())
        module = TaskModule(TwoWeights(configs[name].dropout), learning)
        with _quietly():
            result = fit(module, _samples(train), _samples(validation), run, options[name])
        paths[name] = learning.path()
        rows.append(_row(name, paths[name], result.best, cost))
        log.info("%s", "  ".join(f"{key} {_text(value)}" for key, value in rows[-1].items()))
        if result.best == min(row["MSE"] for row in rows):
            main.save_best(run.best_weights(), epoch=result.best_epoch, metric="MSE", value=result.best)
            best = name
    write_atomically(main.path / PATHS, paths_table(paths, cost).encode())
    return {"metric": "MSE", "best": min(row["MSE"] for row in rows), "method": best, "methods": rows}


def trained_network(run: Run) -> TwoWeights:
    """The network of the method that validates best, or of the one whose own run is given, in evaluation mode.

    Raises:
        InputError: the training of no method has come to its end.
    """
    network = TwoWeights()  # dropout is for learning: it leaves no trace in the weights
    network.load_state_dict(run.best_weights())
    return network.eval()


def readings(data: str | None, split: str, seed: int | None = None) -> GaugeReadings:
    """The readings of a table, or the embedded ones."""
    return embedded_readings(split, seed or 0) if data is None else read_readings(data, split)


def _options(args: Namespace, name: str) -> TrainOptions:
    options = train_options(args, METHODS[name].recipe)
    if options.optimiser == "sgd" and options.nesterov and options.momentum <= 0:
        raise InputError(f"{name} has no momentum, and Nesterov's step needs one: add --momentum 0.6, say")
    return options


def _check(args: Namespace) -> None:
    """What argparse cannot see.

    Raises:
        InputError: an option goes against what is shown.
    """
    if args.resume:
        raise InputError("a run of sgd takes seconds and is not resumed; train it anew in another folder")
    if args.ema:
        raise InputError("--ema shows averaged weights, which is not the path that the steps take; leave it out")
    place = launched()
    if (args.devices or 1) > 1 or (args.num_nodes or 1) > 1 or (place is not None and place.processes > 1):
        raise InputError("the paths are recorded in one process; leave out --devices and --num-nodes, and the launcher")


def _row(name: str, path: WeightPath, mse: float, cost: QuadraticCost) -> dict[str, Any]:
    first, second = path.weights[-1].tolist()
    excess = float(cost(path.weights[-1]) - cost(cost.minimum()))
    return {
        "name": name,
        "updates": len(path.samples) - 1,
        "samples": int(path.samples[-1]),
        "w1": first,
        "w2": second,
        "excess": excess,
        "MSE": mse,
    }


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _samples(data: GaugeReadings) -> Samples:
    return Samples({"gauges": data.gauges, "force": data.force})


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without a line per epoch: there are hundreds, and the paths tell more."""
    logger = logging.getLogger("edgedl.training")
    before = logger.level
    logger.setLevel(max(logging.WARNING, logger.getEffectiveLevel()))
    try:
        with torch.random.fork_rng():
            yield
    finally:
        logger.setLevel(before)
