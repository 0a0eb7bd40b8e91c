"""How the networks learn to remember, each as a training run of its own, and what is left of x_1 before and after."""

from __future__ import annotations

import csv
import io
import logging
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgedl.tasks.comparison import Comparison
from edgedl.tasks.gradients.config import BATCHES, BLOCKS, COMPARED, Kind, RecallConfig, recipe
from edgedl.tasks.gradients.data import RecallSequences, draw_kept, draw_sequences
from edgedl.tasks.gradients.network import RecallNetwork, units_over_time
from edgedl.tasks.gradients.objective import RecallBatches, RecallLearning
from edgedl.tasks.gradients.sensitivity import input_sensitivity
from edgedl.training.arguments import train_options
from edgedl.training.batches import Samples
from edgedl.training.fit import FitResult, fit
from edgedl.training.lightning_module import TaskModule
from edgedl.training.processes import launched
from edgedl.training.run import Run, write_atomically
from runtime.errors import InputError

log = logging.getLogger(__name__)

VALIDATION = 500
"""Sequences that choose the best epoch."""
MEASURED = 50
"""Sequences that the gradient is measured on."""

SENSITIVITIES = "sensitivities.csv"
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


def train_gradients(args: Namespace, run_path: Path) -> dict[str, Any]:
    """Trains every network that was asked for and records how much of x_1 is left in it, before and after.

    Returns:
        The best network with its MSE where something is asked, and a row for each network.

    Raises:
        InputError: options that do not fit.
        CheckFailedError: a network diverged.
    """
    _check(args)
    kinds: tuple[Kind, ...] = tuple(dict.fromkeys(args.network or COMPARED))
    # Whatever can be wrong with what was asked for shows before the run's folder is made.
    options = {kind: train_options(args, recipe(kind)) for kind in kinds}
    comparison = Comparison({kind: RecallConfig.asked(args, kind, options[kind]) for kind in kinds})
    steps, seed = comparison.first.steps, comparison.first.seed
    held_out = draw_sequences(VALIDATION, steps=steps, seed=seed, split="val")
    kept = draw_kept(MEASURED, steps=steps)
    main = Run.create(run_path, comparison.to_json())
    rows, curves = [], []
    for kind in kinds:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = network_of(comparison.trainings[kind])
        found = [measure(network, kept, "before")]
        result = fit(
            TaskModule(network, RecallLearning()),
            RecallBatches(steps, options[kind].batch_size, BATCHES, options[kind].seed),
            Samples({"inputs": held_out.inputs, "targets": held_out.targets}),
            Run.create(RecallConfig.folder(main.path, kind), comparison.trainings[kind].to_json()),
            options[kind],
        )
        found.append(measure(network, kept, "after"))
        curves += [curve for part in found for curve in part]
        rows.append(_row(kind, network, result, [part[0] for part in found]))
        log.info("%s", "  ".join(f"{key} {_text(value)}" for key, value in rows[-1].items()))
    write_atomically(main.path / SENSITIVITIES, sensitivities_table(curves).encode())
    best = min(rows, key=lambda row: float(row["MSE"]))
    return {"metric": "MSE", "best": best["MSE"], "network": best["name"], "networks": rows}


def network_of(config: RecallConfig) -> RecallNetwork:
    """The network that the configuration of a network's run describes, with weights from chance."""
    return RecallNetwork(config.network, config.hidden)


def trained_network(run: Run) -> RecallNetwork:
    """The network of one network's run, as it was in its best epoch, in evaluation mode.

    Raises:
        InputError: the run is none of a network that recalls, or none of its epochs has ended.
    """
    network = network_of(RecallConfig.of(run))
    network.load_state_dict(run.best_weights())
    return network.eval()


def best_of_blocks(run: Run) -> Run:
    """The run of the network of memory blocks, among those that were compared, that validates best.

    Raises:
        InputError: the run has none, or none whose training has come as far as the end of an epoch.
    """
    kinds = Comparison.of(run, RecallConfig).trainings
    errors: dict[float, Run] = {}
    for kind in kinds:
        if kind in BLOCKS:
            one = Run.open(RecallConfig.folder(run.path, kind))
            errors |= {row["MSE"]: one for row in one.history()}
    if not errors:
        raise InputError(
            f"{run.path} holds no trained LSTM, which is what has memory blocks, but {', '.join(kinds)}; add lstm to "
            "--network"
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
        InputError: an option goes against what is shown.
    """
    if args.data:
        raise InputError("store and recall is learnt from sequences that are drawn for it; --data is not read")
    if args.resume:
        raise InputError("a run of gradients takes a minute and is not resumed; train it anew in another folder")
    place = launched()
    if (args.devices or 1) > 1 or (args.num_nodes or 1) > 1 or (place is not None and place.processes > 1):
        raise InputError(
            "the networks are looked into in one process; leave out --devices and --num-nodes, and the launcher"
        )


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
