"""MobileNet of the first version, without its last block, as a torch module.

Howard et al. 2017, "MobileNets: efficient convolutional neural networks for mobile vision applications", table 1: a
convolution and depthwise separable blocks, a ReLU bounded at 6 behind every convolution. The thirteenth block holds a
third of the weights and adds no resolution, so it is left out: 2.1 M parameters stay.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNEL_MEANS = (123.68, 116.779, 103.939)
"""Mean red, green and blue level, which the published network subtracts."""

BLOCKS = (
    # channels, stride
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2),
)  # fmt: skip

FROZEN_BLOCKS = 4
"""Blocks that never learn. They work at an eighth of the resolution and finer, where a step would spend half of its
time, and what they find are edges and textures of faces."""


def _same(x: Tensor, stride: int) -> Tensor:
    """Pads (B, C, H, W) for a kernel of 3 as TensorFlow's SAME does with an even side."""
    return F.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))


class SeparableBlock(nn.Module):
    """(B, C_in, H, W) -> (B, C, H/stride, W/stride): a depthwise 3×3 convolution and a pointwise one."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.depthwise = nn.Conv2d(channels_in, channels_in, 3, stride, groups=channels_in, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.pointwise = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Runs the block."""
        x = F.relu6(self.norm1(self.depthwise(_same(x, self.stride))))
        return F.relu6(self.norm2(self.pointwise(x)))


class MobileNet(nn.Module):
    """Features of a face: levels 0..255 in RGB, (B, 3, S, S) float -> (B, 1024); S of 32 or more.

    The published weights were learnt at S = 224.
    """

    features = BLOCKS[-1][0]

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(32)
        channels = (32, *(channels for channels, _ in BLOCKS))
        self.blocks = nn.Sequential(
            *(SeparableBlock(before, after, stride) for before, (after, stride) in zip(channels, BLOCKS, strict=False))
        )
        self.register_buffer("means", torch.tensor(CHANNEL_MEANS).reshape(1, 3, 1, 1), persistent=False)
        self.means: Tensor
        self.frozen: tuple[nn.Module, ...] = ()

    def freeze(self) -> None:
        """Keeps the finest blocks as they are: neither their weights nor their statistics learn any more."""
        self.frozen = (self.conv, self.norm, *list(self.blocks)[:FROZEN_BLOCKS])
        for layer in self.frozen:
            layer.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> MobileNet:
        """As of any module, but for what is frozen."""
        super().train(mode)
        for layer in self.frozen:
            layer.eval()
        return self

    def forward(self, faces: Tensor) -> Tensor:
        """Maps RGB levels (B, 3, S, S) to features (B, 1024)."""
        x = F.relu6(self.norm(self.conv(_same(faces - self.means, 2))))
        features: Tensor = self.blocks(x).mean(dim=(2, 3))  # (B, 1024)
        return features
