"""BlazeFace, full range: a single-shot face detector for pictures of at most 192×192, as a torch module.

Bazarevsky et al. 2019, "BlazeFace: sub-millisecond neural face detection on mobile GPUs"; this is the later
"full range" network with a feature pyramid: an encoder down to 6×6, a decoder back to 48×48, and one anchor at each
of the 48×48 cells, which gives a box and six keypoints (right eye, left eye, nose tip, mouth, right and left ear).

The modules are laid out for ONNX Runtime, which keeps maps in blocks of 16 channels and leaves that layout, at the cost
of a copy either way, for whatever it does not know there. So a block squeezes to a multiple of 16 channels, those that
the published file lacks are zero, and adds its shortcut to the first channels only instead of padding it. The answers
are the published network's, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 192
"""Side of the square picture that the network was trained to look at, in pixels."""

STRIDE = 4
"""Pixels of the picture in one cell that has a candidate."""

STEP = 32
"""Pixels of the picture in one cell of the deepest map."""

LANES = 16
"""Channels in one block of ONNX Runtime's layout, with AVX-512; a multiple of it fits the other processors, too."""

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
        wide = -(-squeezed // LANES) * LANES
        self.depthwise1 = _Depthwise(channels_in, stride)
        self.squeeze = nn.Conv2d(channels_in, wide, 1)
        self.depthwise2 = _Depthwise(wide, 1)
        self.expand = nn.Conv2d(wide, channels_in, 1)
        self.widen = nn.Conv2d(wide, channels - channels_in, 1) if channels > channels_in else None
        """The channels that the shortcut lacks."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C_in, H, W) to (B, C, H / stride, W / stride)."""
        residual = self.depthwise2(F.relu(self.squeeze(self.depthwise1(x))))
        shortcut = F.max_pool2d(x, 2) if self.stride == 2 else x
        kept = F.relu(self.expand(residual) + shortcut)
        return kept if self.widen is None else torch.cat([kept, F.relu(self.widen(residual))], dim=1)


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
    """The network alone: (B, 3, H, W) in -1..1 -> logits (B, M) and offsets (B, M, 16) in pixels of the picture.

    One candidate for each of the M = H / 4 · W / 4 cells, row by row; H and W are multiples of 32. The network is fully
    convolutional: what it finds has the same number of pixels at every size. The sixteen offsets are the box's centre
    x, y and its width, height, then x, y of six keypoints; centre and keypoints count from the middle of the cell, see
    `middles`. `decode` turns them into boxes.
    """

    def __init__(self) -> None:
        super().__init__()
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

    def middles(self, cells: Tensor, width: int) -> Tensor:
        """The middles (L, 2), as x, y, of cells by their numbers (L,) in a picture that is `width` pixels wide."""
        across = width // STRIDE
        places = torch.stack([cells % across, torch.div(cells, across, rounding_mode="floor")], dim=-1)
        return (places.to(self.stem.weight.dtype) + 0.5) * STRIDE

    def decode(self, offsets: Tensor, middles: Tensor) -> tuple[Tensor, Tensor]:
        """Turns offsets (..., L, 16) into boxes (..., L, 4) as x1 y1 x2 y2 and keypoints (..., L, 6, 2).

        Both are in pixels of the network's picture. `middles` (L, 2) are those of the cells that the offsets are of.
        """
        centre = offsets[..., 0:2] + middles
        half = offsets[..., 2:4] / 2
        relative = offsets[..., 4:].reshape(*offsets.shape[:-1], len(KEYPOINTS), 2)
        keypoints = relative + middles.unsqueeze(1)
        return torch.cat([centre - half, centre + half], dim=-1), keypoints

    @torch.no_grad()
    def take(self, published: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Takes kernels (C_out, C_in, h, w) and biases (C_out,) by the names of the published TensorFlow Lite file.

        A kernel smaller than its convolution leaves the channels beyond it zero; one of a block that widens is split.

        Raises:
            KeyError: a convolution is not among them.
            ValueError: a kernel does not fill its convolutions, or has more channels than they do.
        """
        for name, convolutions in self.tensorflow_convolutions().items():
            kernel, bias = published[name]
            row = 0
            for convolution in convolutions:
                assert convolution.bias is not None  # noqa: S101 - narrows the type
                part = kernel[row : row + convolution.out_channels]
                convolution.weight.zero_()
                convolution.bias.zero_()
                convolution.weight[: len(part), : part.shape[1]] = part
                convolution.bias[: len(part)] = bias[row : row + len(part)]
                row += len(part)
            if row != len(kernel):
                raise ValueError(f"{name} has {len(kernel)} channels, its place in the network {row}")

    def tensorflow_convolutions(self) -> dict[str, tuple[nn.Conv2d, ...]]:
        """Names the convolutions as the published TensorFlow Lite file does: one, or two that share its channels."""
        names: dict[str, tuple[nn.Conv2d, ...]] = {"conv2d": (self.stem,)}
        counts = {"conv2d": 1, "depthwise_conv2d": 0}

        def add(kind: str, *convolutions: nn.Conv2d) -> None:
            number = counts[kind]
            names[f"{kind}_{number}" if number else kind] = convolutions
            counts[kind] += 1

        def add_block(block: nn.Module) -> None:
            assert isinstance(block, DoubleBlazeBlock)  # noqa: S101 - narrows the type
            add("depthwise_conv2d", block.depthwise1.conv)
            add("conv2d", block.squeeze)
            add("depthwise_conv2d", block.depthwise2.conv)
            add("conv2d", block.expand, *(() if block.widen is None else (block.widen,)))

        for block in self.encoder:
            add_block(block)
        for decoder in (self.decoder12, self.decoder24, self.decoder48):
            add("conv2d", decoder.deep)
            add("conv2d", decoder.lateral)
            for block in decoder.blocks:
                add_block(block)
        return names | {"classifier_face_4": (self.classifier,), "regressor_face_4": (self.regressor,)}
