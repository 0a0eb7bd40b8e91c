"""BlazeFace, full range: a single-shot face detector for 192×192 pictures, as a torch module.

Bazarevsky et al. 2019, "BlazeFace: sub-millisecond neural face detection on mobile GPUs"; this is the later
"full range" network with a feature pyramid: an encoder down to 6×6, a decoder back to 48×48, and one anchor at each
of the 48×48 cells, which gives a box and six keypoints (right eye, left eye, nose tip, mouth, right and left ear).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 192
"""Side of the square picture that the network was trained to look at, in pixels."""

STRIDE = 4
SMALLEST_STEP = 32
"""Pixels of the picture in one cell of the deepest map."""

KEYPOINTS = ("right eye", "left eye", "nose tip", "mouth", "right ear", "left ear")

_ENCODER = (
    # squeezed channels, channels, stride
    (8, 32, 1), (8, 32, 1),
    (12, 48, 2), (12, 48, 1), (16, 64, 1),
    (24, 96, 2), (32, 128, 1), (32, 128, 1),
    (36, 144, 2), (48, 192, 1), (64, 256, 1),
    (96, 384, 2), (96, 384, 1), (96, 384, 1), (96, 384, 1),
)  # fmt: skip


class _Depthwise(nn.Module):
    """3×3 depthwise convolution, padded as TensorFlow's SAME: at stride 2 only after the last row and column."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(channels, channels, 3, stride=stride, padding=stride % 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        convolved: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)) if self.stride == 2 else x)
        return convolved


class DoubleBlazeBlock(nn.Module):
    """Depthwise, squeeze, depthwise, expand, and a shortcut whose missing channels are zero."""

    def __init__(self, channels_in: int, squeezed: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra = channels - channels_in
        self.depthwise1 = _Depthwise(channels_in, stride)
        self.squeeze = nn.Conv2d(channels_in, squeezed, 1)
        self.depthwise2 = _Depthwise(squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C_in, H, W) to (B, C, H / stride, W / stride)."""
        residual = F.relu(self.squeeze(self.depthwise1(x)))
        residual = self.expand(self.depthwise2(residual))
        shortcut = F.max_pool2d(x, 2) if self.stride == 2 else x
        if self.extra:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.extra))
        return F.relu(shortcut + residual)


class _Decoder(nn.Module):
    """One step up the pyramid: the deeper map doubled, plus the lateral one, then blocks at that resolution."""

    def __init__(self, deep: int, lateral: int, squeezed: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.deep = nn.Conv2d(deep, channels, 1)
        self.lateral = nn.Conv2d(lateral, channels, 1)
        self.blocks = nn.Sequential(*(DoubleBlazeBlock(channels, squeezed, channels, 1) for _ in range(blocks)))

    def forward(self, deep: Tensor, lateral: Tensor) -> Tensor:
        up = F.interpolate(F.relu(self.deep(deep)), scale_factor=2.0, mode="bilinear", align_corners=False)
        decoded: Tensor = self.blocks(F.relu(self.lateral(lateral)) + up)
        return decoded


class BlazeFace(nn.Module):
    """The network alone: (B, 3, S, S) in -1..1 -> logits (B, M) and offsets (B, M, 16) in pixels of the picture.

    One candidate for each of the M = (S / 4)² cells, 2304 for the published 192. The sixteen offsets are the box's
    centre x, y and its width, height, then x, y of six keypoints; centre and keypoints count from the middle of the
    anchor's cell. `decode` turns them into boxes.

    Args:
        size: S, a multiple of 32. The network is fully convolutional: the weights are the same at every size, and
            what it finds has the same number of pixels.
    """

    def __init__(self, size: int = SIZE) -> None:
        super().__init__()
        if size < SMALLEST_STEP or size % SMALLEST_STEP:
            raise ValueError(f"the network halves its picture five times: a multiple of {SMALLEST_STEP}, not {size}")
        self.size = size
        self.stem = nn.Conv2d(3, 32, 3, stride=2)
        channels = 32
        blocks = []
        for squeezed, out, stride in _ENCODER:
            blocks.append(DoubleBlazeBlock(channels, squeezed, out, stride))
            channels = out
        self.encoder = nn.ModuleList(blocks)
        self.decoder12 = _Decoder(384, 256, 48, 96, 2)
        self.decoder24 = _Decoder(96, 128, 32, 64, 2)
        self.decoder48 = _Decoder(64, 64, 24, 48, 1)
        self.classifier = nn.Conv2d(48, 1, 1)
        self.regressor = nn.Conv2d(48, 4 + 2 * len(KEYPOINTS), 1)
        cells = (torch.arange(size // STRIDE, dtype=torch.float32) + 0.5) * STRIDE
        y, x = torch.meshgrid(cells, cells, indexing="ij")
        self.register_buffer("anchors", torch.stack([x, y], dim=-1).reshape(-1, 2), persistent=False)  # (M, 2)
        self.anchors: Tensor

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the network; see the class for shapes."""
        x = F.relu(self.stem(F.pad(pictures, (0, 1, 0, 1))))
        lateral: list[Tensor] = []
        for block in self.encoder:
            if isinstance(block, DoubleBlazeBlock) and block.stride == 2:
                lateral.append(x)
            x = block(x)
        _, at48, at24, at12 = lateral
        x = self.decoder12(x, at12)
        x = self.decoder24(x, at24)
        x = self.decoder48(x, at48)
        logits = self.classifier(x).flatten(1)  # (B, M), row by row
        offsets = self.regressor(x).permute(0, 2, 3, 1).flatten(1, 2)  # (B, M, 16)
        return logits, offsets

    def decode(self, offsets: Tensor, anchors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Turns offsets (..., M, 16) into boxes (..., M, 4) as x1 y1 x2 y2 and keypoints (..., M, 6, 2).

        Both are in pixels of the network's picture. `anchors` (M, 2) says whose offsets they are, where not all.
        """
        anchors = self.anchors if anchors is None else anchors
        centre = offsets[..., 0:2] + anchors
        half = offsets[..., 2:4] / 2
        relative = offsets[..., 4:].reshape(*offsets.shape[:-1], len(KEYPOINTS), 2)
        keypoints = relative + anchors.unsqueeze(1)
        return torch.cat([centre - half, centre + half], dim=-1), keypoints

    def at(self, size: int) -> BlazeFace:
        """The same weights for pictures of another side; the mode stays."""
        other = BlazeFace(size)
        other.load_state_dict(self.state_dict())
        return other.train(self.training)

    def tensorflow_convolutions(self) -> dict[str, nn.Conv2d]:
        """Names each convolution as the published TensorFlow Lite file does."""
        names: dict[str, nn.Conv2d] = {"conv2d": self.stem}
        counts = {"conv2d": 1, "depthwise_conv2d": 0}

        def add(kind: str, conv: nn.Conv2d) -> None:
            number = counts[kind]
            names[f"{kind}_{number}" if number else kind] = conv
            counts[kind] += 1

        def add_block(block: nn.Module) -> None:
            assert isinstance(block, DoubleBlazeBlock)  # noqa: S101 - narrows the type
            add("depthwise_conv2d", block.depthwise1.conv)
            add("conv2d", block.squeeze)
            add("depthwise_conv2d", block.depthwise2.conv)
            add("conv2d", block.expand)

        for block in self.encoder:
            add_block(block)
        for decoder in (self.decoder12, self.decoder24, self.decoder48):
            add("conv2d", decoder.deep)
            add("conv2d", decoder.lateral)
            for block in decoder.blocks:
                add_block(block)
        return names | {"classifier_face_4": self.classifier, "regressor_face_4": self.regressor}
