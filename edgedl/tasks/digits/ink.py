"""From a picture of one digit to its ink on 8×8 cells, as part of the graph: polarity, contrast, frame, averaging.

The cells are those of the data (`edgedl.data.digits`): the share of each block that is ink. So the steps are those by
which the data were made, with plain arithmetic that ONNX has: a picture of any size, bright on dark or dark on bright.
All comparisons are between whole multiples of 1/256, which float32 holds exactly: no machine frames a digit otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIDE = 8

AS_IT_IS = 16
"""A picture of at most so many pixels a side is taken whole: it is framed already, as the data's 8×8 are."""

LEAST_CONTRAST = 16.0
"""Levels. Contrast is stretched to the full range, but not that of an empty sheet's noise."""

SHARE_OF_INK = 0.5
"""A pixel with more ink than this belongs to the digit that the frame is laid around."""

WIDTH = 1.25
"""The frame is at least so many times as wide as the digit, and as wide as high: the data's digits fill the height, and
hardly one of them uses all columns."""


class Ink(nn.Module):
    """Pixels -> ink, without weights."""

    luma: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Rec. 601 in 256ths: sums of whole levels are exact.
        self.register_buffer("luma", torch.tensor([77.0, 150.0, 29.0]) / 256, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Finds the ink.

        Args:
            pixels: RGB levels 0 … 255, (N, H, W, 3), uint8 or float, any N, H and W.

        Returns:
            Shares of ink 0 … 1, (N, 8, 8). A picture of one colour has none.
        """
        levels = pixels.to(self.luma.dtype) @ self.luma  # (N, H, W)
        darkest = levels.amin(dim=(1, 2), keepdim=True)
        brightest = levels.amax(dim=(1, 2), keepdim=True)
        contrast = brightest - darkest
        above = levels - darkest
        # Most of the picture's edge is paper: where it is bright, the ink is dark.
        rows = torch.arange(levels.shape[1], device=levels.device)
        columns = torch.arange(levels.shape[2], device=levels.device)
        edge = (_at_ends(rows, levels.shape[1])[:, None] | _at_ends(columns, levels.shape[2])).to(levels.dtype)
        bright_edge = ((above + above > contrast).to(levels.dtype) * edge).sum(dim=(1, 2), keepdim=True)
        ink = torch.where(bright_edge + bright_edge > edge.sum(), brightest - levels, above)
        inside = (ink > SHARE_OF_INK * contrast).to(levels.dtype)
        top, bottom = _extent(inside.amax(dim=2), rows)
        left, right = _extent(inside.amax(dim=1), columns)
        height = bottom - top
        width = torch.maximum(height, WIDTH * (right - left))
        middle = (left + right) / 2
        small = torch.maximum(rows[-1], columns[-1]) < AS_IT_IS
        whole_height, whole_width = torch.ones_like(top) * (rows[-1] + 1), torch.ones_like(top) * (columns[-1] + 1)
        down = _averaging(
            torch.where(small, 0 * top, top), torch.where(small, whole_height, height), rows.to(levels.dtype)
        )
        across = _averaging(
            torch.where(small, 0 * left, middle - width / 2),
            torch.where(small, whole_width, width),
            columns.to(levels.dtype),
        )
        return down @ (ink * _one_over(contrast.clamp(min=LEAST_CONTRAST))) @ across.transpose(1, 2)


def _one_over(x: Tensor) -> Tensor:
    """1/x, divided in float64: 32-bit ARM only estimates a division in float32. There are few x, one a picture."""
    return (1 / x.double()).to(x.dtype)


def _at_ends(positions: Tensor, count: int) -> Tensor:
    return (positions == 0) | (positions == count - 1)


def _extent(occupied: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Where the ones of (N, L) begin and end, each (N,); the whole length where there are none."""
    there = positions.to(occupied.dtype)
    length = there[-1] + 1
    begin = torch.where(occupied > 0, there, length).amin(dim=1)
    end = torch.where(occupied > 0, there + 1, 0 * there).amax(dim=1)
    none = end <= begin
    return torch.where(none, 0 * begin, begin), torch.where(none, length, end)


def _averaging(start: Tensor, length: Tensor, positions: Tensor) -> Tensor:
    """The matrices (N, 8, L) that average L pixels over eight equal cells; beyond the picture there is no ink.

    Args:
        start: where the first cell begins, (N,), in pixels.
        length: of all eight cells, (N,).
        positions: 0 … L - 1.
    """
    cell = (length / SIDE)[:, None, None]
    begin = start[:, None, None] + cell * torch.arange(SIDE, device=start.device)[:, None]  # (N, 8, 1)
    overlap = torch.minimum(begin + cell, positions + 1) - torch.maximum(begin, positions)  # (N, 8, L)
    return overlap.clamp(min=0) * _one_over(cell)
