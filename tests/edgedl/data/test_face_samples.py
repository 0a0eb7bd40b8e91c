from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedl.data.samples import FaceDataset, FaceSample, with_split
from edgedl.data.sources import open_source
from edgedl.data.splits import held_out
from runtime.errors import InputError, MediaError

keys = st.lists(st.text(max_size=6), max_size=60)


@given(keys)
def test_a_tenth_of_the_distinct_keys_with_the_smallest_hashes_is_held_out(names: list[str]) -> None:
    chosen = held_out(names)
    distinct = set(names)
    expected = round(len(distinct) / 10)
    assert len(chosen) == (expected if expected or len(distinct) < 2 else 1)
    rest = distinct - chosen

    def digest(key: str) -> bytes:
        return hashlib.sha256(key.encode()).digest()

    assert not chosen or not rest or max(map(digest, chosen)) < min(map(digest, rest))


@given(keys, st.randoms())
def test_the_order_of_the_files_does_not_matter(names: list[str], random) -> None:
    shuffled = names.copy()
    random.shuffle(shuffled)
    assert held_out(names) == held_out(shuffled)


@pytest.mark.parametrize(("n", "expected"), [(0, 0), (1, 0), (2, 1), (14, 1), (16, 2), (18983, 1898), (18980, 1898)])
def test_the_size_of_the_validation(n: int, expected: int) -> None:
    assert len(held_out(map(str, range(n)))) == expected


def test_a_split_never_moves() -> None:
    # Computed with the command sha256sum: a change of the rule would change what every published figure means.
    assert held_out(map(str, range(20))) == {"8", "9"}


def _samples(source, people: list[str | None]) -> tuple[FaceSample, ...]:
    return tuple(FaceSample(f"{i}.png", float(i), source, "face.png", subject=p) for i, p in enumerate(people))


@given(st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), min_size=2, max_size=80))
def test_nobody_is_on_both_sides(people: list[str]) -> None:
    samples = with_split(_samples(None, people), by="subject")
    sides = {(sample.subject, sample.split) for sample in samples}
    assert len(sides) == len(set(people))
    assert [sample.name for sample in samples] == [f"{i}.png" for i in range(len(people))]


def test_a_data_set_gives_pictures_ages_and_splits(layout) -> None:
    source = open_source(layout(["face.png"]))
    faces = FaceDataset("some", with_split(_samples(source, ["x"] * 20), by="name"), {"a reason": 3}, ("a note",))
    assert len(faces) == 20
    assert faces.ages.dtype == np.float32
    assert faces.ages.tolist() == [sample.age for sample in faces] == list(range(20))
    image = faces.image(3)
    assert image.shape == (4, 6, 3)
    assert image[0, 0].tolist() == [255, 0, 0]
    assert image[0, 5].tolist() == [0, 0, 255]
    train, val = faces.split("train"), faces.split("val")
    assert (len(train), len(val), faces.splits) == (18, 2, ("train", "val"))
    assert {s.name for s in train} | {s.name for s in val} == {s.name for s in faces}
    assert faces.split("all") is faces
    assert val.skipped == {"a reason": 3}
    assert faces.summary().splitlines() == ["some: 20 faces (18 train, 2 val)", "  left out 3: a reason", "  a note"]
    with pytest.raises(InputError, match="no split 'test'; it has: train, val, all"):
        faces.split("test")


def test_a_file_that_is_no_picture_is_an_error_when_it_is_read(layout) -> None:
    source = open_source(layout([], {"face.png": b"not a picture"}))
    with pytest.raises(MediaError):
        FaceDataset("some", _samples(source, [None])).image(0)
