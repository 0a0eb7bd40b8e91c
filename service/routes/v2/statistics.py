"""How often each model was asked and where the time went, as the statistics extension of Triton reports it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Lock
from typing import Any

MOST_SIZES = 100
"""Batch sizes of a model that are told apart; a client chooses them."""

PHASES = ("compute_input", "compute_infer", "compute_output")


@dataclass(slots=True)
class _Total:
    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns

    def to_json(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


class ModelStatistics:
    """The counts and nanoseconds of one version of a model. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._totals = {name: _Total() for name in ("success", "fail", "queue", *PHASES)}
        self._batches: dict[int, tuple[_Total, _Total, _Total]] = {}
        self._rows = self._executions = self._last = 0

    def count(self, rows: int, *, queue: int, compute_input: int, compute_infer: int, compute_output: int) -> None:
        """Counts a request that was answered.

        Args:
            rows: Of its batch.
            queue: Nanoseconds that it waited, as for the next three.
            compute_input: Reading it.
            compute_infer: Running the model.
            compute_output: Writing the answer.
        """
        spent = {"queue": queue, "compute_input": compute_input, "compute_infer": compute_infer}
        spent["compute_output"] = compute_output
        with self._lock:
            for name, ns in spent.items():
                self._totals[name].add(ns)
            self._totals["success"].add(sum(spent.values()))
            self._rows += rows
            self._last = time.time_ns() // 1_000_000

    def count_failure(self, ns: int) -> None:
        """Counts a request that was refused or failed, and how long that took."""
        with self._lock:
            self._totals["fail"].add(ns)
            self._last = time.time_ns() // 1_000_000

    def count_execution(self, rows: int, *, compute_input: int, compute_infer: int, compute_output: int) -> None:
        """Counts a run of the model, which may have answered several requests; see `count`."""
        with self._lock:
            self._executions += 1
            if rows in self._batches or len(self._batches) < MOST_SIZES:
                batch = self._batches.setdefault(rows, (_Total(), _Total(), _Total()))
                for total, ns in zip(batch, (compute_input, compute_infer, compute_output), strict=True):
                    total.add(ns)

    def to_json(self, name: str, version: str) -> dict[str, Any]:
        """The entry of a model in ``model_stats``."""
        with self._lock:
            return {
                "name": name,
                "version": version,
                "last_inference": self._last,
                "inference_count": self._rows,
                "execution_count": self._executions,
                "inference_stats": {key: total.to_json() for key, total in self._totals.items()},
                "batch_stats": [
                    {"batch_size": rows} | {phase: total.to_json() for phase, total in zip(PHASES, totals, strict=True)}
                    for rows, totals in sorted(self._batches.items())
                ],
            }


class Statistics:
    """The statistics of a service's models, by name and version."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._models: dict[tuple[str, str], ModelStatistics] = {}

    def of(self, name: str, version: str) -> ModelStatistics:
        """Those of one model. Only names of models that there are may be asked for."""
        with self._lock:
            return self._models.setdefault((name, version), ModelStatistics())
