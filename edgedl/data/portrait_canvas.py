"""Anti-aliased shapes on a batch of pictures, every one in the coordinates of its own face.

A shape is a mask in [0, 1] over a window of pixels; its edge is about one pixel wide, so no supersampling is needed. A
window holds the shape in all pictures of the batch, which are painted together: the batch decides where nothing is
painted, never what is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedl.data.portrait_traits import Traits

Pixels = NDArray[Any]  # float32, (B, h, w) unless said otherwise; numpy's types lose the width in arithmetic


# How strongly each kind of relief darkens; a glow is the opposite of a shadow.
CREASE, SHADOW, GLOW = 1.0, 0.76, -0.36
_DARK = (0.54, 0.66, 0.70)  # what a full crease takes from red, green and blue: skin's shadows are reddish
_LARGE = 1e30


@dataclass(frozen=True, slots=True)
class Canvas:
    """A window of a batch of pictures.

    Attributes:
        pixels: red, green, blue in 0 … 255, (B, 3, h, w); painted in place.
        relief: shadow, creases and glow gather here and are laid on the skin in one go, (B, h, w).
        u: to the right across the face, (B, h, w); 0 is its middle.
        v: down the face, (B, h, w); -1 is the crown, 1 is the chin.
        unit: pixels per unit of u and v, (B, 1, 1).
        placing: what maps face coordinates to pixels of the whole picture: x, y, unit * cosine, unit * sine, (4, B).
        origin: row and column of the window in the picture.
    """

    pixels: Pixels
    relief: Pixels
    u: Pixels
    v: Pixels
    unit: Pixels
    placing: Pixels
    origin: tuple[int, int]

    @classmethod
    def blank(cls, traits: Traits, size: int) -> Canvas:
        """An unpainted canvas for a batch of faces, size × size each."""
        count = len(traits)
        x, y = traits.centre_x * size, traits.centre_y * size
        half = traits.tilt * 0.5  # tan(angle / 2): turns cosine and sine into fractions
        cosine = (1 - half * half) / (1 + half * half)
        sine = 2 * half / (1 + half * half)
        unit = traits.scale * size
        steps = np.arange(size, dtype=np.float32) + 0.5
        across = ((steps - x[:, None]) / unit[:, None])[:, None, :]
        down = ((steps - y[:, None]) / unit[:, None])[:, :, None]
        u = across * spread(cosine) + down * spread(sine)
        v = down * spread(cosine) - across * spread(sine)
        pixels = np.empty((count, 3, size, size), np.float32)
        placing = np.stack([x, y, unit * cosine, unit * sine])
        return cls(pixels, np.zeros_like(u), u, v, spread(unit), placing, (0, 0))

    def window(self, left: float | Pixels, right: float | Pixels, top: float, bottom: float) -> Canvas:
        """The pixels that hold this rectangle of face coordinates in every picture of the batch.

        Args:
            left: u, one for all or (B,).
            right: likewise.
            top: v.
            bottom: v.
        """
        x, y, cosine, sine = self.placing
        a, b = cosine * left, cosine * right
        c, d = sine * left, sine * right
        columns = (
            x + np.minimum(a, b) - np.maximum(sine * top, sine * bottom),
            x + b - np.minimum(sine * top, sine * bottom),
        )
        rows = (y + np.minimum(c, d) + cosine * top, y + np.maximum(c, d) + cosine * bottom)
        height, width = self.u.shape[1:]
        first_row, last_row = _span(rows, self.origin[0], height)
        first_column, last_column = _span(columns, self.origin[1], width)
        rows_in, columns_in = slice(first_row, last_row), slice(first_column, last_column)
        return Canvas(
            self.pixels[:, :, rows_in, columns_in],
            self.relief[:, rows_in, columns_in],
            self.u[:, rows_in, columns_in],
            self.v[:, rows_in, columns_in],
            self.unit,
            self.placing,
            (self.origin[0] + first_row, self.origin[1] + first_column),
        )

    def paint(self, colour: Pixels, mask: Pixels) -> None:
        """Cover with a colour.

        Args:
            colour: (B, 3) or (1, 3).
            mask: 1 covers, 0 leaves, (B, h, w).
        """
        for channel in range(3):
            layer = self.pixels[:, channel]
            change = spread(colour[:, channel]) - layer
            change *= mask
            layer += change

    def tint(self, factor: Sequence[float], mask: Pixels) -> None:
        """Multiply by a factor per channel where the mask is 1; under 1 darkens.

        Args:
            factor: of red, green, blue.
            mask: (B, h, w).
        """
        for channel in range(3):
            if factor[channel] == 1:
                continue
            change = mask * (factor[channel] - 1)
            change += 1
            self.pixels[:, channel] *= change

    def crease(self, mask: Pixels) -> None:
        """Darken like a fold, at once."""
        self.tint(tuple(1 - dark for dark in _DARK), mask)

    def carve(self, strength: float, mask: Pixels) -> None:
        """Add to the relief.

        Args:
            strength: CREASE, SHADOW or GLOW, or a part of one.
            mask: (B, h, w); used up.
        """
        mask *= strength
        np.add(self.relief, mask, out=self.relief)  # a frozen field cannot be the target of +=

    def settle(self, mask: Pixels) -> None:
        """Lay the relief on the skin where the mask is 1, (B, h, w)."""
        relief = np.clip(self.relief, -1, 1)
        relief *= mask
        self.crease(relief)

    def edge(self, distance: Pixels) -> Pixels:
        """The mask of the points with a negative signed distance (in units), its edge one pixel wide."""
        mask = distance * -self.unit
        mask += 0.5
        return np.clip(mask, 0, 1, out=mask)

    def stroke(self, distance: Pixels, thickness: float | Pixels) -> Pixels:
        """The mask of a line.

        Args:
            distance: of each point to the line's middle, signed or not, in units.
            thickness: in units, one for all or (B, 1, 1). A line thinner than a pixel is painted a pixel wide
                and paler.
        """
        width = thickness * self.unit
        # The overlap of a pixel with the line, as if both were one-dimensional.
        reach = np.abs(distance)
        reach *= -self.unit
        reach += 0.5 * (width + 1)
        return np.clip(reach, 0, np.minimum(width, 1), out=reach)

    def ellipse(self, u: float | Pixels, v: float | Pixels, across: float | Pixels, down: float | Pixels) -> Pixels:
        """The mask of an ellipse with this middle and these radii."""
        return self.edge(ellipse_distance(self.u, self.v, u, v, across, down))


def spread(values: Pixels) -> Pixels:
    """(B,) to (B, 1, 1), to be combined with pixels."""
    return values[:, None, None]


def ellipse_distance(
    u: Pixels,
    v: Pixels,
    middle_u: float | Pixels,
    middle_v: float | Pixels,
    across: float | Pixels,
    down: float | Pixels,
) -> Pixels:
    """About the signed distance to an ellipse, exact on it and along its shorter axis."""
    x, y = (u - middle_u) / across, (v - middle_v) / down
    x *= x
    y *= y
    x += y
    np.sqrt(x, out=x)
    x -= 1
    x *= np.minimum(across, down)
    return x


def blob(
    u: Pixels,
    v: Pixels,
    middle_u: float | Pixels,
    middle_v: float | Pixels,
    across: float | Pixels,
    down: float | Pixels,
) -> Pixels:
    """A soft spot: 1 in the middle, 0 from the ellipse on, without an edge."""
    x, y = (u - middle_u) / across, (v - middle_v) / down
    x *= x
    y *= y
    x += y
    np.subtract(1, x, out=x)
    np.clip(x, 0, 1, out=x)
    x *= x
    return x


def positive(x: Pixels) -> Pixels:
    """X where it is over 0, else 0; numpy clips several times faster than it takes the maximum with a number."""
    return np.clip(x, 0, _LARGE)


def bump(x: Pixels) -> Pixels:
    """1 at 0, 0 from -1 and 1 outwards, smooth."""
    rest = x * x
    np.subtract(1, rest, out=rest)
    np.clip(rest, 0, 1, out=rest)
    rest *= rest
    return rest


def wave(x: Pixels) -> Pixels:
    """The distance to the nearest whole number, 0 to 0.5: equally spaced lines in one go."""
    rest = x + 0.5
    np.floor(rest, out=rest)
    rest -= x
    return np.abs(rest, out=rest)


def _span(positions: tuple[Pixels, Pixels], origin: int, length: int) -> tuple[int, int]:
    """The first and the one after the last index that hold all positions, a pixel to spare on both sides."""
    first = min(max(math.floor(positions[0].min()) - origin - 1, 0), length)
    return first, max(min(math.ceil(positions[1].max()) - origin + 2, length), first)
