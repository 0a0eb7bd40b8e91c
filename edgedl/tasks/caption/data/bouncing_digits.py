"""Bouncing digits with captions: the data of ``edgedl train caption`` where none are given, and of quick tests.

After Mittal, Marwah and Balasubramanian 2017, "Sync-DRAW: automatic video generation using deep recurrent attentive
architectures" (section 4.1), and its published generator: 64×64 pixels, 10 frames, digits of 28 pixels that move along
one axis at a speed of 2 in steps of 0.1, in units of the way that is free (36 pixels), are held at the border and turn
round there; where two digits overlap, the brighter pixel counts. All digits start to the right or downwards.

    the digits 3 is moving left and right .
    digit 3 is left and right and digit 7 is up and down .

What differs from the published generator:

- It moves "left and right" digits up and down and the other way round. Here the words are true.
- Its two digits are named in the order of drawing, which cannot be seen. Here the smaller digit comes first; of two
  equal ones, "left and right" comes first.
- It holds out combinations of both digits and both motions. Here a pair of one digit and one motion is held out, in
  clips of one and of two digits alike, which asks for more: see `HELD_OUT`.
- The digits are the 1,797 real handwritten ones of scikit-learn (Alpaydin and Kaynak 1998, 8×8 pixels, 16 levels,
  CC BY 4.0), scaled up, instead of MNIST's.

Clip i of a seed depends on the seed and on i alone, not on how many are made, and has the same bytes on every machine.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedl.data.splits import held_out
from runtime.errors import InputError, MissingExtraError

NAME = "bouncing-digits"
SIZE = 64
FRAMES = 10
DIGIT = 28
FREE = SIZE - DIGIT
SPEED, STEP = 2.0, 0.1

MOTIONS = ("left and right", "up and down")
HELD_OUT = frozenset({(3, 0), (6, 1), (8, 0)})
"""Pairs of digit and motion (index of `MOTIONS`) that training never shows.

Each of these digits is seen in training with the other motion, and the pair's motion with other digits.
"""

CLIPS, HELD_OUT_CLIPS = 12000, 600
"""Of the embedded default, for training and for validation."""

DIGIT_WORDS = tuple("0123456789")

ABSENT = -1
_DRAWS = 5  # uniform numbers per digit: motion, digit, image, and where it starts
_SPLITS = ("train", "val")
_JUMPS = 99


def positions(start: NDArray[np.float64], speed: float) -> NDArray[np.float64]:
    """Where something is that turns round at both ends.

    Args:
        start: 0 … 1, (…); what is seen first lies one step further.
        speed: per unit of time; a frame is `STEP` long.

    Returns:
        0 … 1, (…, FRAMES).
    """
    place, velocity = start.copy(), np.full(start.shape, speed)
    places = np.empty((*start.shape, FRAMES))
    for frame in range(FRAMES):
        place = np.clip(place + velocity * STEP, 0.0, 1.0)
        velocity = np.where((place <= 0) & (velocity < 0) | (place >= 1) & (velocity > 0), -velocity, velocity)
        places[..., frame] = place
    return places


def sentence(digits: Sequence[int], motions: Sequence[int]) -> str:
    """The caption of one or two digits, each with the index of its motion, in the order of the caption."""
    if len(digits) == 1:
        return f"the digits {digits[0]} is moving {MOTIONS[motions[0]]} ."
    phrases = (f"digit {digit} is {MOTIONS[motion]}" for digit, motion in zip(digits, motions, strict=True))
    return " and ".join(phrases) + " ."


@cache
def handwritten() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """The handwritten digits.

    Returns:
        Grey levels uint8 (n, DIGIT, DIGIT), white on black; which digit each is, (n,); whether it is kept for
        validation, (n,): a tenth, by the rule of `edgedl.data.splits`.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits  # lazily: only this data needs it
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", "train") from error
    loaded = load_digits()
    names = [f"digit-{index:04d}" for index in range(len(loaded.target))]
    validation = held_out(names)
    kept = np.array([name in validation for name in names])
    images, labels = enlarge(loaded.images.astype(np.int64)), loaded.target.astype(np.int64)
    for array in (images, labels, kept):
        array.flags.writeable = False  # everybody gets the same ones
    return images, labels, kept


def enlarge(images: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Levels 0 … 16, (n, 8, 8) -> 0 … 255, (n, DIGIT, DIGIT): bilinear, pixel centres aligned, 0 beyond the edge.

    In whole numbers, so that no machine rounds differently.
    """
    side = images.shape[1]
    twice = 2 * DIGIT  # a source pixel's width in the units of the weights
    centres = (2 * np.arange(DIGIT) + 1) * side  # of the target's pixels
    sources = (2 * np.arange(side) + 1) * DIGIT
    weights = np.maximum(twice - np.abs(centres[:, None] - sources), 0)  # (DIGIT, side)
    levels = weights @ images @ weights.T
    whole = 16 * twice * twice
    rounded: NDArray[np.uint8] = ((levels * 255 + whole // 2) // whole).astype(np.uint8)
    return rounded


@dataclass(frozen=True, slots=True, eq=False)
class Scripts:
    """What happens in n clips; the second digit of a clip is `ABSENT` where there is one only.

    Attributes:
        digits: 0 … 9 or `ABSENT`, (n, 2), in the order of the caption.
        motions: index of `MOTIONS`, (n, 2).
        images: index into `handwritten`, (n, 2).
        starts: row and column at the beginning, 0 … 1 of the way that is free, (n, 2, 2).
    """

    digits: NDArray[np.int64]
    motions: NDArray[np.int64]
    images: NDArray[np.int64]
    starts: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.digits)

    def __add__(self, other: Scripts) -> Scripts:
        return Scripts(*(np.concatenate(pair) for pair in zip(self._arrays(), other._arrays(), strict=True)))

    def take(self, indices: NDArray[np.int64]) -> Scripts:
        """Some of the clips."""
        return Scripts(*(array[indices] for array in self._arrays()))

    def caption(self, index: int) -> str:
        """What a clip shows."""
        count = 1 if self.digits[index, 1] == ABSENT else 2
        return sentence(self.digits[index, :count].tolist(), self.motions[index, :count].tolist())

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return self.digits, self.motions, self.images, self.starts

    def corners(self) -> NDArray[np.int64]:
        """Row and column of the upper left corner of each digit in each frame, pixels (n, 2, FRAMES, 2)."""
        axis = 1 - self.motions  # "left and right" changes the column
        places = np.repeat(self.starts[:, :, None], FRAMES, axis=2)  # (n, 2, FRAMES, 2)
        along = np.take_along_axis(self.starts, axis[..., None], axis=2)[..., 0]  # (n, 2)
        moving = positions(along, SPEED)[..., None]  # (n, 2, FRAMES, 1)
        np.put_along_axis(places, np.broadcast_to(axis[..., None, None], moving.shape), moving, axis=3)
        return (places * FREE).astype(np.int64)  # cut off, as in the published generator


def write_scripts(seed: int, split: str, digits: int, n: int) -> Scripts:
    """Decide what happens in clips 0 … n-1.

    Args:
        seed: any integer from 0 on.
        split: "train": every pair of digit and motion is a seen one; "val": one digit's pair is held out, the other
            digit's is any of the twenty, and the handwriting is that kept for validation. Both motions are equally
            likely, and so are the digits that may have them.
        digits: 1 or 2.
        n: how many.
    """
    _, labels, kept = handwritten()
    validation = split == "val"
    stream = _SPLITS.index(split) * 2 + digits - 1
    uniforms = np.empty((n, 2 * _DRAWS))
    for index in range(n):
        raw = np.random.PCG64(np.random.SeedSequence((seed, stream, index))).random_raw(2 * _DRAWS)
        uniforms[index] = (raw >> np.uint64(11)) * 2.0**-53
    draws = uniforms.reshape(n, 2, _DRAWS)
    motions = (draws[..., 0] * len(MOTIONS)).astype(np.int64)
    chosen = np.full((n, 2), ABSENT)
    images = np.zeros((n, 2), np.int64)
    for column in range(digits):
        for motion in range(len(MOTIONS)):
            rows = motions[:, column] == motion
            held = [digit for digit in range(10) if (digit, motion) in HELD_OUT]
            seen = [digit for digit in range(10) if (digit, motion) not in HELD_OUT]
            choice = seen if not validation else held if column == 0 else [*range(10)]
            chosen[rows, column] = _pick(np.array(choice), draws[rows, column, 1])
        for digit in range(10):
            rows = chosen[:, column] == digit
            written = np.flatnonzero((labels == digit) & (kept == validation))
            images[rows, column] = _pick(written, draws[rows, column, 2])
    if digits == 2:
        order = np.argsort(chosen * len(MOTIONS) + motions, axis=1, kind="stable")
    else:
        order = np.tile([0, 1], (n, 1))
    starts = np.take_along_axis(draws[..., 3:], order[..., None], axis=1)
    chosen, motions, images = (np.take_along_axis(values, order, axis=1) for values in (chosen, motions, images))
    return Scripts(chosen, motions, images, starts)


def _pick(choices: NDArray[np.int64], uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
    return choices[(uniforms * len(choices)).astype(np.int64)]


def film(scripts: Scripts, corners: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
    """The clips as grey levels, uint8 (n, FRAMES, SIZE, SIZE).

    Args:
        scripts: what is to be seen.
        corners: where, as `Scripts.corners` says it; by default as the scripts have it.
    """
    images, _, _ = handwritten()
    clips = np.zeros((len(scripts), FRAMES, SIZE, SIZE), np.uint8)
    places_of = (scripts.corners() if corners is None else corners).tolist()
    for clip, digits, chosen, places in zip(clips, scripts.digits, scripts.images, places_of, strict=True):
        for digit, image, path in zip(digits, images[chosen], places, strict=True):
            if digit == ABSENT:
                continue
            for frame, (row, column) in zip(clip, path, strict=True):
                covered = frame[row : row + DIGIT, column : column + DIGIT]
                np.maximum(covered, image, out=covered)
    return clips


def jumps(seed: int, n: int) -> NDArray[np.int64]:
    """Corners of digits that are anywhere in each frame, (n, 2, FRAMES, 2)."""
    shape = (n, 2, FRAMES, 2)
    raw = np.random.PCG64(np.random.SeedSequence((seed, _JUMPS))).random_raw(int(np.prod(shape)))
    return (raw % np.uint64(FREE + 1)).astype(np.int64).reshape(shape)


def learnt_words(digits: Sequence[int], *, jumping: bool) -> tuple[bool, ...]:
    """Which words of a training caption, its end included, the picture teaches.

    In training a digit whose other motion is held out always moves in one way. Whoever learnt "left and right" from its
    clips could learn it from the digit alone, and the digit from the way it moves; the held-out clips would then be
    told wrongly. So clips that move teach motions, by the digits that are seen with both; clips whose digits jump about
    at random teach digits.

    Args:
        digits: one or two, in the order of the caption.
        jumping: whether they jump.
    """
    both = [all((digit, motion) not in HELD_OUT for motion in range(len(MOTIONS))) for digit in digits]
    moves = [free and not jumping for free in both]
    # "the digits 3 is moving left and right", or "digit 3 is left and right and digit 7 is up and down"
    if len(digits) == 1:
        return (True, True, jumping, True, True, moves[0], True, moves[0], True)
    first, second = ((True, jumping, True, move, True, move) for move in moves)
    return (*first, True, *second, True)


class BouncingDigits:
    """Clips of bouncing digits with one caption each; see the module.

    Training clips are three parts of one digit to five of two, each of them twice: once as it is told, once with digits
    that jump (`learnt_words`). Validation clips, as many of one digit as of two, hold a held-out pair each, and
    handwriting that training never shows.

    Args:
        seed: of the training clips; the validation clips are always the same.
        train: number of training clips.
        validation: number of validation clips.
    """

    name = NAME
    skipped: Mapping[str, int] = MappingProxyType({})

    def __init__(self, seed: int = 0, train: int = CLIPS, validation: int = HELD_OUT_CLIPS) -> None:
        if min(train, validation) < 4:
            raise InputError(f"{train} training and {validation} validation clips; expected at least 4 of either")
        self.seed = seed
        half = train // 2
        ones = half * 3 // 8
        told = write_scripts(seed, "train", 1, ones) + write_scripts(seed, "train", 2, half - ones)
        held = write_scripts(0, "val", 1, validation // 2) + write_scripts(0, "val", 2, validation - validation // 2)
        self._scripts = told + told + held
        corners = told.corners()
        self._corners = np.concatenate([corners, jumps(seed, half), held.corners()])
        self._jumping = np.repeat([False, True, False], [half, half, validation])
        self._split = np.repeat(["train", "train", "val"], [half, half, validation])
        self._indices = np.arange(len(self._scripts))
        pairs = ", ".join(f"{digit} moving {MOTIONS[motion]}" for digit, motion in sorted(HELD_OUT))
        self.notes = (f"validation shows {pairs}: training never",)

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def identity(self) -> str:
        """Everything that the frames depend on."""
        digest = hashlib.sha256(f"{NAME} {self.seed}".encode())
        for array in (self._corners[self._indices], self._scripts.images[self._indices]):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def clip_name(self, index: int) -> str:
        """A name of the clip."""
        clip = self._indices[index]
        return f"{self._split[clip]}-{clip:05d}"

    def captions(self, index: int) -> tuple[str, ...]:
        """The one sentence that is true of the clip."""
        return (self._scripts.caption(self._indices[index]),)

    def learnt(self, index: int) -> tuple[bool, ...]:
        """Which words of the caption, its end included, are to be learnt from this clip."""
        clip = self._indices[index]
        if self._split[clip] != "train":
            return (True,) * (len(self._scripts.caption(clip).split()))  # without the full stop, with the end
        digits = [int(digit) for digit in self._scripts.digits[clip] if digit != ABSENT]
        return learnt_words(digits, jumping=bool(self._jumping[clip]))

    def jumping(self) -> NDArray[np.bool_]:
        """Whether the digits of each clip jump about at random, (n,)."""
        return self._jumping[self._indices]

    def digits(self) -> NDArray[np.int64]:
        """The digits of each clip, `ABSENT` where there is no second: (n, 2)."""
        return self._scripts.digits[self._indices]

    def pixels(self) -> NDArray[np.uint8]:
        """All clips: grey levels, (n, FRAMES, SIZE, SIZE)."""
        return film(self._scripts.take(self._indices), self._corners[self._indices])

    def frames(self, index: int) -> NDArray[np.uint8]:
        """One clip, (FRAMES, SIZE, SIZE, 3)."""
        chosen = self._indices[index : index + 1]
        gray = film(self._scripts.take(chosen), self._corners[chosen])[0]
        return np.repeat(gray[..., None], 3, axis=-1)

    def media(self, index: int) -> NDArray[np.uint8]:
        """What a captioning pipeline takes: the frames, see `frames`."""
        return self.frames(index)

    def split(self, name: str) -> BouncingDigits:
        """The clips of a split: "train", "val", "all", or "val-1" and "val-2", those with one digit and with two.

        Raises:
            InputError: there is no such split.
        """
        part = copy.copy(self)
        wanted, dash, count = name.partition("-")
        if wanted not in (*_SPLITS, "all") or dash + count not in ("", "-1", "-2"):
            raise InputError(f"{NAME} has no split {name!r}; it has train, val, val-1, val-2, all")
        chosen = self._indices
        if wanted != "all":
            chosen = chosen[self._split[chosen] == wanted]
        if count:
            chosen = chosen[(self._scripts.digits[chosen, 1] == ABSENT) == (count == "1")]
        part._indices = chosen
        return part

    def take(self, rows: Sequence[int]) -> BouncingDigits:
        """The clips of some rows, in their order."""
        part = copy.copy(self)
        part._indices = self._indices[list(rows)]
        return part

    def held_out(self) -> list[int]:
        """The rows that training does not learn from."""
        rows: list[int] = np.flatnonzero(self._split[self._indices] != "train").tolist()
        return rows

    def summary(self) -> str:
        """What there is, a line each."""
        counts = [f"{int((self._split[self._indices] == name).sum()):,} {name}" for name in _SPLITS]
        return "\n".join([f"{NAME}: {len(self):,} clips ({', '.join(counts)})", *(f"  {note}" for note in self.notes)])


def example_clips(count: int = 8) -> list[NDArray[np.uint8]]:
    """Some validation clips of two digits, (FRAMES, SIZE, SIZE, 3) each: training shows none of them."""
    clips = BouncingDigits().split("val-2")
    return [clips.frames(index) for index in range(count)]
