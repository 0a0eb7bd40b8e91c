"""Jaeger's timer task against a clock that is written out step by step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedl.tasks.timer.data import draw_sequences, exact_pulses, find_pulses, timer_targets
from edgedl.tasks.timer.objective import TimerBatches
from runtime.errors import InputError


def clock(u1: list[int], u2: list[float], scale: int) -> list[float]:
    """The rules as a device with a counter: the start's step counts, and a start begins anew."""
    left, shown = 0, []
    for start, level in zip(u1, u2, strict=True):
        if start:
            left = round(level * scale)
        shown.append(0.5 if left > 0 else 0.0)
        left -= 1
    return shown


@given(
    st.lists(st.tuples(st.sampled_from([0, 0, 0, 1]), st.integers(1, 10)), min_size=1, max_size=60),
    st.sampled_from([10, 20, 1000]),
)
def test_the_target_is_that_of_a_counter(steps, scale):
    u1, u2 = [start for start, _ in steps], [level / 10 for _, level in steps]
    inputs = np.array([u1, u2], np.float32).T[None]
    assert timer_targets(inputs, scale)[0].tolist() == clock(u1, u2, scale)


def test_the_rules_by_hand():
    u1 = [0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0]
    u2 = [9, 3, 3, 3, 3, 3, 5, 5, 1, 1, 1]
    inputs = np.array([u1, np.array(u2) / 10], np.float32).T[None]
    assert (timer_targets(inputs, 10)[0] * 2).tolist() == [0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0]
    pulses = find_pulses(inputs, 10)
    assert pulses.start.tolist() == [1, 6, 8]
    assert pulses.stop.tolist() == [6, 8, 11]
    assert pulses.duration.tolist() == [3, 5, 1]
    assert pulses.complete.tolist() == [True, False, True]


def test_starts_may_lie_closer_together_while_training():
    u1 = TimerBatches(10, 120, 400, 1, seed=3, spacing=0.5).draw(400, seed=3)["inputs"][..., 0]
    assert u1.mean() == pytest.approx(1 / 5, rel=0.05)


@pytest.mark.parametrize("scale", [10, 100])
def test_what_is_drawn_is_what_jaeger_says(scale):
    drawn = draw_sequences(400, scale=scale, seed=3)
    u1, u2 = drawn.inputs[..., 0], drawn.inputs[..., 1]
    assert drawn.inputs.shape == (400, 12 * scale, 2)
    assert set(np.unique(u1)) == {0, 1}
    assert u1.mean() == pytest.approx(1 / (2 * scale), rel=0.1)
    assert np.unique(np.round(u2 * 10)).tolist() == list(range(1, 11))
    changed = np.diff(u2, axis=1) != 0
    assert not (changed & (u1[:, 1:] == 0)).any()  # u2 stays between starts
    assert changed.sum() == pytest.approx(0.9 * u1[:, 1:].sum(), rel=0.1)  # and is drawn anew: nine of ten differ
    expected = [clock(list(map(int, a)), b.tolist(), scale) for a, b in zip(u1[:20], u2[:20], strict=True)]
    assert drawn.targets[:20].tolist() == expected


def test_equal_seeds_give_equal_sequences_and_splits_differ():
    first, again = draw_sequences(4, seed=1), draw_sequences(4, seed=1)
    assert np.array_equal(first.inputs, again.inputs)
    others = (draw_sequences(4, seed=2), draw_sequences(4, seed=1, split="val"), draw_sequences(4, seed=1, part=1))
    assert not any(np.array_equal(first.inputs, other.inputs) for other in others)


@pytest.mark.parametrize("off", [-1, 1])
def test_a_pulse_that_is_one_step_off_is_not_exact(off):
    drawn = draw_sequences(50, seed=4)
    pulses = find_pulses(drawn.inputs, 10)
    assert exact_pulses(drawn.targets, drawn.targets, pulses).all()
    number = int(np.flatnonzero(pulses.complete)[7])
    row, end = pulses.row[number], pulses.start[number] + pulses.duration[number]
    answers = drawn.targets.copy()
    answers[row, end if off > 0 else end - 1] = 0.5 if off > 0 else 0.0
    exact = exact_pulses(answers, drawn.targets, pulses)
    assert not exact[number]
    assert exact.sum() == len(exact) - 1


def test_always_zero_has_a_quarter_of_the_duty_as_its_error():
    drawn = draw_sequences(100)
    duty = (drawn.targets > 0).mean()
    assert np.square(drawn.targets).mean() == pytest.approx(0.25 * duty, rel=1e-5)
    assert not exact_pulses(np.zeros_like(drawn.targets), drawn.targets, find_pulses(drawn.inputs, 10)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 15}, "multiple of 10"),
        ({"scale": 0}, "multiple of 10"),
        ({"scale": 1010}, "from 10 to 1000"),
        ({"split": "all"}, "no split 'all'"),
        ({"steps": 0}, "at least 1"),
    ],
    ids=["odd scale", "no scale", "large scale", "split", "steps"],
)
def test_what_cannot_be_drawn_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        draw_sequences(1, **options)
