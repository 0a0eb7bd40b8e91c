"""Loads the published face network FaceRes, a TensorFlow.js file, into `MobileNet`."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from edgedl.tasks.age.network.mobilenet import MobileNet, SeparableBlock
from edgedl.weights.catalogue import FACERES_DEEP
from edgedl.weights.fetch import fetch

_HEADS = 256 * 100 + 100 + 1024 * 256 + 256 + 256 + 1
"""Numbers that the file holds first: the heads for age, features and gender, which are not used."""

_BOUNDS = 2
"""Numbers behind each layer: the bounds of its ReLU, 6 and 0."""


def load_mobilenet() -> MobileNet:
    """The published network without its last block and its heads, in evaluation mode.

    It was learnt from pictures in blue, green, red. Its first weights are turned here, so that RGB goes in.

    Raises:
        WeightsError: the weights cannot be had.
    """
    network = MobileNet()
    numbers = _Numbers(fetch(FACERES_DEEP), _HEADS)
    with torch.no_grad():
        # Kernels lie as (h, w, in, out), depthwise ones as (h, w, out, 1).
        network.conv.weight.copy_(numbers.take(3, 3, 3, 32).permute(3, 2, 0, 1).flip(1))
        _set(network.norm, torch.ones(32), numbers.take(32))
        numbers.skip(_BOUNDS)
        for block in network.blocks:
            assert isinstance(block, SeparableBlock)  # noqa: S101 - narrows the type
            before, after = block.depthwise.out_channels, block.pointwise.out_channels
            block.depthwise.weight.copy_(numbers.take(3, 3, before, 1).permute(2, 3, 0, 1))
            _set(block.norm1, numbers.take(before), numbers.take(before))
            numbers.skip(_BOUNDS)
            # The scale of the normalisation behind it is a part of a published pointwise kernel.
            block.pointwise.weight.copy_(numbers.take(1, 1, before, after).permute(3, 2, 0, 1))
            _set(block.norm2, torch.ones(after), numbers.take(after))
            numbers.skip(_BOUNDS)
    return network.eval()


def _set(norm: nn.BatchNorm2d, scale: Tensor, offset: Tensor) -> None:
    """Makes a normalisation with statistics of 0 and 1 the affine y = scale · x + offset."""
    norm.weight.copy_(scale * (1 + norm.eps) ** 0.5)
    norm.bias.copy_(offset)


class _Numbers:
    """The numbers of a file of float32, in order."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._next = data, start

    def take(self, *shape: int) -> Tensor:
        """The next ones as a tensor of a shape."""
        count = math.prod(shape)
        taken = np.frombuffer(self._data, "<f4", count, 4 * self._next).reshape(shape)
        self._next += count
        return torch.from_numpy(taken.astype(np.float32))

    def skip(self, count: int) -> None:
        """Leaves out the next ones."""
        self._next += count
