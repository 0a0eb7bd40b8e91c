"""EfficientNet-Lite0: ImageNet features of a picture or a video frame, as a torch module.

Tan and Le 2019, "EfficientNet: rethinking model scaling for convolutional neural networks", table 1, in the form that
its authors published for edge devices (``efficientnet/lite`` of TensorFlow's TPU repository): no squeeze and
excitation, ReLU6 instead of swish, stem and head not scaled. Sixteen inverted bottlenecks (Sandler et al. 2018,
"MobileNetV2") between a 3×3/2 stem and a 1×1 head.

The weights were learnt with TensorFlow's SAME padding. Where a convolution halves an even side it pads one row less
before the first row than after the last; torch's symmetric padding would shift every map by half a cell.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 224
"""Side of the square pictures that the public weights were learnt on, in pixels."""

STRIDE = 32
FEATURES = 1280

MEAN, SCALE = 127.0, 128.0
"""A level becomes (level - MEAN) / SCALE: about -1..1."""

STEM = 32

STAGES = (
    # blocks, kernel, stride of the first block, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

NORM_EPSILON = 1e-3
NORM_MOMENTUM = 0.01
"""Of the batch normalisation, as the authors trained it (TensorFlow's momentum is .99)."""


class SamePadding(nn.Module):
    """Zeros around (B, C, H, W), even H and W, as TensorFlow's SAME puts them: the odd row and column go to the end."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.before = (kernel - stride) // 2
        self.after = kernel - stride - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Pads both sides of both axes."""
        return F.pad(x, (self.before, self.after, self.before, self.after))


def _convolution(channels_in: int, channels: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Padding, convolution and normalisation; odd kernels at stride 1 need no padding apart from the convolution's."""
    symmetric = (kernel - stride) % 2 == 0
    return nn.Sequential(
        nn.Identity() if symmetric else SamePadding(kernel, stride),
        nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2 if symmetric else 0, groups=groups, bias=False),
        nn.BatchNorm2d(channels, NORM_EPSILON, NORM_MOMENTUM),
    )


class InvertedBottleneck(nn.Module):
    """Expand, convolve each channel alone, project; with a shortcut where nothing changes its shape.

    Maps (B, C_in, H, W) to (B, C, H / stride, W / stride).
    """

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.expand = _convolution(channels_in, wide) if expansion != 1 else None
        self.depthwise = _convolution(wide, wide, kernel, stride, groups=wide)
        self.project = _convolution(wide, channels)
        self.shortcut = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        """Runs the block."""
        wide = x if self.expand is None else F.relu6(self.expand(x))
        projected: Tensor = self.project(F.relu6(self.depthwise(wide)))
        return projected + x if self.shortcut else projected


class EfficientNetLite0(nn.Module):
    """Levels 0..255 in RGB, (N, 3, S, S) float -> features (N, 1280, S / 32, S / 32), each at least 0 and at most 6.

    Args:
        size: S, a multiple of 32. The public weights were learnt at 224, which gives a grid of 7×7, on crops in which
            things look larger than in whole photos: a larger S makes up for that (Touvron et al. 2019, "Fixing the
            train-test resolution discrepancy").
    """

    features = FEATURES

    def __init__(self, size: int = SIZE) -> None:
        super().__init__()
        self.size = size
        self.stem = _convolution(3, STEM, 3, stride=2)
        channels_in = STEM
        blocks = []
        for count, kernel, stride, expansion, channels in STAGES:
            for index in range(count):
                first = index == 0
                blocks.append(InvertedBottleneck(channels_in, channels, kernel, stride if first else 1, expansion))
                channels_in = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = _convolution(channels_in, FEATURES)

    def forward(self, levels: Tensor) -> Tensor:
        """Maps levels to the grid of features; see the class for shapes."""
        x = F.relu6(self.stem((levels - MEAN) / SCALE))
        return F.relu6(self.head(self.blocks(x)))


class ImageNetClassifier(nn.Module):
    """The encoder with the classifier it was learnt with: levels (N, 3, S, S) -> logits of ImageNet's 1000 classes."""

    classes = 1000

    def __init__(self, encoder: EfficientNetLite0) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.features, self.classes)

    def forward(self, levels: Tensor) -> Tensor:
        """Averages the grid and classifies."""
        logits: Tensor = self.classifier(self.encoder(levels).mean(dim=(2, 3)))
        return logits
