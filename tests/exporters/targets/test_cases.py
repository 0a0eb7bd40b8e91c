"""Which recorded cases are replayed under emulation."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.targets.cases import FEW, telling_cases
from runtime.golden import GoldenCase
from runtime.manifest import ModelSpec
from runtime.signature import TensorSpec

SPEC = ModelSpec({}, (TensorSpec("x", "float32", ("N", "T", 2)),), ())


def case(rows: int, steps: int, plain: bool = False) -> GoldenCase:
    shape = (rows, steps, 2)
    x = np.zeros(shape) if plain else np.random.default_rng(0).normal(size=shape)
    return GoldenCase(f"{rows}x{steps}{' plain' * plain}", {"x": x.astype(np.float32)})


CHEAP = [case(1, 3) for _ in range(FEW)]
ADDED = {
    "one row and more": (case(8, 3), True),
    "an even number of steps": (case(1, 8), True),
    "another odd number": (case(1, 5), False),
    "nothing but zeros": (case(1, 5, plain=True), True),
    "no rows": (case(0, 3), True),
}


@pytest.mark.parametrize(("added", "taken"), ADDED.values(), ids=ADDED)
def test_what_adds_something(added: GoldenCase, taken: bool):
    longest = case(1, 101)
    found = telling_cases(SPEC, [*CHEAP, added, longest])
    assert (added in found) == taken
    assert longest in found


def test_a_large_batch_adds_nothing_to_a_smaller_one():
    found = telling_cases(SPEC, [*CHEAP, case(2, 3), case(32, 3)])
    assert [one.name for one in found[FEW:]] == ["2x3"]


def test_few_cases_are_all_taken():
    assert telling_cases(SPEC, CHEAP) == tuple(CHEAP)
    assert telling_cases(SPEC, []) == ()
