"""Samples are dealt out into three parts that share none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedl.data.parts import CALIBRATE, CHOOSE, JUDGE, three_parts
from edgedl.data.synthetic_faces import SyntheticFaces
from edgedl.tasks.age.evaluation import judge_ages
from runtime.errors import InputError

KEYS = st.lists(st.text(min_size=1, max_size=6), min_size=10, max_size=80, unique=True)


@given(KEYS, st.data())
def test_no_sample_is_in_two_parts(keys: list[str], data: st.DataObject) -> None:
    held_out = data.draw(st.lists(st.booleans(), min_size=len(keys), max_size=len(keys)))
    parts = three_parts(keys, held_out)
    rows = [row for part in parts.values() for row in part]
    assert len(set(rows)) == len(rows)
    assert all(parts.values())
    if 2 <= len(keys) - sum(held_out) < len(keys):
        assert all(held_out[row] for row in parts["judge"])
        assert not any(held_out[row] for part in ("calibrate", "choose") for row in parts[part])


@given(KEYS, st.randoms())
def test_the_order_of_the_samples_does_not_matter(keys: list[str], chance) -> None:
    shuffled = list(keys)
    chance.shuffle(shuffled)
    ways = [
        {part: {names[row] for row in rows} for part, rows in three_parts(names, [False] * len(names)).items()}
        for names in (keys, shuffled)
    ]
    assert ways[0] == ways[1]


def test_the_parts_are_bounded() -> None:
    keys = [f"{i}.jpg" for i in range(20_000)]
    parts = three_parts(keys, [i % 10 == 0 for i in range(20_000)], judged=500)
    assert {part: len(rows) for part, rows in parts.items()} == {
        "calibrate": CALIBRATE, "choose": CHOOSE, "judge": 500,
    }  # fmt: skip
    assert len(three_parts(keys, [False] * 20_000)["judge"]) == JUDGE


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(InputError, match=r"4 samples are too few: .* give at least 10"):
        three_parts("abcd", [False] * 4)


def test_ages_are_judged_on_faces_that_training_has_not_seen() -> None:
    faces = SyntheticFaces(n=40)
    judge = judge_ages(faces)
    assert (judge.metric, judge.unit, judge.lower_is_better) == ("MAE", "year", True)
    assert judge.sizes == {"calibrate": 14, "choose": 22, "judge": 4}
    assert judge.drop(6.0, 6.5) == 0.5 == -judge.drop(6.5, 6.0)
