"""A small residual network of depthwise convolutions, for training from nothing on a laptop's processor.

The block is the one of MobileNetV2 (Sandler et al. 2018) without its expansion at full resolution: depthwise 3×3,
pointwise to twice the channels and back. About 0.1 M parameters.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

STAGES = ((24, 1), (40, 1), (64, 1), (80, 0))
"""Channels and number of blocks of each stage; every stage halves the resolution.

Few channels at the end on purpose: the more channels share an answer, the less a fault in one layer moves it, and the
parity gate must tell the smallest fault from float32 noise (weakest layer 7.6e-4 years, 50 times the noise; with 128
channels and twice the blocks it was 13 times, and the gate refused).
"""


def _convolution(channels_in: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
    )


class DepthwiseBlock(nn.Module):
    """(B, C, H, W) -> (B, C, H, W), with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = _convolution(channels, channels, 3, groups=channels)
        self.widen = _convolution(channels, 2 * channels, 1)
        self.narrow = _convolution(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Runs the block."""
        return x + self.narrow(F.relu(self.widen(self.depthwise(x))))  # type: ignore[no-any-return]


class CompactNetwork(nn.Module):
    """RGB levels 0..255, (B, 3, S, S) -> features (B, 128); S of 32 or more."""

    features = STAGES[-1][0]

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for out, blocks in STAGES:
            layers += [_convolution(channels, out, 3, stride=2), nn.ReLU()]
            layers += [DepthwiseBlock(out) for _ in range(blocks)]
            channels = out
        self.layers = nn.Sequential(*layers)

    def forward(self, levels: Tensor) -> Tensor:
        """Maps levels to features."""
        return F.relu(self.layers((levels - 127.5) / 127.5)).mean(dim=(2, 3))  # (B, 128)
