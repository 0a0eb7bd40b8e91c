"""Augmentation of whole batches in torch: fast on one core, the same on every device, seeded.

The order is that of a camera: geometry, then light, then defects of the sensor and the file, then occlusion. Geometry
is resampled at the source's resolution and then brought to the network's with the antialiased resize that the exported
graph uses, so that a network learns on what it will be served.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from runtime.errors import InputError

_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Strengths and probabilities; 0 turns a step off. ``Augmentation.none()`` is the plain resize.

    Attributes:
        flip: Probability of a horizontal flip.
        translate: Largest shift along each axis as a share of the side.
        scale: Largest relative change of size, both ways.
        rotate: Largest rotation in degrees, both ways.
        brightness: Largest relative change of brightness, both ways.
        contrast: Largest relative change of contrast around the image's mean.
        saturation: Largest relative change of saturation.
        colour: Largest relative gain of each channel by itself: the colour of the light.
        gray: Probability of losing all colour.
        noise: Largest standard deviation of Gaussian noise, in levels of 255.
        blur: Probability of a blur of standard deviation up to 1 pixel.
        coarse: Probability of a downscale by 1.3 to 3 and back: small, badly compressed faces.
        erase: Probability of a rectangle of random place, shape and grey level (Zhong et al. 2017).
        erase_area: Largest share of the image that the rectangle covers.
    """

    flip: float = 0.5
    translate: float = 0.06
    scale: float = 0.1
    rotate: float = 8.0
    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.25
    colour: float = 0.06
    gray: float = 0.05
    noise: float = 4.0
    blur: float = 0.1
    coarse: float = 0.1
    erase: float = 0.25
    erase_area: float = 0.2

    def __post_init__(self) -> None:
        for name in ("flip", "gray", "blur", "coarse", "erase", "erase_area"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is a probability or share between 0 and 1, not {getattr(self, name)}")
        for name in ("translate", "scale", "brightness", "contrast", "saturation", "colour"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is a relative change from 0 to below 1, not {getattr(self, name)}")
        if self.rotate < 0 or self.noise < 0:
            raise InputError("rotate and noise must not be negative")

    @classmethod
    def none(cls) -> Augmentation:
        """No augmentation: the images are only resized."""
        return cls(**{field.name: 0.0 for field in fields(cls)})

    def __call__(self, images: Tensor, size: int | None, generator: Generator) -> Tensor:
        """Augments a batch.

        Args:
            images: Levels 0..255, (N, 3, H, W), uint8 or floating point.
            size: Side of the result in pixels; None keeps H and W.
            generator: Source of all randomness, on the images' device.

        Returns:
            Levels 0..255, (N, 3, size, size), float32.
        """
        if self.translate or self.scale or self.rotate or self.flip:
            images = _warp(images, self._affine(len(images), generator, images.device))
        resized = resize(images, size)
        # From here on in place: a batch of 64 is megabytes, and fresh pages cost more than the arithmetic.
        images = resized.clone() if resized is images else resized
        images = self._light(images, generator)
        if self.coarse:
            images = _on_some(images, self.coarse, generator, _coarsen)
        if self.blur:
            images = _on_some(images, self.blur, generator, _blur)
        if self.noise:
            # One noise field for the three channels: most of a sensor's noise is brightness, and it costs a third.
            field = torch.randn(len(images), 1, *images.shape[2:], generator=generator, device=images.device)
            images += field * (self.noise * _uniform(len(images), generator, images.device, 0, 1))
        if self.erase:
            images = _erase(images, self.erase, self.erase_area, generator)
        return images.clamp_(0, 255)

    def _affine(self, count: int, generator: Generator, device: torch.device) -> Tensor:
        """Maps of output onto input coordinates in [-1, 1], (N, 2, 3)."""

        def draw(limit: float) -> Tensor:
            return _uniform(count, generator, device, -limit, limit).flatten()

        mirror = torch.where(_chance(count, self.flip, generator, device), -1.0, 1.0)
        angle = draw(self.rotate) * (math.pi / 180)
        zoom = 1 / (1 + draw(self.scale))
        shift_x, shift_y = draw(2 * self.translate), draw(2 * self.translate)
        cosine, sine = angle.cos() * zoom, angle.sin() * zoom
        rows = torch.stack([cosine * mirror, -sine, shift_x, sine * mirror, cosine, shift_y], dim=1)
        return rows.view(count, 2, 3)

    def _light(self, images: Tensor, generator: Generator) -> Tensor:
        """Brightness, contrast, saturation, colour and gray in one linear map of the channels per image."""
        if not (self.brightness or self.contrast or self.saturation or self.colour or self.gray):
            return images
        count, device = len(images), images.device

        def factor(limit: float, columns: int = 1) -> Tensor:
            return _uniform(count, generator, device, 1 - limit, 1 + limit, columns)

        luma = torch.tensor(_LUMA, device=device).expand(3, 3)  # rows: every channel becomes the brightness
        keep = factor(self.saturation).view(count, 1, 1)
        keep = torch.where(_chance(count, self.gray, generator, device).view(count, 1, 1), 0.0, keep)
        mixing = keep * torch.eye(3, device=device) + (1 - keep) * luma  # (N, 3, 3)
        mixing = mixing * factor(self.colour, 3).view(count, 3, 1)
        mixing = mixing * factor(self.brightness).view(count, 1, 1)
        flat = images.reshape(count, 3, -1)  # (N, 3, H*W)
        contrast = factor(self.contrast).view(count, 1, 1)
        # contrast·(mixing·x − m) + m, where m is the mean brightness after the mixing
        mean = (mixing @ flat.mean(dim=2, keepdim=True)).mean(dim=1, keepdim=True)  # (N, 1, 1)
        offset = ((1 - contrast) * mean).expand(count, 3, 1)
        return torch.baddbmm(offset, contrast * mixing, flat).view(images.shape)


def resize(images: Tensor, size: int | None) -> Tensor:
    """Antialiased bilinear resize of levels (N, 3, H, W) to float32 (N, 3, size, size); None keeps H and W."""
    if size is not None and images.shape[2:] != (size, size):
        images = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    return images.float()


def _uniform(
    count: int, generator: Generator, device: torch.device, low: float, high: float, columns: int = 1
) -> Tensor:
    drawn = torch.rand(count, columns, 1, 1, generator=generator, device=device)
    return low + (high - low) * drawn


def _chance(count: int, probability: float, generator: Generator, device: torch.device) -> Tensor:
    return torch.rand(count, generator=generator, device=device) < probability


def _warp(images: Tensor, affine: Tensor) -> Tensor:
    """Resamples (N, 3, H, W) along affine maps (N, 2, 3) with the border repeated, as faces are cropped."""
    height, width = images.shape[2:]
    count = len(images)
    xs = (2 * torch.arange(width, device=images.device) + 1) / width - 1
    ys = (2 * torch.arange(height, device=images.device) + 1) / height - 1
    # F.affine_grid multiplies (H*W, 3) by (3, 2) and takes longer than the sampling itself. Written as one row plus an
    # outer product, with x and y side by side, the same grid costs a twentieth.
    row = xs[:, None] * affine[:, None, :, 0] + affine[:, None, :, 2]  # (N, W, 2)
    slope = affine[:, None, :, 1].expand(count, width, 2)
    grid = torch.baddbmm(
        row.reshape(count, 1, 2 * width), ys.view(1, -1, 1).expand(count, -1, 1), slope.reshape(count, 1, 2 * width)
    ).view(count, height, width, 2)
    return F.grid_sample(images.contiguous().float(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def _on_some(
    images: Tensor, probability: float, generator: Generator, change: Callable[[Tensor, Generator], Tensor]
) -> Tensor:
    chosen = _chance(len(images), probability, generator, images.device).nonzero().flatten()
    if len(chosen) == 0:
        return images
    return images.index_copy_(0, chosen, change(images[chosen], generator))


def _coarsen(images: Tensor, generator: Generator) -> Tensor:
    """Down by one factor per batch between 1.3 and 3, and back."""
    factor = 1.3 + 1.7 * float(torch.rand((), generator=generator, device=images.device))
    height, width = images.shape[2:]
    small = (max(1, round(height / factor)), max(1, round(width / factor)))
    images = F.interpolate(images, small, mode="bilinear", antialias=True)
    return F.interpolate(images, (height, width), mode="bilinear", align_corners=False)


def _blur(images: Tensor, generator: Generator) -> Tensor:
    """Gaussian blur with a 5×5 kernel; each image has its own standard deviation between 0.3 and 1 pixel."""
    count, channels = images.shape[:2]
    sigma = _uniform(count, generator, images.device, 0.3, 1.0).view(count, 1)
    taps = torch.exp(-0.5 * (torch.arange(-2, 3, device=images.device) / sigma) ** 2)
    taps = (taps / taps.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)  # (N*3, 5)
    padded = F.pad(images, (2, 2, 2, 2), mode="replicate").reshape(
        1, count * channels, *(s + 4 for s in images.shape[2:])
    )
    padded = F.conv2d(padded, taps.view(-1, 1, 1, 5), groups=count * channels)
    padded = F.conv2d(padded, taps.view(-1, 1, 5, 1), groups=count * channels)
    return padded.view(images.shape)


def _erase(images: Tensor, probability: float, area: float, generator: Generator) -> Tensor:
    """Covers a rectangle of 2 % to ``area`` of the image, sides 1:3 to 3:1, with one random grey level."""
    count, device = len(images), images.device
    height, width = images.shape[2:]

    def draw(low: float, high: float) -> Tensor:
        return _uniform(count, generator, device, low, high)

    share, aspect = draw(min(0.02, area), area), torch.exp(draw(-math.log(3), math.log(3)))
    half_h, half_w = (share * aspect).sqrt() / 2, (share / aspect).sqrt() / 2
    rows = ((torch.arange(height, device=device) + 0.5) / height).view(1, 1, height, 1)
    columns = ((torch.arange(width, device=device) + 0.5) / width).view(1, 1, 1, width)
    inside = ((rows - draw(0, 1)).abs() < half_h) & ((columns - draw(0, 1)).abs() < half_w)
    inside &= _chance(count, probability, generator, device).view(count, 1, 1, 1)
    return torch.where(inside, draw(0, 255), images, out=images)
