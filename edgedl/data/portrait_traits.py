"""What a synthetic face looks like at an age: the traits that ``portrait_features`` paints.

Every trait is a closed formula of the age and of uniform random numbers that belong to the person, so that growing up
and ageing show in many places at once and none of them tells the age exactly: one shift of several years is common to
all signs of a person (people look older or younger than they are), and each sign has a smaller one of its own.

Only operations that IEEE 754 rounds exactly are used here and in the painting (no sine, exponential or sum of many):
the same seed gives the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]

UNIFORMS = 160  # random numbers per person; more than are used, so that a trait added at the end changes no old face
OLDEST = 100

# Light, medium, dark.
_SKIN = ((242.0, 208.0, 186.0), (198.0, 146.0, 112.0), (96.0, 62.0, 46.0))
_HAIR = ((22.0, 18.0, 18.0), (64.0, 40.0, 26.0), (120.0, 72.0, 36.0), (214.0, 172.0, 104.0))
_IRIS = ((60.0, 38.0, 24.0), (96.0, 72.0, 40.0), (78.0, 108.0, 84.0), (92.0, 128.0, 158.0))


@dataclass(frozen=True, slots=True)
class Traits:
    """Traits of n people: (n,) each, colours (n, 3). Lengths are in units of half the head's height."""

    female: Values
    # Pose: centre as a share of the picture, half the head's height as a share of the picture, half-angle tangent.
    centre_x: Values
    centre_y: Values
    scale: Values
    tilt: Values
    yaw: Values
    pitch: Values
    # Growing up.
    width: Values
    taper: Values
    jaw: Values
    eye_line: Values
    eye_distance: Values
    eye_width: Values
    eye_height: Values
    iris_radius: Values
    brow_line: Values
    brow_strength: Values
    brow_thickness: Values
    nose_base: Values
    nose_size: Values
    mouth_line: Values
    mouth_width: Values
    lip_thickness: Values
    blush: Values
    neck_width: Values
    shoulders: Values
    # Ageing, 0 to about 1 each.
    grey: Values
    brow_grey: Values
    receding: Values
    thinning: Values
    forehead_lines: Values
    line_count: Values
    frown: Values
    crows_feet: Values
    folds: Values
    marionette: Values
    bags: Values
    sagging: Values
    hollow: Values
    spots: Values
    ear_length: Values
    # The person and the day.
    smile: Values
    mouth_open: Values
    gaze: Values
    hair_line: Values
    hair_long: Values
    hair_volume: Values
    hair_density: Values
    parting: Values
    strands: Values
    fringe: Values
    beard: Values
    stubble: Values
    glasses: Values
    glasses_round: Values
    light_x: Values
    light_y: Values
    light: Values
    contrast: Values
    blur: Values
    noise: Values
    blob_x: Values
    blob_y: Values
    skin: Values
    hair: Values
    iris: Values
    clothes: Values
    background_top: Values
    background_bottom: Values
    frame: Values
    cast: Values

    def __getitem__(self, which: slice) -> Traits:
        return Traits(*(getattr(self, field.name)[which] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.female)


def traits(ages: NDArray[np.float64], uniforms: NDArray[np.float64]) -> Traits:
    """The traits of people.

    Args:
        ages: years, (n,).
        uniforms: [0, 1), (n, UNIFORMS).
    """
    draw = _Draw(uniforms)
    age = ages
    female = np.asarray(next(draw) < 0.5, np.float64)
    male = 1 - female
    # How old the person looks: children are hard to mistake, adults are not.
    look = age + draw.bell() * 7.5 * (0.12 + 0.88 * ramp(age, 4, 35))

    def sign(start: float, end: float, spread: float = 6.0) -> NDArray[np.float64]:
        return ramp(look + draw.bell() * spread, start, end)

    child = look + draw.bell() * 0.7
    grown = 0.30 * ramp(child, 0, 2.5) + 0.36 * ramp(child, 2.5, 10) + 0.34 * ramp(child, 10, 19)
    adult = ramp(child, 11, 19)
    balding = np.where(draw.chance(0.62), male, 0.12 * male)
    grey_from = 30 + 18 * next(draw)
    grey_for = 22 + 14 * next(draw)
    grey = ramp(look, grey_from, grey_from + grey_for) * np.where(age > 24, 1.0, 0.0)
    dyed = np.where(draw.chance(0.22), female, 0.0)
    skin_tone = next(draw) * (0.55 + 0.45 * next(draw))
    skin = _gradient(_SKIN, skin_tone) * (0.94 + 0.12 * next(draw))[:, None]
    skin[:, 2] *= 0.94 + 0.12 * next(draw)
    hair_tone = next(draw) * np.clip(1.25 - 1.4 * skin_tone, 0.12, 1)
    # A young child's hair is lighter; it darkens on the way up.
    hair = _gradient(_HAIR, np.clip(hair_tone + 0.18 * (1 - ramp(child, 1, 12)), 0, 1))
    iris = _gradient(_IRIS, next(draw) * np.clip(1.3 - 1.6 * skin_tone, 0.1, 1))
    old = sign(42, 98)
    receding = balding * sign(24, 78, 9.0) + (1 - balding) * 0.28 * sign(40, 95)
    beard_kind = next(draw)
    bearded = male * ramp(child, 17, 21)
    long_hair = np.where(next(draw) < 0.72, female, 0.0) * ramp(child, 2, 5)
    long_hair = np.where(next(draw) < ramp(look, 40, 85) * 0.8, 0.0, long_hair)  # older women wear it shorter
    wears = next(draw) < 0.05 + 0.12 * ramp(age, 8, 30) + 0.28 * ramp(age, 40, 65)
    background = _colours(draw, 40, 225)
    width = (0.80 - 0.085 * grown) * (0.96 + 0.08 * next(draw)) + 0.012 * male * adult
    values = {
        "female": female,
        "centre_x": 0.5 + 0.035 * draw.bell(),
        "centre_y": 0.525 + 0.03 * draw.bell(),
        "scale": 0.335 + 0.022 * draw.bell() + 0.012 * grown,
        "tilt": 0.05 * draw.bell(),
        "yaw": 0.11 * draw.bell(),
        "pitch": 0.04 * draw.bell(),
        "width": width,
        "taper": 0.10 + 0.13 * grown + 0.05 * female * adult + 0.03 * draw.bell(),
        "jaw": 0.12 + 0.30 * male * adult + 0.08 * draw.bell(),
        "eye_line": 0.21 - 0.21 * grown + 0.02 * draw.bell(),
        "eye_distance": (0.385 - 0.045 * grown) * (0.96 + 0.08 * next(draw)),
        "eye_width": 0.182 - 0.030 * grown + 0.010 * draw.bell(),
        "eye_height": (0.118 - 0.046 * grown) * (0.9 + 0.2 * next(draw)) * (1 - 0.34 * sign(38, 95)),
        "iris_radius": 0.094 - 0.021 * grown,
        "brow_line": 0.185 - 0.015 * grown + 0.015 * draw.bell() - 0.02 * sign(50, 100),
        "brow_strength": 0.28 + 0.50 * grown + 0.14 * male * adult,
        "brow_thickness": 0.022 + 0.012 * grown + 0.016 * male * adult + 0.014 * male * sign(45, 90),
        "nose_base": 0.50 - 0.08 * grown + 0.02 * draw.bell() + 0.035 * old,
        "nose_size": 0.62 + 0.36 * grown + 0.08 * male * adult + 0.06 * draw.bell() + 0.20 * sign(40, 100),
        "mouth_line": 0.715 - 0.055 * grown + 0.015 * draw.bell() + 0.02 * old,
        "mouth_width": 0.165 + 0.075 * grown + 0.015 * draw.bell(),
        "lip_thickness": (0.058 + 0.012 * female * adult + 0.012 * draw.bell()) * (1 - 0.62 * sign(30, 92)),
        "blush": (0.55 - 0.40 * grown + 0.18 * next(draw)) * (1 - 0.5 * sign(40, 90)),
        "neck_width": 0.30 + 0.05 * grown + 0.09 * male * adult,
        "shoulders": 0.82 + 0.38 * grown + 0.14 * male * adult,
        "grey": grey * (1 - 0.9 * dyed),
        "brow_grey": 0.85 * sign(48, 88) * (1 - 0.6 * dyed),
        "receding": receding,
        "thinning": 0.55 * sign(45, 98) * (0.5 + 0.5 * male),
        "forehead_lines": sign(24, 82) * (0.75 + 0.5 * next(draw)),
        "line_count": 1.0 + 3.2 * sign(26, 80),
        "frown": sign(32, 85) * (0.5 + 0.7 * next(draw)),
        "crows_feet": sign(28, 74),
        "folds": 0.10 * adult + 0.90 * sign(20, 72),
        "marionette": sign(44, 88),
        "bags": sign(30, 82) * (0.7 + 0.5 * next(draw)),
        "sagging": sign(44, 96),
        "hollow": sign(55, 100) * next(draw),
        "spots": sign(46, 94),
        "ear_length": 0.17 + 0.02 * grown + 0.06 * sign(40, 100),
        "smile": -0.25 + 1.25 * next(draw),
        "mouth_open": np.clip(next(draw) * 2.4 - 1.5, 0, 1),
        "gaze": 0.022 * draw.bell(),
        "hair_line": -0.60 + 0.08 * draw.bell() - 0.06 * (1 - grown),
        "hair_long": long_hair,
        "hair_volume": 0.07 + 0.07 * next(draw) + 0.03 * long_hair,
        "hair_density": 0.30 + 0.70 * ramp(child + 1.2 * next(draw), 0.3, 3.5),
        "parting": 0.22 * draw.bell(),
        "strands": 9 + 7 * next(draw),
        "fringe": np.where(next(draw) < 0.30 + 0.25 * (1 - adult), 0.16, 0.0) * (1 - ramp(receding, 0.1, 0.4)),
        "beard": np.where(beard_kind < 0.22, 1.0, 0.0) * bearded * ramp(child, 20, 26),
        "stubble": np.where(beard_kind > 0.40, 1.0, 0.0) * bearded * next(draw),
        "glasses": np.where(wears, 1.0, 0.0) * ramp(age, 2, 3),
        "glasses_round": next(draw),
        "light_x": 0.30 * draw.bell(),
        "light_y": 0.16 * draw.bell() - 0.05,
        "light": 0.98 + 0.16 * draw.bell(),
        "contrast": 1.0 + 0.14 * draw.bell(),
        "blur": np.clip(next(draw) * 1.5 - 0.6, 0, 0.85),
        "noise": 2.0 + 6.0 * next(draw),
        "blob_x": next(draw),
        "blob_y": next(draw),
        "skin": skin,
        "hair": hair,
        "iris": iris,
        "clothes": _colours(draw, 25, 215),
        "background_top": background,
        "background_bottom": np.clip(background * 0.72 + _colours(draw, -30, 60), 0, 255),
        "frame": _colours(draw, 10, 80),
        "cast": 1 + 0.05 * (_colours(draw, -1, 1)),
    }
    return Traits(**{name: np.asarray(value, np.float32) for name, value in values.items()})


def ramp(
    x: NDArray[np.float64], start: float | NDArray[np.float64], end: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """0 up to start, 1 from end on, straight in between."""
    return np.clip((x - start) / (end - start), 0, 1)


class _Draw(Iterator[NDArray[np.float64]]):
    """Hands out the columns of the random numbers one after the other."""

    def __init__(self, uniforms: NDArray[np.float64]) -> None:
        self._columns: Iterator[NDArray[np.float64]] = iter(uniforms.T)

    def __next__(self) -> NDArray[np.float64]:
        return next(self._columns)

    def bell(self) -> NDArray[np.float64]:
        """A triangle over (-1, 1), standard deviation 0.41: mostly small."""
        difference: NDArray[np.float64] = next(self._columns) - next(self._columns)
        return difference

    def chance(self, share: float) -> NDArray[np.bool_]:
        """True for this share of the people."""
        chosen: NDArray[np.bool_] = next(self._columns) < share
        return chosen


def _gradient(stops: tuple[tuple[float, float, float], ...], position: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours (n, 3) at positions 0 to 1 along evenly spaced stops."""
    table = np.array(stops)
    place = position * (len(stops) - 1)
    below = np.minimum(np.floor(place), len(stops) - 2).astype(np.intp)
    part = (place - below)[:, None]
    return table[below] * (1 - part) + table[below + 1] * part


def _colours(draw: _Draw, low: float, high: float) -> NDArray[np.float64]:
    """Colours (n, 3), not too vivid: half of each channel is common to all three."""
    grey = next(draw)
    return np.stack([low + (high - low) * (0.55 * grey + 0.45 * next(draw)) for _ in range(3)], axis=1)
