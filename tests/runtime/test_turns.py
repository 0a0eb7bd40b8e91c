"""Timing in turns, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from runtime import turns
from runtime.turns import CALLS_A_TURN, LEAST_TURNS, Ratio, in_turns, largest_difference, ratio


class Clock:
    """Stands for the module `time`: a call takes what it says."""

    def __init__(self) -> None:
        self.now = self.worked = 0.0
        self.calls: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.worked

    def way(self, name: str, seconds: float, cpu: float) -> Callable[[], None]:
        def call() -> None:
            self.calls.append(name)
            self.now += seconds
            self.worked += cpu

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(turns, "time", clock)
    return clock


def test_each_way_is_timed_alone(clock: Clock) -> None:
    times = in_turns({"one": clock.way("one", 0.001, 0.002), "three": clock.way("three", 0.003, 0.012)}, 0.0)
    assert (times["one"].p50_ms, times["one"].cpu_ms) == (1.0, 2.0)
    assert (times["three"].p50_ms, times["three"].cpu_ms) == (3.0, 12.0)
    assert len(times["one"].wall) == LEAST_TURNS
    assert ratio(times["three"].wall, times["one"].wall) == Ratio(3.0, 3.0, 3.0)
    assert ratio(times["one"].cpu, times["three"].cpu).median == pytest.approx(1 / 6, abs=1e-4)


def test_the_order_is_reversed_each_turn(clock: Clock) -> None:
    in_turns({"a": clock.way("a", 0.001, 0), "b": clock.way("b", 0.001, 0)}, 0.0)
    turn = CALLS_A_TURN + 1
    warm, first, second = clock.calls[:2], clock.calls[2 : 2 + 2 * turn], clock.calls[2 + 2 * turn : 2 + 4 * turn]
    assert warm == ["a", "b"]
    assert first == ["a"] * turn + ["b"] * turn
    assert second == ["b"] * turn + ["a"] * turn


def test_it_goes_on_for_the_time_given(clock: Clock) -> None:
    times = in_turns({"a": clock.way("a", 0.01, 0)}, 1.0)
    assert len(times["a"].wall) == pytest.approx(1.0 / (0.01 * (CALLS_A_TURN + 1)), abs=1)


def test_a_ratio_is_of_the_same_turns() -> None:
    """A slow minute falls on both sides: the ratio does not see it."""
    load = np.array([1.0, 5.0, 1.0, 9.0])
    assert ratio(2 * load, load) == Ratio(2.0, 2.0, 2.0)
    assert ratio([1.0, 2.0, 3.0, 4.0, 5.0], [1.0] * 5) == Ratio(3.0, 2.0, 4.0)


def test_the_difference_of_answers() -> None:
    one = {"y": np.array([1.0, np.inf]), "label": np.array([3])}
    assert largest_difference(one, {"y": np.array([1.5, np.inf]), "label": np.array([3])}) == 0.5
    assert largest_difference(one, {"other": np.array([1.0, np.inf])}) == 0.0
    assert largest_difference({"y": np.array([1.0])}, {"y": np.array([[1.0]])}) is None
    assert largest_difference({"y": np.array(["a"])}, {"y": np.array(["a"])}) is None
