"""What a run of sgd shows: from its recorded paths to the picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgedl.figures.descent import Descent, save_descent
from edgedl.tasks.sgd_methods import METHODS
from edgedl.tasks.sgd_training import PATHS, read_paths
from edgedl.training.paths import WeightPath
from edgedl.training.quadratic_cost import QuadraticCost
from edgedl.training.run import Run
from runtime.errors import InputError

if TYPE_CHECKING:
    from edgedl.tasks import AnyPath

PICTURE = "paths.png"


def plot_paths(run_path: AnyPath, output: AnyPath | None) -> Path:
    """Draws a run's paths and gives the picture's path, by default ``paths.png`` in the run.

    Raises:
        InputError: there is no run, or its training did not end.
    """
    run = Run.open(run_path)
    if "methods" not in run.config:
        raise InputError(f"{run.path} is one method of a comparison; plot the run that it lies in")
    cost = QuadraticCost.from_json(run.config["cost"])
    paths = read_paths(run.path / PATHS)
    configs: Mapping[str, Mapping[str, Any]] = run.config["methods"]
    descents = [_descent(name, configs[name], cost, path) for name, path in paths.items() if name in configs]
    picture = Path(output) if output else run.path / PICTURE
    save_descent(cost, descents, picture)
    return picture


def _descent(name: str, config: Mapping[str, Any], cost: QuadraticCost, path: WeightPath) -> Descent:
    label = METHODS[name].label if name in METHODS else name
    if config["weight_decay"] and config["optimiser"] != "sgd":
        # Where another optimiser's decay leads has no cost that it would be the minimum of.
        return Descent(label, "cost", path.samples, path.weights)
    penalties = {
        "l2": config["l2"] + config["weight_decay"] * cost.samples,
        "l1": config["l1"],
        "dropout": config["dropout"],
    }
    group: Literal["step", "cost"] = "cost" if any(penalties.values()) else "step"
    return Descent(label, group, path.samples, path.weights, cost.penalised(**penalties).minimum())
