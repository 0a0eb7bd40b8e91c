"""The paths of all methods as a table in the run's folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgedl.tasks.sgd.paths import WeightPath
from edgedl.tasks.sgd.quadratic_cost import QuadraticCost
from runtime.errors import InputError

PATHS = "paths.csv"
COLUMNS = ("method", "update", "samples", "w1", "w2", "cost")


def paths_table(paths: Mapping[str, WeightPath], cost: QuadraticCost) -> str:
    """All paths as CSV: a row per point, the cost being the data term over all training samples, in N²."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, path in paths.items():
        values = cost(path.weights)
        for update, (samples, (w1, w2), value) in enumerate(zip(path.samples, path.weights, values, strict=True)):
            writer.writerow([name, update, int(samples), f"{w1:.9g}", f"{w2:.9g}", f"{value:.9g}"])
    return text.getvalue()


def read_paths(file: Path) -> dict[str, WeightPath]:
    """Reads what `paths_table` wrote.

    Raises:
        InputError: the file is missing or is no such table.
    """
    columns: dict[str, list[Sequence[float]]] = {}
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                numbers = [float(row[key]) for key in ("samples", "w1", "w2")]
                columns.setdefault(row["method"], []).append(numbers)
    except FileNotFoundError:
        raise InputError(f"{file} is missing: the training did not come to its end; train it anew") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} is no table of paths: {error!r}") from error
    tables = {name: np.array(rows, np.float64) for name, rows in columns.items()}
    return {name: WeightPath(table[:, 0].astype(np.int64), table[:, 1:]) for name, table in tables.items()}
