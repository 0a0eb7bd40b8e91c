"""Learning-rate factors by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim import lr_scheduler

from edgedl.training.schedules import Schedule
from runtime.errors import InputError


def factors(schedule: Schedule) -> list[float]:
    return [schedule(step) for step in range(schedule.total)]


def test_constant_after_a_linear_warm_up():
    assert factors(Schedule("constant", 6, warmup=4)) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_step_drops_at_equal_parts():
    assert factors(Schedule("step", 9)) == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])
    assert Schedule("step", 9)(9) == pytest.approx(0.01)


def test_cosine_is_half_a_cosine():
    schedule = Schedule("cosine", 10, warmup=2)
    assert schedule(2) == 1.0
    assert schedule(6) == pytest.approx(0.5)
    assert schedule(4) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert schedule(9) > 0  # no step is wasted on the factor 0
    assert schedule(10) == schedule(99) == 0


@pytest.mark.parametrize(("warmup", "total"), [(2, 10), (50, 1000)])
def test_warm_up_and_cosine_are_those_of_torch(warmup, total):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    rising = lr_scheduler.LinearLR(optimiser, 1 / warmup, 1.0, warmup - 1)
    falling = lr_scheduler.CosineAnnealingLR(optimiser, total - warmup)
    both = lr_scheduler.SequentialLR(optimiser, [rising, falling], [warmup])
    found = []
    for _ in range(total):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        both.step()
    assert found == pytest.approx(factors(Schedule("cosine", total, warmup=warmup)), abs=1e-12)


def test_one_cycle_rises_and_falls():
    schedule = Schedule("one-cycle", 100)
    values = factors(schedule)
    assert values[0] == pytest.approx(0.04)
    assert values.index(max(values)) == 30
    assert values[30] == pytest.approx(1.0)
    assert values[:31] == sorted(values[:31])
    assert values[30:] == sorted(values[30:], reverse=True)
    assert schedule(65) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "arguments",
    [("linear", 10, 0), ("cosine", 10, 11), ("cosine", 10, -1)],
    ids=["unknown", "warm-up too long", "negative"],
)
def test_refused(arguments):
    with pytest.raises(InputError):
        Schedule(*arguments)


def test_settling_is_a_small_cosine_of_its_own_after_the_schedule():
    schedule = Schedule("cosine", 12, warmup=2, settle=4, settle_start=0.2)
    alone = Schedule("cosine", 8, warmup=2)
    assert factors(schedule)[:8] == factors(alone)
    assert schedule(8) == pytest.approx(0.2)
    assert schedule(10) == pytest.approx(0.1)
    assert schedule(12) == 0.0
    with pytest.raises(InputError, match="4 to settle do not fit a training of 5"):
        Schedule("cosine", 5, warmup=2, settle=4)
