"""EfficientNet-Lite: ImageNet features of a picture or a video frame, as a torch module.

Tan and Le 2019, "EfficientNet: rethinking model scaling for convolutional neural networks", table 1, in the form that
its authors published for edge devices (``efficientnet/lite`` of TensorFlow's TPU repository): no squeeze and
excitation, ReLU6 instead of swish. Inverted bottlenecks (Sandler et al. 2018, "MobileNetV2"), sixteen in Lite0, between
a 3×3/2 stem and a 1×1 head. The larger networks have wider and longer stages; stem and head are never scaled, nor is
the length of the first and the last stage.

The weights were learnt with TensorFlow's SAME padding. Where a convolution halves an even side it pads one row less
before the first row than after the last; torch's symmetric padding would shift every map by half a cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

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

CHANNEL_STEP = 8
"""Scaled channels are rounded to a multiple of this."""


@dataclass(frozen=True, slots=True)
class Scale:
    """One network of the family.

    Attributes:
        name: as its authors call it, and as options and runs do.
        width: channels of a stage as a multiple of those of Lite0.
        depth: blocks of a stage as a multiple of those of Lite0.
        size: pixels, the side that this class looks at by default: that of the pictures which the public weights were
            learnt on, or the next multiple of 32.
    """

    name: str
    width: float
    depth: float
    size: int

    def stages(self) -> tuple[tuple[int, int, int, int, int], ...]:
        """`STAGES` with the channels and blocks of this network."""
        last = len(STAGES) - 1
        return tuple(
            (
                count if index in (0, last) else math.ceil(count * self.depth),
                kernel,
                stride,
                expansion,
                self._channels(channels),
            )
            for index, (count, kernel, stride, expansion, channels) in enumerate(STAGES)
        )

    def _channels(self, channels: int) -> int:
        """Rounded to the nearest multiple, but never by more than a tenth downwards."""
        scaled = channels * self.width
        rounded = max(CHANNEL_STEP, int(scaled + CHANNEL_STEP / 2) // CHANNEL_STEP * CHANNEL_STEP)
        return rounded if rounded >= 0.9 * scaled else rounded + CHANNEL_STEP


LITE0 = Scale("efficientnet-lite0", 1.0, 1.0, 224)
LITE2 = Scale("efficientnet-lite2", 1.1, 1.2, 288)
"""Learnt on 260 pixels."""

SCALES = {scale.name: scale for scale in (LITE0, LITE2)}

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


class EfficientNetLite(nn.Module):
    """Levels 0..255 in RGB, (N, 3, S, S) float -> features (N, 1280, S / 32, S / 32), each at least 0 and at most 6.

    Args:
        scale: which network of the family.
        size: S, a multiple of 32; None: the network's own. The public weights were learnt on crops in which things look
            larger than in whole photos: a larger S makes up for that (Touvron et al. 2019, "Fixing the train-test
            resolution discrepancy").
    """

    features = FEATURES

    def __init__(self, scale: Scale = LITE0, size: int | None = None) -> None:
        super().__init__()
        self.scale = scale
        self.size = size or scale.size
        self.stem = _convolution(3, STEM, 3, stride=2)
        channels_in = STEM
        blocks = []
        for count, kernel, stride, expansion, channels in scale.stages():
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


class EfficientNetTrunk(nn.Module):
    """A network up to the block that halves its grid for the last time: levels (N, 3, S, S) -> (N, F, S / 32, S / 32).

    Args:
        whole: whose modules it takes; `EfficientNetTop` takes the rest.
    """

    def __init__(self, whole: EfficientNetLite) -> None:
        super().__init__()
        self.size = whole.size
        self.stem, self.blocks = whole.stem, whole.blocks[: _last_halving(whole) + 1]
        self.features = int(self.blocks[-1].project[1].out_channels)  # type: ignore[index]

    def forward(self, levels: Tensor) -> Tensor:
        """Maps levels to the grid that the top goes on from."""
        grid: Tensor = self.blocks(F.relu6(self.stem((levels - MEAN) / SCALE)))
        return grid


class EfficientNetTop(nn.Module):
    """What follows on `EfficientNetTrunk`: (N, F, h, w) -> features (N, 1280, h, w).

    It has seven tenths of the weights and three tenths of the arithmetic, so it can learn where the whole could not.

    Args:
        whole: whose modules it takes.
    """

    features = FEATURES

    def __init__(self, whole: EfficientNetLite) -> None:
        super().__init__()
        self.blocks, self.head = whole.blocks[_last_halving(whole) + 1 :], whole.head

    def forward(self, grid: Tensor) -> Tensor:
        """Maps the trunk's grid, or a rectangle of it, to features."""
        features: Tensor = F.relu6(self.head(self.blocks(grid)))
        return features


def _last_halving(network: EfficientNetLite) -> int:
    """The number of the last block that halves the grid."""
    return max(index for index, block in enumerate(network.blocks) if block.depthwise[1].stride[0] > 1)  # type: ignore[index]


class ImageNetClassifier(nn.Module):
    """The encoder with the classifier it was learnt with: levels (N, 3, S, S) -> logits of ImageNet's 1000 classes."""

    classes = 1000

    def __init__(self, encoder: EfficientNetLite) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.features, self.classes)

    def forward(self, levels: Tensor) -> Tensor:
        """Averages the grid and classifies."""
        logits: Tensor = self.classifier(self.encoder(levels).mean(dim=(2, 3)))
        return logits
