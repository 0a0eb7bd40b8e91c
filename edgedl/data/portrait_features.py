"""Painting a synthetic face from back to front: background, body, head, lines, features, hair, glasses, light."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedl.data.portrait_canvas import (
    CREASE,
    GLOW,
    SHADOW,
    Canvas,
    Pixels,
    blob,
    bump,
    ellipse_distance,
    positive,
    spread,
    wave,
)
from edgedl.data.portrait_traits import Traits, Values

_GREY = np.array([[212.0, 212.0, 214.0]], np.float32)
_INK = np.array([[26.0, 18.0, 18.0]], np.float32)
_WHITE = np.array([[240.0, 238.0, 234.0]], np.float32)
_THROAT = np.array([[70.0, 26.0, 28.0]], np.float32)
_LIPS = np.array([[0.86, 0.60, 0.60]], np.float32)  # times the skin
_LIPSTICK = np.array([[1.04, 0.84, 0.90]], np.float32)  # times the lips
_BLUSH = (1.0, 0.73, 0.73)


def paint(traits: Traits, size: int, noise: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Paint a batch of faces.

    Args:
        traits: of B people.
        size: pixels, height and width.
        noise: random bytes, (B, size, size, 3).

    Returns:
        RGB, (B, size, size, 3).
    """
    canvas = Canvas.blank(traits, size)
    _background(canvas, traits, size)
    _hair_behind(canvas, traits)
    _body(canvas, traits)
    _ears(canvas, traits)
    head = _head(canvas, traits)
    _sockets(canvas, traits)
    _folds(canvas, traits)
    _forehead(canvas, traits)
    _nose(canvas, traits)
    _spots(canvas, traits)
    part, distance, mask = head
    part.settle(mask)
    _nostrils(canvas, traits)
    _mouth(canvas, traits)
    _beard(part, traits, distance)
    _eyes(canvas, traits)
    _hair(canvas, traits)
    _brows(canvas, traits)
    _glasses(canvas, traits)
    return _develop(canvas, traits, noise)


def _background(canvas: Canvas, t: Traits, size: int) -> None:
    height = np.arange(size, dtype=np.float32)[None, None, :, None] / size
    top, bottom = t.background_top[:, :, None, None], t.background_bottom[:, :, None, None]
    canvas.pixels[...] = top + (bottom - top) * height
    glow = blob(canvas.u, canvas.v, spread(t.blob_x * 3 - 1.5), spread(t.blob_y * 2.4 - 1.4), 1.1, 0.9)
    glow *= 0.55
    canvas.paint(np.minimum(t.background_top * 1.35 + 12, 255), glow)


def _hair_behind(canvas: Canvas, t: Traits) -> None:
    if not t.hair_long.any():
        return
    part = canvas.window(-1.15, 1.15, -0.35, 1.40)  # the cap of hair will cover what lies above
    falling = part.u / (1 + 0.16 * positive(part.v))
    down = spread(0.70 + 0.46 * t.hair_long)
    mask = part.edge(ellipse_distance(falling, part.v, 0.0, 0.10, spread(t.width + t.hair_volume), down))
    mask *= np.clip((part.v + 0.35) * 8, 0, 1) * spread(np.minimum(t.hair_long * 20, 1))
    _paint_hair(part, t, mask, 0.72)


def _body(canvas: Canvas, t: Traits) -> None:
    part = canvas.window(-0.65, 0.65, 0.5, 1.5)
    throat = np.abs(part.u) - spread(t.neck_width) * (1 + 0.25 * positive(part.v - 0.9))
    neck = part.edge(np.maximum(throat, 0.5 - part.v))
    part.paint(t.skin, neck)
    part.carve(SHADOW, bump((part.v - 0.95) / 0.42) * 0.85)
    cords = part.stroke(np.abs(part.u) - 0.12 - 0.10 * (part.v - 0.9), 0.03)
    part.carve(CREASE, cords * spread(t.sagging * 0.35))
    part.settle(neck)
    part.relief[...] = 0  # the face above begins anew
    part = canvas.window(-2.2, 2.2, 1.05, 2.2)
    shirt = part.ellipse(0.0, 2.05, spread(t.shoulders), 0.92)
    shirt *= 1 - part.ellipse(0.0, 1.10, spread(t.neck_width * 1.08), 0.26)
    part.paint(t.clothes, shirt)


def _ears(canvas: Canvas, t: Traits) -> None:
    across, down, middle = spread(t.width), spread(t.ear_length), spread(t.eye_line) + 0.13
    part = canvas.window(-1.0, 1.0, -0.2, 0.7)
    side = np.abs(part.u)
    part.paint(t.skin * 0.93, part.edge(ellipse_distance(side, part.v, across, middle, 0.095, down)))
    inner = part.edge(ellipse_distance(side, part.v, across + 0.025, middle, 0.045, down * 0.6))
    part.crease(inner * 0.45)


def _head(canvas: Canvas, t: Traits) -> tuple[Canvas, Pixels, Pixels]:
    """The head without features.

    Returns:
        The window of the head, and in it about the signed distance to its outline, and its mask.
    """
    part = canvas.window(-0.95, 0.95, -1.05, 1.05)
    lower = positive(part.v)
    jowls = spread(t.sagging) * 0.10 * bump((part.v - 0.66) / 0.34)
    x = part.u / (spread(t.width) * (1 - spread(t.taper) * lower * lower + jowls))
    y2 = part.v * part.v
    square = spread(t.jaw) * np.minimum(lower * 10, 1)  # a square jaw keeps its width longer
    y2 *= 1 - square + square * y2
    depth = np.sqrt(x * x + y2)  # 0 in the middle, 1 at the outline
    distance = (depth - 1) * spread(t.width)
    mask = part.edge(distance)
    part.paint(t.skin, mask)
    depth *= depth
    depth *= depth
    depth *= 0.60
    depth += spread(t.light_x * 0.5) * part.u
    part.carve(SHADOW, np.clip(depth, 0, 1))
    cheeks = canvas.window(-0.95, 0.95, 0.05, 0.75)
    side, v = np.abs(cheeks.u - spread(t.yaw * 0.7)), cheeks.v - spread(t.pitch)
    cheeks.carve(GLOW, blob(side, v, 0.36, 0.28, 0.24, 0.2) * 0.28)
    cheeks.tint(_BLUSH, spread(t.blush) * blob(side, v, 0.42, 0.38, 0.27, 0.21))
    if t.hollow.any():
        cheeks.carve(SHADOW, spread(t.hollow) * 0.55 * blob(side, v, 0.50, 0.50, 0.18, 0.25))
    chin = canvas.window(-0.5, 0.5, 0.75, 1.05)
    chin.carve(SHADOW, 0.30 * blob(chin.u, chin.v, spread(t.yaw), spread(0.90 + t.pitch), 0.34, 0.10))
    return part, distance, mask


def _sockets(canvas: Canvas, t: Traits) -> None:
    yaw = t.yaw * 0.7
    part = canvas.window(yaw - 0.85, yaw + 0.85, -0.35, 0.55)
    side, v = np.abs(part.u - spread(yaw)), part.v - spread(t.pitch + t.eye_line)
    socket = blob(side, v, spread(t.eye_distance), -0.01, spread(t.eye_width * 1.55), spread(t.eye_height + 0.13))
    part.carve(SHADOW, spread(0.42 + 0.3 * t.hollow) * socket)
    part.carve(SHADOW, 0.30 * blob(side, v, 0.0, -0.02, 0.22, 0.15))


def _folds(canvas: Canvas, t: Traits) -> None:
    """Crow's feet, bags under the eyes, the folds beside nose, mouth and chin, a second line of the jaw."""
    yaw = t.yaw * 0.8
    part = canvas.window(yaw - 0.8, yaw + 0.8, -0.25, 0.5)
    side, v = np.abs(part.u - spread(yaw)), part.v - spread(t.pitch)
    eye_line, distance, width = spread(t.eye_line), spread(t.eye_distance), spread(t.eye_width)
    # Three lines that fan out from the outer corner of the eye.
    away, up = side - distance - width - 0.01, v - eye_line - 0.015
    fanned = np.maximum(away + 0.05, 0.01)
    slope = up / fanned
    fan = part.stroke(wave(slope * 1.8) / 1.8 * fanned, 0.022) * (np.abs(slope) < 0.9)
    part.carve(CREASE, fan * bump((away - 0.09) / 0.11) * spread(t.crows_feet * 0.9))
    # The bag: a line under a shadow.
    across = (side - distance) / (width * 1.15)
    low = eye_line + spread(t.eye_height)
    part.carve(
        CREASE, part.stroke(v - low - 0.085 + 0.055 * across * across, 0.03) * bump(across) * spread(t.bags * 0.55)
    )
    part.carve(SHADOW, blob(side, v, distance, low + 0.03, width * 1.2, 0.09) * spread(t.bags * 0.45))
    part = canvas.window(yaw - 0.7, yaw + 0.7, 0.25, 1.0)
    side, v = np.abs(part.u - spread(yaw)), part.v - spread(t.pitch)
    # From the wing of the nose, bending outwards around the corner of the mouth.
    along = (v - spread(t.nose_base - 0.06)) / spread(t.mouth_line - t.nose_base + 0.14)
    line = side - spread(0.15 * t.nose_size) - spread(t.mouth_width - 0.06) * along * (1.25 - 0.25 * along)
    shown = np.clip(along * 6, 0, 1) * np.clip((1 - along) * 4, 0, 1) * spread(t.folds)
    part.carve(CREASE, part.stroke(line, 0.030) * shown * 0.72)
    part.carve(SHADOW, positive(1 - np.abs(line + 0.02) / 0.09) * shown * 0.30)
    below = (v - spread(t.mouth_line + 0.02)) / 0.19
    line = side - spread(t.mouth_width + 0.03) - 0.05 * below
    part.carve(CREASE, part.stroke(line, 0.026) * bump(2 * below - 1) * spread(t.marionette * 0.75))
    line = v - 0.80 + 0.55 * side * side
    part.carve(SHADOW, part.stroke(line, 0.04) * bump((side - 0.40) / 0.22) * spread(t.sagging * 0.6))


def _forehead(canvas: Canvas, t: Traits) -> None:
    """Light on it, lines across it, from one to four, and the two between the brows."""
    yaw = t.yaw * 0.7
    part = canvas.window(yaw - 0.6, yaw + 0.6, -0.80, 0.2)
    u, v = part.u - spread(yaw), part.v - spread(t.pitch)
    part.carve(GLOW, blob(u, v, 0.0, -0.42, 0.50, 0.30) * 0.30)
    brow = spread(t.eye_line - t.brow_line)
    spacing = 0.088
    place = (brow - 0.11 - v - 0.22 * u * u) / spacing
    lines = part.stroke(wave(place) * spacing, 0.024) * (place > -0.5)
    lines *= np.clip(spread(t.line_count) - place - 0.5, 0, 1)
    part.carve(CREASE, lines * bump(u / 0.58) * spread(t.forehead_lines * 0.78))
    frown = part.stroke(np.abs(u) - 0.052 - 0.1 * (brow - v), 0.022) * bump((v - brow - 0.01) / 0.11)
    part.carve(CREASE, frown * spread(t.frown * 0.8))


def _spots(canvas: Canvas, t: Traits) -> None:
    """Brown spots on old skin: a slanted lattice with every person's own offsets and some empty places."""
    if not t.spots.any():
        return
    part = canvas.window(-0.75, 0.75, -0.95, 0.8)
    u, v = part.u + spread(t.blob_x * 5), part.v + spread(t.blob_y * 5)
    x, y = u * 2.3 + v * 0.9, v * 2.7 - u * 0.7
    radius = 0.13 * spread(t.spots) - 0.16 * wave(0.31 * (np.floor(x + 0.5) + 1.7 * np.floor(y + 0.5)))
    x, y = wave(x), wave(y)
    mask = np.clip((radius - np.sqrt(x * x + y * y)) * (0.4 * part.unit), 0, 0.45)
    mask *= np.clip(6 * blob(part.u, part.v, 0.0, -0.08, 0.74, 0.85), 0, 1)  # none at the outline
    part.carve(CREASE, mask)


def _nose(canvas: Canvas, t: Traits) -> None:
    """The nose without its nostrils, as relief."""
    yaw = t.yaw * 1.1
    part = canvas.window(yaw - 0.32, yaw + 0.32, -0.30, 0.75)
    base, eye_line = spread(t.nose_base), spread(t.eye_line)
    u, v = (part.u - spread(yaw)) / spread(t.nose_size), part.v - spread(t.pitch)
    side = np.abs(u)
    height = spread(np.maximum(t.nose_base - t.eye_line, 0.05))
    along = np.clip((v - eye_line) / height, 0, 1)
    bridge = bump((2 * v - eye_line - base) / (height + 0.12))
    lit = spread(np.clip(t.light_x * 3, -1, 1))
    flank = positive(1 - np.abs(side - 0.075 - 0.05 * along) / 0.06) * bridge
    part.carve(SHADOW, flank * (0.40 + lit * np.clip(u * 50, -0.3, 0.3)))
    part.carve(GLOW, 0.42 * positive(1 - side / 0.05) * bridge)
    tip = canvas.window(yaw - 0.32, yaw + 0.32, 0.30, 0.75)
    u, v = (tip.u - spread(yaw)) / spread(t.nose_size), tip.v - spread(t.pitch)
    tip.carve(GLOW, 0.5 * blob(u, v, 0.0, base - 0.055, 0.10, 0.075))
    tip.carve(SHADOW, 0.75 * blob(u, v, 0.0, base + 0.045, 0.19, 0.06))
    side = np.abs(u)
    wing = tip.stroke(ellipse_distance(side, v, 0.115, base - 0.02, 0.058, 0.062), 0.022)
    tip.carve(CREASE, wing * (side > 0.125) * 0.55)


def _nostrils(canvas: Canvas, t: Traits) -> None:
    yaw = t.yaw * 1.1
    part = canvas.window(yaw - 0.2, yaw + 0.2, 0.35, 0.68)
    side, v = np.abs(part.u - spread(yaw)) / spread(t.nose_size), part.v - spread(t.pitch)
    nostril = part.edge(ellipse_distance(side, v, 0.068, spread(t.nose_base) + 0.012, 0.040, 0.020))
    part.tint((0.24, 0.18, 0.16), nostril * 0.85)


def _mouth(canvas: Canvas, t: Traits) -> None:
    yaw = t.yaw * 0.9
    part = canvas.window(yaw - 0.36, yaw + 0.36, 0.48, 0.95)
    x = (part.u - spread(yaw)) / spread(t.mouth_width)
    across = positive(1 - x * x)
    v = part.v - spread(t.pitch + t.mouth_line) - spread(t.smile * 0.055) * (across - 0.55)
    gap = spread(t.mouth_open * 0.055) * across
    lip, ends = spread(t.lip_thickness), np.clip((1 - np.abs(x)) * 8, 0, 1)
    upper = part.edge(-(v + gap + lip * across * (1 - 0.30 * bump(x / 0.25)))) * part.edge(v) * ends
    lower = part.edge(v - gap - lip * 1.25 * across) * part.edge(-v) * ends
    red = t.skin * _LIPS * (1 + (_LIPSTICK - 1) * t.female[:, None])
    part.paint(red * 0.92, upper * 0.9)
    part.paint(red, lower * 0.9)
    part.paint(np.minimum(red * 1.3, 255), 0.35 * blob(x, v, 0.0, gap + 0.6 * lip, 0.5, 0.6 * lip + 0.01))
    if t.mouth_open.any():
        opened = part.edge(np.abs(v) - gap) * ends * spread(np.minimum(t.mouth_open * 10, 1))
        part.paint(_THROAT, opened)
        part.paint(_WHITE * 0.94, opened * part.edge(v + gap * 0.1) * spread(np.clip(t.mouth_open * 8 - 1, 0, 1)))
    part.crease(part.stroke(v, 0.024) * ends * spread(1 - np.minimum(t.mouth_open * 4, 1)))
    part.crease(blob(np.abs(x), v, 1.0, 0.0, 0.16, 0.035) * 0.7)
    part.crease(0.30 * blob(x, v, 0.0, lip * 1.25 + gap + 0.06, 0.75, 0.055))


def _beard(head: Canvas, t: Traits, distance: Pixels) -> None:
    """A beard or stubble.

    Args:
        head: the window of the head.
        t: traits.
        distance: to the outline of the head, in that window.
    """
    strength = 0.92 * t.beard + 0.30 * t.stubble * (1 - t.beard)
    if not strength.any():
        return
    part = head.window(-0.9, 0.9, 0.1, 1.05)
    row, column = part.origin[0] - head.origin[0], part.origin[1] - head.origin[1]
    height, width = part.u.shape[1:]
    u, v = np.abs(part.u - spread(t.yaw * 0.8)), part.v - spread(t.pitch)
    # The moustache starts under the nose; at the sides the beard starts lower on the cheek.
    start = spread(t.nose_base + 0.07) - 0.62 * positive(u - 0.22)
    region = np.clip((v - start) * 9, 0, 1)
    lips = ellipse_distance(
        u, v, 0.0, spread(t.mouth_line), spread(t.mouth_width * 1.02), spread(t.lip_thickness * 1.2 + 0.045)
    )
    outside = distance[:, row : row + height, column : column + width] - spread(0.035 * t.beard)
    mask = region * (1 - part.edge(lips)) * part.edge(outside)
    part.paint(_mix(t.hair * 0.85, _GREY, np.minimum(t.grey * 1.15, 1)), mask * spread(strength))


def _eyes(canvas: Canvas, t: Traits) -> None:
    yaw = t.yaw * 0.7
    reach = t.eye_distance + t.eye_width + 0.05
    part = canvas.window(yaw - reach, yaw + reach, -0.30, 0.45)
    face_u = part.u - spread(yaw)
    away = np.abs(face_u) - spread(t.eye_distance)  # from the eye's middle outwards
    e = away * np.copysign(np.float32(1), face_u)  # the same to the right, for what both eyes share: gaze and highlight
    v = part.v - spread(t.pitch + t.eye_line)
    x = away / spread(t.eye_width)
    sides = np.abs(x)
    across = positive(1 - x * x)
    height = spread(t.eye_height)
    top, bottom = height * across + 0.02 * x * (sides < 1), 0.72 * height * across
    opened = part.edge(-(v + top)) * part.edge(v - bottom) * np.clip((1 - sides) * 10, 0, 1)
    part.paint(_WHITE * 0.95, opened)
    radius, gaze = spread(t.iris_radius), spread(t.gaze)
    from_iris = ellipse_distance(e, v, gaze, -0.005, radius, radius)
    part.paint(t.iris, opened * part.edge(from_iris))
    part.paint(_INK, opened * part.edge(from_iris + radius * 0.5))
    part.crease(opened * np.clip(1 - (v + top) / 0.035, 0, 1) * 0.6)  # the shade of the upper lid
    spark = part.edge(ellipse_distance(e, v, gaze - radius * 0.35, -radius * 0.45, radius * 0.26, radius * 0.26))
    part.paint(_WHITE, opened * spark * 0.9)
    ends = np.clip((1.12 - sides) * 8, 0, 1)
    part.paint(_INK * 1.5, part.stroke(v + top, 0.022 + 0.016 * spread(t.female)) * ends * 0.85)
    fold = part.stroke(v + top * 1.05 + 0.045 - spread(0.03 * t.sagging) * x, 0.020)
    lower = part.stroke(v - bottom, 0.014) * ends
    part.crease(np.maximum(fold * bump(x / 1.25) * spread(0.55 + 0.35 * t.sagging), lower * 0.6))


def _brows(canvas: Canvas, t: Traits) -> None:
    yaw = t.yaw * 0.7
    reach = t.eye_distance + 0.26
    part = canvas.window(yaw - reach, yaw + reach, -0.45, 0.25)
    x = (np.abs(part.u - spread(yaw)) - spread(t.eye_distance)) / 0.215
    v = part.v - spread(t.pitch + t.eye_line - t.brow_line)
    bent = (x - 0.25) * (x - 0.25)
    curve = v + 0.055 - 0.065 * bent * spread(0.8 + 0.4 * t.female) - 0.02 * x
    thick = spread(t.brow_thickness * 1.7) * np.clip(1.15 - 0.45 * x, 0.3, 1.4)
    mask = part.stroke(curve, thick) * np.clip((1.05 - np.abs(x)) * 6, 0, 1)
    part.paint(_mix(t.hair * 0.72, _GREY, t.brow_grey), mask * spread(t.brow_strength * 0.95))


def _hair(canvas: Canvas, t: Traits) -> None:
    part = canvas.window(-1.05, 1.05, -1.25, 0.35)
    u, v = part.u, part.v
    volume = t.hair_volume * np.clip(2.5 * t.hair_density - 1.5, 0, 1)  # a baby's down lies close
    outline = ellipse_distance(u, v, 0.0, -0.02, spread(t.width + volume * 0.75), spread(1.0 + volume))
    x = np.abs(u - spread(0.5 * t.yaw)) / spread(t.width * 1.02)
    receding = t.receding
    # The hair line: flat above the forehead, falling to the ears at the sides; receding lifts it, the temples first.
    x2 = np.minimum(x * x, 1.6)
    top = spread(t.hair_line + t.pitch - 0.70 * receding * receding - 0.18 * receding) + spread(t.parting * 0.6) * (
        u - 0.2
    )
    top -= spread(0.34 * receding) * bump((x - 0.56) / 0.40)
    if t.fringe.any():
        top += spread(t.fringe) * (1.1 + 0.9 * wave(u * 5.5 + spread(3 * t.parting))) * positive(1 - x2)
    fall = spread(t.eye_line + 0.06)
    line = top + (fall - top) * np.minimum(x2 * x2 * x2, 1)
    above = line - v
    mask = part.edge(outline) * part.edge(-above) * spread(t.hair_density)
    soft = 0.45 + 0.55 * np.clip(above * 7, 0, 1)
    bare = spread(t.thinning * 0.75) * (0.35 + 0.65 * positive(1 - x))
    cast = positive(1 - np.abs(above) / 0.09) * (above < 0) * part.edge(outline + 0.02)
    part.crease(cast * spread(0.25 * t.hair_density))
    _paint_hair(part, t, mask * (soft * (1 - bare) + bare * 0.15), 1.0)


def _paint_hair(part: Canvas, t: Traits, mask: Pixels, brightness: float) -> None:
    """Hair with strands and a sheen, grey strand by strand."""
    leaning = np.copysign(part.v * 2.2, part.u * part.v)  # to the outside on both sides
    strand = wave(part.u * spread(t.strands) * (1.1 + 0.25 * part.v) + leaning)
    grey = np.clip(spread(t.grey * 1.5) - strand * spread(1.2 - 1.2 * t.grey), 0, 1)
    sheen = 0.82 + 0.40 * strand + 0.42 * bump((part.v + 0.80) / 0.20) * (0.5 + strand)
    sheen *= brightness
    grey *= sheen
    for channel in range(3):
        own = t.hair[:, channel]
        layer = part.pixels[:, channel]
        change = sheen * spread(own)
        change += grey * spread(_GREY[0, channel] - own)
        change -= layer
        change *= mask
        layer += change


def _glasses(canvas: Canvas, t: Traits) -> None:
    if not t.glasses.any():
        return
    yaw = t.yaw * 0.75
    part = canvas.window(-0.95, 0.95, -0.35, 0.55)
    side = np.abs(part.u - spread(yaw))
    v = part.v - spread(t.pitch + t.eye_line) - 0.02
    across, down = 0.235, 0.145 + 0.07 * t.glasses_round
    x, y = (side - spread(t.eye_distance)) / across, v / spread(down)
    x2, y2 = x * x, y * y
    # From a circle to a rounded rectangle: from the second to the fourth power.
    rim = np.sqrt(np.sqrt(x2 * x2 + y2 * y2 + 2 * x2 * y2 * spread(t.glasses_round)))
    ring = (rim - 1) * spread(np.minimum(across, down))
    frame = part.stroke(ring, 0.034)
    inner, outer = spread(t.eye_distance - across + 0.02), spread(t.eye_distance + across - 0.02)
    bridge = part.stroke(v + 0.03 + 0.8 * side * side, 0.034) * (side < inner)
    arm = part.stroke(v + 0.05, 0.034) * (side > outer) * (np.abs(part.u) < spread(t.width + 0.02))
    lens = part.edge(ring) * spread(t.glasses)
    part.paint(_WHITE, lens * (0.06 + 0.22 * part.edge(np.abs(x + y * 0.8 + 0.2) - 0.16)))
    part.paint(t.frame, np.maximum(np.maximum(frame, bridge), arm) * spread(t.glasses))


def _develop(canvas: Canvas, t: Traits, noise: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Light, contrast, a slightly soft lens and the noise of the sensor; floats to bytes."""
    pixels = canvas.pixels
    light = spread(t.light_x * 0.38) * canvas.u
    light += spread(t.light_y) * canvas.v
    light += spread(t.light)
    light *= spread(t.contrast)
    for channel in range(3):
        pixels[:, channel] *= light * spread(t.cast[:, channel])
    for i in np.flatnonzero(t.blur):
        for axis in (1, 2):
            _soften(pixels[i], axis, t.blur[i : i + 1] * 0.5)
    # Grain around 0, and the rest of the contrast around 118, and 0.5 to round.
    gain = t.noise / 74  # a byte's standard deviation is 74
    grain = noise.transpose(0, 3, 1, 2) * gain[:, None, None, None]
    pixels += grain
    pixels += (118.5 - 118 * t.contrast - 127.5 * gain)[:, None, None, None]
    np.clip(pixels, 0, 255, out=pixels)
    return np.ascontiguousarray(pixels.astype(np.uint8).transpose(0, 2, 3, 1))


def _soften(pixels: Pixels, axis: int, share: Values) -> None:
    """Mix every pixel of one picture (3, h, w) with the mean of its two neighbours along an axis; the border stays."""
    middle = [slice(None)] * 3
    before, after = middle.copy(), middle.copy()
    middle[axis], before[axis], after[axis] = slice(1, -1), slice(None, -2), slice(2, None)
    mean = pixels[tuple(before)] + pixels[tuple(after)]
    mean *= 0.5
    mean -= pixels[tuple(middle)]
    mean *= share
    pixels[tuple(middle)] += mean


def _mix(colour: Pixels, other: Pixels, share: Values) -> Pixels:
    """(B, 3) colours, the other one to this share."""
    return colour + (other - colour) * share[:, None]
