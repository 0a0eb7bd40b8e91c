"""What a run of sgd shows: from its recorded paths to the picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgedl.tasks.comparison import Comparison
from edgedl.tasks.sgd.config import SgdConfig
from edgedl.tasks.sgd.figure import Descent, Group, save_descent
from edgedl.tasks.sgd.methods import METHODS
from edgedl.tasks.sgd.path_table import PATHS, read_paths
from edgedl.tasks.sgd.paths import WeightPath
from edgedl.tasks.sgd.quadratic_cost import QuadraticCost
from edgedl.training.run import Run

if TYPE_CHECKING:
    from edgedl.tasks.base import AnyPath

PICTURE = "paths.png"


def plot_paths(run_path: AnyPath, output: AnyPath | None) -> Path:
    """Draws a run's paths and gives the picture's path, by default ``paths.png`` in the run.

    Raises:
        InputError: there is no run, it is that of one method, or its training did not end.
    """
    run = Run.open(run_path)
    comparison = Comparison.of(run, SgdConfig)
    cost = QuadraticCost.from_json(comparison.first.cost)
    paths, configs = read_paths(run.path / PATHS), comparison.trainings
    descents = [_descent(name, configs[name], cost, path) for name, path in paths.items() if name in configs]
    picture = Path(output) if output else run.path / PICTURE
    save_descent(cost, descents, picture)
    return picture


def _descent(name: str, config: SgdConfig, cost: QuadraticCost, path: WeightPath) -> Descent:
    """A path with the surface that it belongs on and the place where its own cost is least."""
    decay = config.weight_decay
    penalties = {"l2": config.l2 + decay * cost.samples, "l1": config.l1, "dropout": config.dropout}
    # AdamW's decay never enters a gradient, so there is no cost that it would minimise.
    known = not decay or config.optimiser != "adamw"
    group: Group = "cost"
    if not any(penalties.values()):
        group = "batch" if config.batch_size < cost.samples else "step"
    return Descent(
        METHODS[name].label if _as_recipe(name, config) else _label(name, config),
        group,
        path.samples,
        path.weights,
        cost.penalised(**penalties).minimum() if known else None,
    )


def _as_recipe(name: str, config: SgdConfig) -> bool:
    """Whether nothing that the label speaks of was changed on the command line."""
    if name not in METHODS:
        return False
    recipe = METHODS[name].recipe
    told = ("batch_size", "nesterov", "schedule", "optimiser", "l2", "l1", "weight_decay")
    return config.dropout == METHODS[name].dropout and all(getattr(config, key) == getattr(recipe, key) for key in told)


def _label(name: str, config: SgdConfig) -> str:
    """A method with other options than its recipe's is called by what it does."""
    told = [f"batch {config.batch_size}", f"rate {config.lr:g} {config.schedule}"]
    values = {key: getattr(config, key) for key in ("momentum", "l2", "l1", "weight_decay", "dropout")}
    told += [f"{key.replace('_', ' ')} {value:g}" for key, value in values.items() if value]
    return f"{name}: {', '.join(told)}"
