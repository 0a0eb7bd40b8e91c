"""How the networks learn to remember, each as a training run of its own, and what is left of x_1 before and after."""

from __future__ import annotations

import csv
import io
import logging
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgedl.tasks.gradients.data import NAME, STEPS, RecallSequences, draw_kept, draw_sequences
from edgedl.tasks.gradients.network import BLOCKS, RecallNetwork, units_over_time
from edgedl.tasks.gradients.objective import RecallBatches, RecallLearning
from edgedl.tasks.gradients.sensitivity import input_sensitivity
from edgedl.training.arguments import train_options
from edgedl.training.batches import Samples
from edgedl.training.fit import FitResult, fit
from edgedl.training.lightning_module import TaskModule
from edgedl.training.options import TrainOptions
from edgedl.training.run import Run, write_atomically
from runtime.errors import InputError

log = logging.getLogger(__name__)

HIDDEN: Mapping[str, int] = {"rnn": 18, "gru": 10, "lstm": 8, "peephole": 8}
"""Units that make 430 to 460 weights of each."""
COMPARED = ("rnn", "gru", "lstm")
RATES: Mapping[str, float] = {"rnn": 5e-3, "gru": 2e-2, "lstm": 2e-2, "peephole": 2e-2}
BATCHES = 100
"""Of an epoch."""
VALIDATION = 500
"""Sequences that choose the best epoch."""
MEASURED = 50
"""Sequences that the gradient is measured on."""

NETWORKS, SENSITIVITIES = "networks", "sensitivities.csv"
COLUMNS = ("network", "units", "training", "t", "25 %", "50 %", "75 %")


@dataclass(frozen=True, slots=True)
class Curve:
    """|∂u_t/∂x_1| of one network over many sequences.

    Attributes:
        network: its kind.
        units: ``hidden`` or ``cell``, what u is.
        training: ``before`` or ``after``.
        quartiles: (3, T) 25 %, 50 %, 75 %.
    """

    network: str
    units: str
    training: str
    quartiles: NDArray[np.float64]


def recipe(kind: str) -> TrainOptions:
    """How a network is trained unless said otherwise: the same for all but the rate, which is the best of several."""
    return TrainOptions(
        epochs=8, batch_size=32, optimiser="adam", lr=RATES[kind], schedule="one-cycle", ema=0.0, clip=1.0, threads=1,
        device="cpu",
    )  # fmt: skip


def train_gradients(args: Namespace, run_path: Path) -> dict[str, Any]:
    """Trains every network that was asked for and records how much of x_1 is left in it, before and after.

    Returns:
        The best network with its MSE where something is asked, and a row for each network.

    Raises:
        InputError: options that do not fit.
        CheckFailedError: a network diverged.
    """
    _check(args)
    kinds = tuple(dict.fromkeys(args.network or COMPARED))
    steps = STEPS if args.steps is None else args.steps
    # Whatever can be wrong with what was asked for shows before the run's folder is made.
    options = {kind: train_options(args, recipe(kind)) for kind in kinds}
    configs = {kind: _config(kind, args.hidden or HIDDEN[kind], steps, options[kind]) for kind in kinds}
    shared = {key: next(iter(configs.values()))[key] for key in ("task", "steps", "seed", "license", "data")}
    held_out = draw_sequences(VALIDATION, steps=steps, seed=shared["seed"], split="val")
    kept = draw_kept(MEASURED, steps=steps)
    main = Run.create(run_path, {**shared, NETWORKS: configs})
    rows, curves = [], []
    for kind in kinds:
        with torch.random.fork_rng():
            torch.manual_seed(shared["seed"])
            network = network_of(configs[kind])
        found = [measure(network, kept, "before")]
        result = fit(
            TaskModule(network, RecallLearning()),
            RecallBatches(steps, options[kind].batch_size, BATCHES, options[kind].seed),
            Samples({"inputs": held_out.inputs, "targets": held_out.targets}),
            Run.create(main.path / NETWORKS / kind, configs[kind]),
            options[kind],
        )
        found.append(measure(network, kept, "after"))
        curves += [curve for part in found for curve in part]
        rows.append(_row(kind, network, result, [part[0] for part in found]))
        log.info("%s", "  ".join(f"{key} {_text(value)}" for key, value in rows[-1].items()))
    write_atomically(main.path / SENSITIVITIES, sensitivities_table(curves).encode())
    best = min(rows, key=lambda row: float(row["MSE"]))
    return {"metric": "MSE", "best": best["MSE"], "network": best["name"], NETWORKS: rows}


def network_of(config: Mapping[str, Any]) -> RecallNetwork:
    """The network that a run's configuration describes, with weights from chance.

    Raises:
        InputError: a network that this version does not have.
    """
    return RecallNetwork(config["network"], int(config["hidden"]))


def trained_network(run: Run) -> RecallNetwork:
    """The network of one network's run, as it was in its best epoch.

    Raises:
        InputError: none of its epochs has ended.
    """
    network = network_of(run.config)
    network.load_state_dict(run.best_weights())
    return network.eval()


def best_of_blocks(run: Run) -> Run:
    """The run of the network of memory blocks, among those that were compared, that validates best.

    Raises:
        InputError: the run has none, or none whose training has come as far as the end of an epoch.
    """
    if NETWORKS not in run.config:
        raise InputError(f"{run.path} is one network of a comparison; take the run that it lies in")
    errors: dict[float, Run] = {}
    for kind in run.config[NETWORKS]:
        if kind in BLOCKS:
            one = Run.open(run.path / NETWORKS / kind)
            errors |= {row["MSE"]: one for row in one.history()}
    if not errors:
        raise InputError(
            f"{run.path} holds no trained LSTM, which is what has memory blocks, but "
            f"{', '.join(run.config[NETWORKS])}; add lstm to --network"
        )
    return errors[min(errors)]


def measure(network: RecallNetwork, sequences: RecallSequences, training: str) -> list[Curve]:
    """|∂u_t/∂x_1| in float64 over sequences (n, T, 3): of the hidden units, then of any memory cells."""
    inputs = torch.from_numpy(sequences.inputs).double()
    curves = []
    for units, run in units_over_time(network).items():
        norms = input_sensitivity(run, inputs).numpy()
        curves.append(Curve(network.kind, units, training, np.quantile(norms, (0.25, 0.5, 0.75), axis=0)))
    return curves


def sensitivities_table(curves: list[Curve]) -> str:
    """All curves as CSV, a row per step."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for curve in curves:
        for t, values in enumerate(curve.quartiles.T, 1):
            writer.writerow([curve.network, curve.units, curve.training, t, *(f"{value:.8g}" for value in values)])
    return text.getvalue()


def read_sensitivities(file: Path) -> list[Curve]:
    """Reads what `sensitivities_table` wrote.

    Raises:
        InputError: the file is missing or is no such table.
    """
    tables: dict[tuple[str, str, str], list[list[float]]] = {}
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                numbers = [float(row[column]) for column in COLUMNS[4:]]
                tables.setdefault((row["network"], row["units"], row["training"]), []).append(numbers)
    except FileNotFoundError:
        raise InputError(f"{file} is missing: the training did not come to its end; train it anew") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} is no table of sensitivities: {error!r}") from error
    return [Curve(*key, np.array(rows, np.float64).T) for key, rows in tables.items()]


def _check(args: Namespace) -> None:
    """What argparse cannot see.

    Raises:
        InputError: an option is out of range, or goes against what is shown.
    """
    if args.data:
        raise InputError("store and recall is learnt from sequences that are drawn for it; --data is not read")
    for name, least in (("hidden", 1), ("steps", 2)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise InputError(f"--{name} must be at least {least}, not {value}")
    if args.resume:
        raise InputError("a run of gradients takes a minute and is not resumed; train it anew in another folder")
    if (args.devices or 1) > 1 or (args.num_nodes or 1) > 1:
        raise InputError("the networks are looked into in one process; leave out --devices and --num-nodes")


def _config(kind: str, hidden: int, steps: int, options: TrainOptions) -> dict[str, Any]:
    """Everything needed to build the network again and to say where it came from."""
    return {
        "task": "gradients",
        "network": kind,
        "hidden": hidden,
        "steps": steps,
        "weights": [],
        "license": "Apache-2.0",
        "data": {"name": NAME, "n": options.epochs * BATCHES * options.batch_size, "skipped": {}, "notes": []},
        "seed": options.seed,
        "lr": options.lr,
        "epochs": options.epochs,
        "optimiser": options.optimiser,
    }


def _row(kind: str, network: RecallNetwork, result: FitResult, hidden: list[Curve]) -> dict[str, Any]:
    before, after = (float(curve.quartiles[1, -1]) for curve in hidden)
    return {
        "name": kind,
        "weights": sum(parameter.numel() for parameter in network.parameters()),
        "MSE": result.best,
        "left_before": before,
        "left_after": after,
        "best_epoch": result.best_epoch,
        "seconds": round(result.seconds, 1),
    }


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
