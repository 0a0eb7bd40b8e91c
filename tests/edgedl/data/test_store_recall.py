"""Store and recall: a memory written out as a loop, and shares and variances by closed formula."""

from __future__ import annotations

import numpy as np
import pytest

from edgedl.tasks.gradients.data import RECALLS, SPACING, STORES, draw_kept, draw_sequences, recall_targets
from runtime.errors import InputError


def by_a_register(inputs: np.ndarray) -> list[float]:
    """What a machine with one register says to one sequence (T, 3)."""
    register, said = None, []
    for value, store, recall in inputs.tolist():
        if store:
            register = value
        said.append(register if recall and register is not None else 0.0)
    return said


def test_answers_are_those_of_a_register():
    drawn = draw_sequences(40, steps=50)
    np.testing.assert_array_equal(drawn.targets, [by_a_register(row) for row in drawn.inputs])
    # Also where the rules of drawing do not hold: nothing stored yet, both commands at once.
    chance = np.random.default_rng(0)
    free = chance.random((40, 30, 3)).astype(np.float32)
    free[..., 1:] = free[..., 1:] < 0.2
    assert (free[:, 0, 2] > free[:, 0, 1]).any()
    assert (free[..., 1] * free[..., 2]).any()
    np.testing.assert_array_equal(recall_targets(free), [by_a_register(row) for row in free])


def test_commands_come_as_often_as_they_should():
    drawn = draw_sequences(4000, steps=60)
    stores, asked = drawn.inputs[..., 1] > 0, drawn.asked
    assert stores[:, 0].all()
    assert asked[:, -1].all()
    assert not (stores & asked).any()
    assert stores[:, 1:-1].mean() == pytest.approx(STORES, rel=0.05)
    assert asked[:, 1:-1].mean() == pytest.approx(RECALLS, rel=0.05)
    # The last step asks for the first value where none of the 58 in between stored another.
    assert (drawn.lag[:, -1] == 59).mean() == pytest.approx((1 - STORES) ** 58, abs=0.02)


def test_always_0_has_an_error_of_a_third():
    """The variance of a uniform variable from -1 to 1."""
    drawn = draw_sequences(4000, steps=60)
    assert np.square(drawn.targets[drawn.asked]).mean() == pytest.approx(1 / 3, rel=0.03)
    assert np.abs(drawn.inputs[..., 0]).max() <= 1
    assert not drawn.targets[~drawn.asked].any()


def test_a_kept_value_is_asked_for_every_ten_steps_and_at_last():
    drawn = draw_kept(5, steps=24)
    assert np.flatnonzero(drawn.asked[0]).tolist() == [SPACING - 1, 2 * SPACING - 1, 23]
    np.testing.assert_array_equal(drawn.targets[:, 23], drawn.inputs[:, 0, 0])
    np.testing.assert_array_equal(drawn.lag, np.tile(np.arange(24), (5, 1)))


def test_what_is_drawn_depends_on_what_is_asked_for_alone():
    asked = [{}, {"split": "val"}, {"split": "test"}, {"part": 1}, {"seed": 1}]
    drawn = [draw_sequences(3, **options).inputs for options in asked]
    np.testing.assert_array_equal(drawn[0], draw_sequences(3).inputs)
    for first in range(len(drawn)):
        for second in range(first):
            assert not np.array_equal(drawn[first], drawn[second])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "all"}, "there is no split 'all'"),
        ({"count": 0}, "found 0 of 60"),
        ({"steps": 1}, "found 2 of 1"),
    ],
    ids=["split", "count", "steps"],
)
def test_what_cannot_be_drawn_is_said(options, message):
    for draw in (draw_sequences, draw_kept):
        with pytest.raises(InputError, match=message):
            draw(**({"count": 2} | options))
