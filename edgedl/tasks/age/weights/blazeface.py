"""Loads the published BlazeFace, a float16 TensorFlow Lite file, into the torch network."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from edgedl.tasks.age.network.blazeface import BlazeFace
from edgedl.weights.catalogue import BLAZEFACE_FULL_RANGE
from edgedl.weights.fetch import WeightsError, fetch
from runtime.errors import MissingExtraError


def load_blazeface() -> BlazeFace:
    """The published detector network in evaluation mode.

    Raises:
        WeightsError: the weights cannot be had, or are not this network's.
        MissingExtraError: the reader of the file format is not installed.
    """
    arrays = _float16_tensors(fetch(BLAZEFACE_FULL_RANGE))
    network = BlazeFace()
    published = {}
    for name, (convolution, *_) in network.tensorflow_convolutions().items():
        kernel, bias = (arrays.pop(f"{name}/{part}").astype(np.float32) for part in ("Kernel", "Bias"))
        # Ordinary kernels are (out, h, w, in), depthwise ones (1, h, w, out); torch wants (out, in, h, w).
        axes = (3, 0, 1, 2) if convolution.groups > 1 else (0, 3, 1, 2)
        published[name] = torch.from_numpy(kernel.transpose(axes).copy()), torch.from_numpy(bias)
    network.take(published)
    if arrays:
        raise WeightsError(f"{BLAZEFACE_FULL_RANGE.member} holds tensors that the network lacks: {', '.join(arrays)}")
    return network.eval()


def _float16_tensors(data: bytes) -> dict[str, NDArray[np.float16]]:
    try:
        import tflite
    except ImportError:
        raise MissingExtraError("tflite", "train") from None
    model = tflite.Model.GetRootAsModel(data, 0)
    graph = model.Subgraphs(0)
    arrays: dict[str, NDArray[np.float16]] = {}
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        buffer = model.Buffers(tensor.Buffer())
        if buffer.DataLength() and tensor.Type() == tflite.TensorType.FLOAT16:
            arrays[tensor.Name().decode()] = buffer.DataAsNumpy().view(np.float16).reshape(tensor.ShapeAsNumpy())
    return arrays
