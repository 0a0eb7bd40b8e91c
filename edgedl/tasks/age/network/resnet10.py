"""ResNet-10, the residual network of dlib's age predictor, as a torch module.

Layout (dlib's ``dnn_age_predictor_v1``; He et al. 2016, "Deep residual learning", for the blocks): a 7×7/2
convolution, a 3×3/2 max-pool, and four residual blocks of two 3×3 convolutions each, 64-128-128-256-256
channels. dlib pads nothing when it halves the resolution and lets the shorter branch of a sum end early, so the
sums here extend the smaller map with zeros at the end of each axis instead of padding the convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNEL_MEANS = (122.782, 117.001, 104.298)
"""Mean red, green and blue level that dlib subtracts before it divides by 256."""

FEATURES = 256


def _pad_end(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Extends (B, C, H, W) with zeros at the end of its last three axes."""
    return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2], 0, channels - x.shape[1]))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: identity, or a 2×2 average pool where the block halves the resolution."""

    def __init__(self, channels_in: int, channels: int, *, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        self.conv1 = nn.Conv2d(
            channels_in, channels, 3, stride=2 if halve else 1, padding=0 if halve else 1, bias=False
        )
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C_in, H, W) to (B, C, H, W), or to half the resolution."""
        residual = F.relu(self.norm1(self.conv1(x)))
        residual = self.norm2(self.conv2(residual))
        if not self.halve:
            return F.relu(residual + x)
        shortcut = F.avg_pool2d(x, 2)
        channels = residual.shape[1]
        height = max(residual.shape[2], shortcut.shape[2])
        width = max(residual.shape[3], shortcut.shape[3])
        return F.relu(_pad_end(residual, channels, height, width) + _pad_end(shortcut, channels, height, width))


class ResNet10(nn.Module):
    """Features of a face: levels 0..255 in RGB, (B, 3, S, S) float -> (B, 256).

    The public weights were learnt at S = 64; the network is fully convolutional and takes any S >= 39.
    """

    features = FEATURES

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 7, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(64)
        self.blocks = nn.Sequential(
            ResidualBlock(64, 64, halve=False),
            ResidualBlock(64, 128, halve=True),
            ResidualBlock(128, 128, halve=False),
            ResidualBlock(128, 256, halve=True),
            ResidualBlock(256, 256, halve=False),
        )
        self.register_buffer("means", torch.tensor(CHANNEL_MEANS).reshape(1, 3, 1, 1), persistent=False)
        self.means: Tensor

    def forward(self, faces: Tensor) -> Tensor:
        """Maps RGB levels (B, 3, S, S) to features (B, 256)."""
        x = (faces - self.means) / 256
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 3, stride=2)
        features: Tensor = self.blocks(x).mean(dim=(2, 3))  # (B, 256)
        return features
