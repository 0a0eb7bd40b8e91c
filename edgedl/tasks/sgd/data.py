"""A force from two strain gauges: the smallest problem on which ways of descending differ.

Two gauges that sit close together on a beam read almost the same, so the data say well what the sum of their weights
must be and badly what the difference must be: the cost is a long, narrow valley that lies across both axes. Both
readings have mean 0 and mean square 1 mV² in the training part, exactly, and their correlation is `CORRELATION`, so
the curvature of the cost is known in closed form: 1 + ρ along the sum and 1 − ρ along the difference.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgedl.data.splits import held_out
from runtime.errors import InputError

NAME = "strain-gauges"
CORRELATION = 0.92
TRUE_WEIGHTS = (1.5, 0.5)
"""In newton per millivolt."""

NOISE = 0.5
"""Standard deviation of the measured force, in newton."""

TRAIN, VALIDATION = 64, 256
COLUMNS = ("gauge_1_mV", "gauge_2_mV", "force_N")
SPLITS = ("all", "train", "val")
MOST_ROWS = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class GaugeReadings:
    """Readings and the force that caused them.

    Attributes:
        name: of the data set.
        gauges: (T, 2) float32, in millivolt.
        force: (T,) float32, in newton.
    """

    name: str
    gauges: NDArray[np.float32]
    force: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.force)


def embedded_readings(split: str = "train", seed: int = 0) -> GaugeReadings:
    """The made-up beam: 64 readings to learn from and 256 others.

    Args:
        split: ``train``, ``val`` or ``all``.
        seed: another seed is another measurement of the same beam.

    Raises:
        InputError: there is no such part.
    """
    _check_split(split)
    if split == "all":
        parts = [embedded_readings(part, seed) for part in ("train", "val")]
        return GaugeReadings(
            parts[0].name,
            np.concatenate([part.gauges for part in parts]),
            np.concatenate([part.force for part in parts]),
        )
    chance = np.random.default_rng((seed, SPLITS.index(split)))
    count = TRAIN if split == "train" else VALIDATION
    drawn = chance.standard_normal((count, 2))
    drawn -= drawn.mean(axis=0)
    orthogonal, _ = np.linalg.qr(drawn)
    mixing = np.linalg.cholesky(np.array([[1.0, CORRELATION], [CORRELATION, 1.0]]))
    gauges = np.sqrt(count) * orthogonal @ mixing.T  # (T, 2), with XᵀX/T as in the module's docstring
    force = gauges @ np.array(TRUE_WEIGHTS) + NOISE * chance.standard_normal(count)
    return GaugeReadings(NAME, gauges.astype(np.float32), force.astype(np.float32))


def read_readings(path: str | os.PathLike[str], split: str = "all") -> GaugeReadings:
    """Reads a table of one's own: CSV with the columns of `COLUMNS`; a tenth of the rows is ``val``.

    Args:
        path: the file.
        split: ``all``, ``train`` or ``val``.

    Raises:
        InputError: no such file or part, a column is missing, something is no finite number, or there are fewer than
            four rows.
    """
    _check_split(split)
    file = Path(path)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{file}: the column {missing[0]} is missing; expected {', '.join(COLUMNS)}")
            rows = [_numbers(row, f"{file}, line {reader.line_num}") for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} is not a table of text (CSV): {error}") from error
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from error
    if not 4 <= len(rows) <= MOST_ROWS:
        raise InputError(f"{file} has {len(rows)} rows; 4 to {MOST_ROWS} are expected")
    table = np.array(rows, dtype=np.float32)  # (T, 3)
    chosen = held_out(str(number) for number in range(len(table)))
    wanted = [number for number in range(len(table)) if split == "all" or (str(number) in chosen) == (split == "val")]
    table = table[wanted]
    return GaugeReadings(file.name, np.ascontiguousarray(table[:, :2]), np.ascontiguousarray(table[:, 2]))


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise InputError(f"there is no split {split!r}; there is {', '.join(SPLITS)}")


def _numbers(row: dict[str, str], where: str) -> list[float]:
    found = []
    for name in COLUMNS:
        try:
            value = float(row[name])
        except (TypeError, ValueError):
            raise InputError(f"{where}: {name} is {row[name]!r}, expected a number") from None
        if not np.isfinite(value):
            raise InputError(f"{where}: {name} is {value}, expected a finite number")
        found.append(value)
    return found
