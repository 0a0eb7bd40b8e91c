"""Ranges of activations, from real inputs: the whole range, or one that leaves outliers out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from exporters.quantize.inputs import Feed
from exporters.quantize.toolkit import quantization, quiet

CALIBRATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "min-max": ("MinMax", {}),
    "percentile 99.99": ("Percentile", {"percentile": 99.99}),
    "entropy": ("Entropy", {}),
}
"""What each is called by onnxruntime, and its options; in the order in which they are tried."""

_AT_ONCE = 8
"""Feeds whose activations are held at the same time; a calibration by histogram holds every value of them."""


class _Reader:
    """Gives feeds one by one, as onnxruntime's calibration asks for them."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def activation_ranges(model: onnx.ModelProto, operators: Sequence[str], calibration: str, feeds: Sequence[Feed]) -> Any:
    """The range of every tensor that nodes of some operators take or give.

    Args:
        model: the graph, with shapes.
        operators: whose tensors are looked at.
        calibration: a key of `CALIBRATIONS`.
        feeds: real inputs of the graph.

    Returns:
        ``onnxruntime.quantization.calibrate.TensorsData``.
    """
    method, options = CALIBRATIONS[calibration]
    with tempfile.TemporaryDirectory(prefix="edgedl-") as folder, quiet():
        file = Path(folder, "graph.onnx")
        onnx.save(model, file)
        augmented = str(Path(folder, "augmented.onnx"))
        toolkit = quantization()
        kind = toolkit.CalibrationMethod[method]
        calibrator = toolkit.create_calibrator(file, list(operators), augmented, kind, extra_options=options)
        for start in range(0, len(feeds), _AT_ONCE):
            calibrator.collect_data(_Reader(feeds[start : start + _AT_ONCE]))
        return calibrator.compute_data()
