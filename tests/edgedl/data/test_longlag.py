"""Long time lags against the rules of the papers, written out row by row, and closed formulas of constant answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgedl.data.digits import embedded_digits
from edgedl.tasks.longlag.data import PROBLEMS, draw_sequences, right_rows
from runtime.errors import InputError


def marked(markers: np.ndarray, length: int) -> tuple[int, int]:
    """The two places of a row that count; everything else about its markers is asserted."""
    first, second = np.flatnonzero(markers == 1)
    others = np.delete(np.arange(length), [first, second])
    assert {place for place in others if markers[place] == -1} == {0, length - 1} - {first}
    assert set(markers[others].tolist()) <= {0.0, -1.0}
    return int(first), int(second)


@pytest.mark.parametrize("length", [20, 100])
def test_adding_is_that_of_the_paper(length):
    drawn = draw_sequences("adding", 3000, length=length, seed=1)
    firsts, seconds = set(), set()
    for row, steps, target in zip(drawn.inputs, drawn.lengths, drawn.targets, strict=True):
        places = marked(row[:steps, 1], steps)
        # One of them was drawn among the first ten, and the other among the first T/2 - 1 that were left.
        assert min(places) < 10
        assert max(places) < length // 2
        assert target == pytest.approx(0.5 + row[list(places), 0].astype(np.float64).sum() / 4, abs=1e-7)
        if 0 in places:
            assert row[0, 0] == 0
        assert not row[steps:].any()
        firsts.add(min(places))
        seconds.add(max(places))
    assert firsts == set(range(9 if length == 20 else 10))  # of T = 20 both stand among the first ten
    assert max(seconds) == length // 2 - 1
    assert set(drawn.lengths.tolist()) == set(range(length, length + length // 10 + 1))
    values = drawn.inputs[:, 1, 0]
    assert np.abs(drawn.inputs[..., 0]).max() <= 1
    assert (values.min(), values.max()) == (pytest.approx(-1, abs=0.01), pytest.approx(1, abs=0.01))


@pytest.mark.parametrize(("length", "count"), [(20, 60_000), (100, 8000)])
def test_a_constant_answer_has_the_error_of_the_formula(length, count):
    """The variance of a quarter of two uniform values, 1/24, less what is lost where the first pair is marked."""
    drawn = draw_sequences("adding", count, length=length, seed=2)
    constant = PROBLEMS["adding"].constant(length)
    found = np.square(drawn.targets.astype(np.float64) - 0.5)
    assert constant == pytest.approx((2 - 0.1 - 0.9 / (length // 2 - 1)) / 48)
    assert found.mean() == pytest.approx(constant, abs=4 * found.std() / math.sqrt(count))
    if length == 20:  # where the first pair is marked often enough for that term to be seen
        assert constant < 1 / 24 - 10 * found.std() / math.sqrt(count)


def test_a_constant_answer_is_wrong_as_often_as_the_formula_says():
    """P(|X1 + X2| < .16) of two uniform values is .16 - .16²/4, of one .16."""
    drawn = draw_sequences("adding", 8000, seed=3)
    single = 0.1 + 0.9 / 49
    expected = 1 - (1 - single) * (0.16 - 0.16**2 / 4) - single * 0.16
    right = right_rows("adding", np.full(len(drawn), 0.5), drawn.targets)
    assert 1 - right.mean() == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / len(drawn)))


def test_the_modern_form_has_a_baseline_of_one_sixth():
    """Values from [0, 1] and their sum as the target: twice the paper's target, so four times its squared error."""
    drawn = draw_sequences("adding", 8000, seed=4)
    plain = drawn.inputs[:, 0, 1] == -1  # the first pair is not marked
    values, markers = (drawn.inputs[plain, :, 0].astype(np.float64) + 1) / 2, drawn.inputs[plain, :, 1] == 1
    modern = (values * markers).sum(axis=1)
    np.testing.assert_allclose(modern, 2 * drawn.targets[plain], atol=1e-6)
    squared = np.square(modern - 1)
    assert squared.mean() == pytest.approx(1 / 6, abs=4 * squared.std() / math.sqrt(plain.sum()))


def test_copy_memory_by_hand():
    drawn = draw_sequences("copy", 50, length=3, seed=1)
    assert drawn.inputs.shape == drawn.targets.shape == (50, 23)
    symbols = drawn.inputs[:, :10]
    assert set(np.unique(symbols)) == set(range(8))
    assert (drawn.inputs[:, 10:] == [8, 8, 9, *[8] * 10]).all()
    assert (drawn.targets[:, :13] == 8).all()
    assert (drawn.targets[:, 13:] == symbols).all()
    assert draw_sequences("copy", 1, length=1).inputs[0, 10:12].tolist() == [9, 8]


@pytest.mark.parametrize("length", [1, 30, 200])
def test_whoever_forgets_the_symbols_has_ten_times_ln_8_over_all_steps(length):
    drawn = draw_sequences("copy", 20, length=length)
    known = np.zeros((*drawn.targets.shape, 9))
    known[:, :-10, 8] = 1
    known[:, -10:, :8] = 1 / 8
    nats = -np.log(np.take_along_axis(known, drawn.targets[..., None], -1)).mean()
    assert nats == pytest.approx(10 * math.log(8) / (length + 20), rel=1e-12)
    assert PROBLEMS["copy"].constant(length) == pytest.approx(nats, rel=1e-12)


def test_temporal_order_is_that_of_the_paper():
    drawn = draw_sequences("order", 3000, seed=1)
    firsts, seconds = set(), set()
    for row, steps, target in zip(drawn.inputs, drawn.lengths, drawn.targets, strict=True):
        text = "".join("abcdEBXY"[symbol] for symbol in row[:steps])
        places = [place for place, symbol in enumerate(text) if symbol in "XY"]
        assert (text[0], text[-1], len(places)) == ("E", "B", 2)
        assert set(text[1:-1]) - set("abcd") <= set("XY")
        assert text.count("E") == text.count("B") == 1
        assert ("XX", "XY", "YX", "YY")[target] == text[places[0]] + text[places[1]]
        firsts.add(places[0])
        seconds.add(places[1])
    assert (firsts, seconds) == (set(range(10, 21)), set(range(50, 61)))
    assert set(drawn.lengths.tolist()) == set(range(100, 111))
    assert np.bincount(drawn.targets) == pytest.approx(np.full(4, 750), abs=100)
    assert PROBLEMS["order"].constant(100) == pytest.approx(math.log(4))


def test_digits_are_split_before_they_are_shifted():
    for split in ("val", "test"):
        part, drawn = embedded_digits(split), draw_sequences("digits", 5000, split=split)
        assert (drawn.inputs.reshape(-1, 8, 8) == part.pixels[..., 0]).all()
        assert (drawn.targets == part.labels).all()
    part = embedded_digits("train")
    shifted = set()
    for picture, label in zip(part.pixels[..., 0], part.labels, strict=True):
        wide = np.pad(picture, 1)
        shifted |= {(wide[y : y + 8, x : x + 8].tobytes(), int(label)) for y in range(3) for x in range(3)}
    drawn = draw_sequences("digits", len(part), seed=5)
    found = [(row.tobytes(), int(label)) for row, label in zip(drawn.inputs, drawn.targets, strict=True)]
    assert set(found) <= shifted
    # Each digit once, most of them shifted.
    assert (np.bincount(drawn.targets) == np.bincount(part.labels)).all()
    as_they_are = {
        (picture.tobytes(), int(label)) for picture, label in zip(part.pixels[..., 0], part.labels, strict=True)
    }
    assert 0.05 < np.mean([row in as_they_are for row in found]) < 0.2  # a ninth
    assert len(draw_sequences("digits", 3000)) == 3000


@pytest.mark.parametrize("problem", PROBLEMS)
def test_equal_arguments_give_equal_sequences_and_others_do_not(problem):
    first, again = draw_sequences(problem, 8, seed=1), draw_sequences(problem, 8, seed=1)
    assert np.array_equal(first.inputs, again.inputs)
    assert np.array_equal(first.targets, again.targets)
    others = [draw_sequences(problem, 8, seed=2), draw_sequences(problem, 8, seed=1, part=1)]
    others += [draw_sequences(problem, 8, seed=1, split=split) for split in ("val", "test")]
    assert not any(np.array_equal(first.inputs, other.inputs) for other in others)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_no_fresh_sequence_was_seen_in_training(problem):
    """The seeds of epochs are drawn themselves; even so none of them may be that of the test."""
    from edgedl.tasks.longlag.objective import LagBatches

    fresh = draw_sequences(problem, 200, split="test", part=2**32 - 1)
    seen = {
        row.numpy().tobytes()
        for epoch in LagBatches(problem, PROBLEMS[problem].length, 50, 4, 0)
        for row in epoch["inputs"]
    }
    assert len(seen) > 150
    assert not seen & {row.tobytes() for row in fresh.inputs}


@pytest.mark.parametrize(
    ("problem", "answers", "targets", "right"),
    [
        ("adding", [0.5, 0.539, 0.541, 0.461, 0.459], [0.5] * 5, [True, True, False, True, False]),
        ("order", [[0.71, 0.29, 0, 0], [0.69, 0.11, 0.1, 0.1], [0.2, 0.8, 0, 0]], [0, 0, 0], [True, False, False]),
        ("order", [[0.75, 0.25, 0, 0], [0.1, 0.1, 0.1, 0.7]], [0, 3], [True, False]),
        ("digits", [np.eye(10)[3], np.eye(10)[4] * 0.2], [3, 3], [True, False]),
        ("copy", np.eye(9)[[[8, *range(8), 1, 0], [8, *range(8), 1, 1]]], [[8, *range(8), 1, 0]] * 2, [True, False]),
    ],
    ids=["adding", "order", "order at the edge", "digits", "copy"],
)
def test_the_rules_of_what_is_right(problem, answers, targets, right):
    assert right_rows(problem, np.array(answers), np.array(targets)).tolist() == right


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"problem": "parity"}, "no problem 'parity'"),
        ({"split": "all"}, "no split 'all'"),
        ({"length": 19}, "at least 20 steps, found 19"),
        ({"problem": "digits", "length": 63}, "a digit has 64 pixels"),
        ({"count": 0}, "at least 1 sequence"),
    ],
    ids=["problem", "split", "length", "pixels", "count"],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        draw_sequences(**({"problem": "adding", "count": 2} | arguments))
