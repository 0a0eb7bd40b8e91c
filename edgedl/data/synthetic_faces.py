"""Synthetic faces whose age shows: the data of ``edgedl train age`` where none are given, and of quick tests.

Painted portraits with variation in person, pose, light, background, hair and glasses. Age shows as it does on people:
from the round face with large, low eyes of an infant to the proportions of an adult; then hair that greys and recedes,
lines on the forehead and around the eyes, folds from nose to mouth, bags, sagging cheeks, thin lips, spots. See
``portrait_traits``. These faces stand for no real people and no network trained on them says anything about a real one.

Face i of a seed depends on the seed and on i alone, not on how many are made, and has the same bytes on every machine.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgedl.data.portrait_features import paint
from edgedl.data.portrait_traits import OLDEST, UNIFORMS, Traits, traits
from edgedl.data.samples import FaceDataset, FaceSample
from runtime.errors import InputError

NAME = "synthetic-faces"
SIZE = 96
EMBEDDED_FACES = 2000
"""As many are drawn where nobody asks for another number."""

_CHUNK = 16  # faces painted at once: fewer cost more calls, more no longer fit into a core's cache
_VALIDATION = 2**32  # the number of the first validation face, out of reach of the training faces
_SCENES = 2**33
_GENDERS = ("male", "female")


def generate(seed: int, n: int, size: int = SIZE, first: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Make faces.

    Args:
        seed: any integer from 0 on.
        n: how many.
        size: pixels, height and width, from 16 on.
        first: the number of the first face, so that a set can be made piece by piece.

    Returns:
        uint8 RGB (n, size, size, 3), and the ages in whole years 0 … 100, evenly distributed, float32 (n,).

    Raises:
        InputError: a number is out of range.
    """
    _check(seed=seed, n=n, first=first)
    if size < 16:
        raise InputError(f"a face of {size} pixels shows nothing; at least 16")
    images = np.empty((n, size, size, 3), np.uint8)
    ages = np.empty(n, np.float32)
    for start in range(0, n, _CHUNK):
        stop = min(start + _CHUNK, n)
        people, ages[start:stop], noise = _people(seed, range(first + start, first + stop), size)
        images[start:stop] = paint(people, size, noise)
    return images, ages


def scene(
    seed: int, faces: int = 1, size: int = 480
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Make a picture of one to four portraits on a wall, for tests of a whole pipeline.

    Args:
        seed: any integer from 0 on.
        faces: 1 to 4.
        size: pixels, height and width, from 64 on.

    Returns:
        uint8 RGB (size, size, 3); the boxes x1, y1, x2, y2 of the faces, from side to side of the head and from above
        the brows to the chin, in pixels, float32 (faces, 4); the ages in years, float32 (faces,).

    Raises:
        InputError: a number is out of range.
    """
    _check(seed=seed)
    if not 1 <= faces <= 4:
        raise InputError(f"a scene has 1 to 4 faces, not {faces}")
    if size < 64:
        raise InputError(f"a scene of {size} pixels is too small; at least 64")
    numbers = range(_SCENES, _SCENES + faces)
    people, ages, _ = _people(seed, numbers, 1)
    cells = 1 if faces == 1 else 2
    cell = size // cells
    picture = np.empty((size, size, 3), np.uint8)
    picture[...] = (people.clothes[0] * 0.4 + 110).astype(np.uint8)
    boxes = np.empty((faces, 4), np.float32)
    for i, number in enumerate(numbers):
        person = people[i : i + 1]
        side = cell - int(cell * 0.2 * person.blob_x[0])
        row, column = divmod(i, cells)
        top = row * cell + int((cell - side) * person.blob_y[0])
        left = column * cell + int((cell - side) * person.glasses_round[0])
        noise = _people(seed, range(number, number + 1), side)[2]
        picture[top : top + side, left : left + side] = paint(person, side, noise)[0]
        boxes[i] = face_boxes(person, side)[0] + (left, top, left, top)
    return picture, boxes, ages


def face_boxes(people: Traits, size: int) -> NDArray[np.float32]:
    """Where the faces are in their pictures: x1, y1, x2, y2 in pixels of a picture of this size, (n, 4)."""
    x, y, unit = people.centre_x, people.centre_y, people.scale
    top = y + unit * (people.eye_line - people.brow_line - 0.15)
    boxes = np.stack([x - unit * people.width, top, x + unit * people.width, y + unit], axis=1)
    return (boxes * size).astype(np.float32)


@dataclass(frozen=True, slots=True, init=False)
class SyntheticFaces(FaceDataset):
    """n synthetic faces as a data set; a tenth is validation. A face is painted when it is asked for.

    Attributes:
        seed: any integer from 0 on.
        size: pixels, height and width.
    """

    seed: int = 0
    size: int = SIZE

    def __init__(self, seed: int = 0, n: int = 6000, size: int = SIZE) -> None:
        _check(seed=seed, n=n)
        source = PaintedFaces(seed, size)
        validation = round(n / 10)
        numbers = [*range(n - validation), *range(_VALIDATION, _VALIDATION + validation)]
        people, ages, _ = _people(seed, numbers, 0)
        samples = tuple(
            FaceSample(
                name=f"{number:010d}.npy",
                age=float(age),
                source=source,
                member=str(number),
                split="val" if number >= _VALIDATION else "train",
                attributes={"gender": _GENDERS[int(female)]},
            )
            for number, age, female in zip(numbers, ages, people.female, strict=True)
        )
        values = {"name": NAME, "samples": samples, "skipped": {}, "notes": (f"painted, seed {seed}",)}
        for field, value in (values | {"seed": seed, "size": size}).items():
            object.__setattr__(self, field, value)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Paint one face: uint8 RGB, (size, size, 3)."""
        images, _ = generate(self.seed, 1, self.size, first=int(self.samples[index].member))
        return images.reshape(self.size, self.size, 3)

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """All faces of the set at once: uint8 RGB (n, size, size, 3) and ages (n,)."""
        images = np.empty((len(self), self.size, self.size, 3), np.uint8)
        numbers = [int(sample.member) for sample in self.samples]
        for start in range(0, len(self), _CHUNK):
            people, _, noise = _people(self.seed, numbers[start : start + _CHUNK], self.size)
            images[start : start + _CHUNK] = paint(people, self.size, noise)
        return images, self.ages


@dataclass(frozen=True, slots=True)
class PaintedFaces:
    """A source (see ``edgedl.data.sources``) whose members are the numbers of faces and whose bytes are .npy files."""

    seed: int
    size: int

    @property
    def path(self) -> Path:
        """For messages only: there is no such file."""
        return Path(f"synthetic-faces-{self.seed}")

    def names(self) -> tuple[str, ...]:
        """Nothing: there is a face for every number."""
        return ()

    def read(self, member: str) -> bytes:
        """The picture of this number as a .npy file, uint8 RGB."""
        buffer = io.BytesIO()
        np.save(buffer, generate(self.seed, 1, self.size, first=int(member))[0][0], allow_pickle=False)
        return buffer.getvalue()

    def head(self, member: str, size: int) -> bytes:
        """The first bytes of that file."""
        return self.read(member)[:size]

    def same(self, member: str, other: str) -> bool:
        """Whether two numbers have the same picture."""
        return self.read(member) == self.read(other)

    def file(self, member: str) -> Path:
        """A path where nothing lies."""
        return self.path / member


def _people(seed: int, numbers: Sequence[int], size: int) -> tuple[Traits, NDArray[np.float32], NDArray[np.uint8]]:
    """The traits (n), ages (n,) and noise (n, size, size, 3) of faces.

    Each face has its own stream. Only the generator's raw integers are used, because numpy promises to keep those.
    """
    noise_bytes = size * size * 3
    words = 1 + UNIFORMS + -(-noise_bytes // 8)
    raw = np.empty((len(numbers), words), "<u8")
    for row, number in zip(raw, numbers, strict=True):
        row[:] = np.random.PCG64(np.random.SeedSequence((seed, number))).random_raw(words)
    uniforms = (raw[:, : 1 + UNIFORMS] >> np.uint64(11)).astype(np.float64) * 2.0**-53
    ages = np.floor(uniforms[:, 0] * (OLDEST + 1))
    noise = np.ascontiguousarray(raw[:, 1 + UNIFORMS :]).view(np.uint8)[:, :noise_bytes]
    return traits(ages, uniforms[:, 1:]), ages.astype(np.float32), noise.reshape(len(numbers), size, size, 3)


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 0:
            raise InputError(f"{name} is {value}; expected a whole number from 0 on")
