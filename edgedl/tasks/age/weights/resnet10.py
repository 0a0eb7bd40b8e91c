"""Loads the CC0 age predictor into `ResNet10` and its head."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgedl.nn.age import AgeNetwork
from edgedl.tasks.age.network.resnet10 import ResidualBlock, ResNet10
from edgedl.weights.catalogue import AGE_RESNET10
from edgedl.weights.fetch import fetch
from exporters.optimize import flush_module

YEARS = (0.25, *(float(year) for year in range(1, 81)))
"""The 81 classes of the published network; the youngest stands for babies of a few months."""

SIZE = 64

# dlib numbers its layers from the output: convolution and affine of the stem, then of each block's two halves.
_STEM = (52, 51)
_BLOCKS = (((47, 46), (44, 43)), ((39, 38), (36, 35)), ((28, 27), (25, 24)), ((20, 19), (17, 16)), ((9, 8), (6, 5)))


def load_age_resnet10() -> AgeNetwork:
    """The published network as a torch module in evaluation mode, ready to be exported or fine-tuned.

    Half a per cent of the published weights is below 1e-20. These are set to zero: in float64 no answer moves by
    1e-12, and with them a training step takes ten times as long on Intel's processors.

    Raises:
        WeightsError: the weights cannot be had.
    """
    tensors = _initializers(fetch(AGE_RESNET10))
    backbone = ResNet10()
    network = AgeNetwork(backbone, YEARS, SIZE)
    with torch.no_grad():
        for convolution, norm, (number, affine) in _layers(backbone):
            scale = tensors[f"layer_{affine}_scale"].flatten()
            offset = tensors[f"layer_{affine}_offset"].flatten()
            convolution.weight.copy_(tensors[f"layer_{number}_weights"])
            # The published affine is y = scale · (conv + bias) + offset; statistics of 0 and 1 make the
            # normalisation exactly that.
            norm.weight.copy_(scale * (1 + norm.eps) ** 0.5)
            norm.bias.copy_(tensors[f"layer_{number}_bias"] * scale + offset)
        network.head.weight.copy_(tensors["layer_1_weights"].T)
        network.head.bias.copy_(tensors["layer_1_bias"])
    flush_module(network)
    return network.eval()


def _layers(backbone: ResNet10) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d, tuple[int, int]]]:
    yield backbone.conv, backbone.norm, _STEM
    for block, (first, second) in zip(backbone.blocks, _BLOCKS, strict=True):
        assert isinstance(block, ResidualBlock)  # noqa: S101 - narrows the type
        yield block.conv1, block.norm1, first
        yield block.conv2, block.norm2, second


def _initializers(data: bytes) -> dict[str, Tensor]:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(data).graph
    arrays: dict[str, NDArray[np.float32]] = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
