"""Inputs to measure with: the first recorded case of a model, with one row and with eight."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.engine import BATCH_NAMES
from runtime.errors import BundleError
from runtime.golden import RecordedInputs
from runtime.manifest import ModelSpec

BATCHES = (1, 8)

Feed = dict[str, NDArray[Any]]


def main_model(bundle: Bundle) -> str:
    """The model that the bundle is about: the one with the task's or the bundle's name, else the first."""
    names = list(bundle.manifest.models)
    return next((name for name in (bundle.manifest.task, bundle.manifest.name) if name in names), names[0])


def feeds(bundle: Bundle, model: str) -> dict[int, Feed]:
    """The first recorded case with 1 and 8 rows; only the case itself where there is no batch dimension.

    Raises:
        BundleError: the bundle holds no recorded case of the model, or only empty ones.
    """
    cases = bundle.golden(model)
    if not cases:
        raise BundleError(f"{bundle.path}: model {model!r} holds no recorded case to measure with")
    axes = _batch_axes(bundle.model(model))
    if axes is None:
        return {1: cases[0].inputs}
    case = next((case for case in cases if all(case.inputs[name].shape[axis] for name, axis in axes.items())), None)
    if case is None:
        raise BundleError(f"{bundle.path}: the recorded cases of model {model!r} are all empty")
    return {
        rows: RecordedInputs(
            {
                name: np.take(array, np.arange(rows) % array.shape[axes[name]], axes[name]) if name in axes else array
                for name, array in case.inputs.items()
            }
        )
        for rows in BATCHES
    }


def _batch_axes(model: ModelSpec) -> dict[str, int] | None:
    axes = {
        tensor.name: axis for tensor in model.inputs for axis, size in enumerate(tensor.shape) if size in BATCH_NAMES
    }
    return axes or None
