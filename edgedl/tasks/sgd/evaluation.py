"""Judges a bundle of two weights on readings with known forces, as it is deployed. Needs no torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgedl.tasks.sgd.data import GaugeReadings
from runtime.errors import InputError
from runtime.pipelines.tensors import TensorPipeline


def evaluate_forces(pipeline: TensorPipeline, data: GaugeReadings) -> dict[str, Any]:
    """Predicts every reading.

    Returns:
        {"n", "dataset", "metrics": {"MSE", "R2"}}; MSE in N², R² the share of the forces' variance that is explained,
        absent where they do not vary.

    Raises:
        InputError: the part of the data is empty.
    """
    if not len(data):
        raise InputError(f"{data.name} has no readings in this part")
    answers = pipeline.engine.run({"gauges": data.gauges})["force"].astype(np.float64)
    truth = data.force.astype(np.float64)
    error = float(np.square(answers - truth).mean())
    metrics = {"MSE": error}
    if truth.var() > 0:
        metrics["R2"] = 1 - error / float(truth.var())
    return {"n": len(data), "dataset": data.name, "metrics": metrics}
