"""Sizes: each named dimension has a range, and a size outside of it is refused by name wherever it comes in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from runtime.engine import Engine
from runtime.errors import InputError
from runtime.golden import RecordedInputs
from runtime.manifest import DimensionSpec, ModelSpec, StateSpec, TensorSpec
from runtime.pieces import run_in_pieces
from tests.bundles import sums_graph
from tests.runtime.conftest import graph_bytes

RANGES = {"B": DimensionSpec(1, 8), "T": DimensionSpec(2, 512, 2)}


def sums(**ranges: DimensionSpec) -> Engine:
    """Running sums of x [B, T, 2] onto a state [B, 2]."""
    spec = ModelSpec(
        variants={},
        inputs=(TensorSpec("x", "float32", ("B", "T", 2)), TensorSpec("s0", "float32", ("B", 2))),
        outputs=(TensorSpec("y", "float32", ("B", "T", 2)), TensorSpec("sn", "float32", ("B", 2))),
        state=(StateSpec("s0", "sn", ("B", 2), "float32"),),
        dimensions=ranges,
    )
    return Engine(sums_graph(), spec=spec, threads=1, name="sums")


ENGINE = sums(**RANGES)


def x(rows: int, steps: int) -> dict[str, np.ndarray]:
    return {"x": np.ones((rows, steps, 2), np.float32)}


def state(rows: int) -> dict[str, np.ndarray]:
    return {"s0": np.zeros((rows, 2), np.float32)}


WAYS: dict[str, Callable[[int, int], Any]] = {
    "run": lambda rows, steps: ENGINE.run(x(rows, steps) | state(rows)),
    "positional": lambda rows, steps: ENGINE.run(x(rows, steps)["x"], state(rows)["s0"]),
    "batch": lambda rows, steps: ENGINE.batch([x(rows, steps) | state(rows)] * 2),
    "stream": lambda rows, steps: ENGINE.stream().step(x(rows, steps)),
    "stream from a state": lambda rows, steps: ENGINE.stream(state(rows)).step(x(rows, steps)),
    "pieces": lambda rows, steps: run_in_pieces(ENGINE, x(rows, steps)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("rows", "steps", "words"),
    [
        (0, 2, "B is 0, the bundle takes 1 to 8"),
        (9, 2, "B is 9, the bundle takes 1 to 8"),
        (1, 0, "T is 0, the bundle takes 2 to 512, multiples of 2"),
        (1, 3, "T is 3, the bundle takes 2 to 512, multiples of 2"),
        (1, 514, "T is 514, the bundle takes 2 to 512"),
    ],
    ids=["no rows", "too many rows", "no steps", "no multiple", "too many steps"],
)
def test_a_size_outside_of_its_range_is_refused_by_name(way: str, rows: int, steps: int, words: str) -> None:
    with pytest.raises(InputError, match=f"sums: {words}"):
        WAYS[way](rows, steps)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("rows", "steps"), [(1, 2), (1, 512)], ids=["least", "most"])
def test_the_ends_of_the_range_are_taken(way: str, rows: int, steps: int) -> None:
    WAYS[way](rows, steps)


def test_a_state_of_too_many_rows_is_refused() -> None:
    with pytest.raises(InputError, match="B is 9, the bundle takes 1 to 8"):
        ENGINE.stream(state(9))


def test_a_refused_size_leaves_the_state() -> None:
    stream = ENGINE.stream()
    stream(x(1, 2))
    with pytest.raises(InputError):
        stream(x(1, 3))
    np.testing.assert_array_equal(stream.state["s0"], [[2, 2]])


def test_a_batch_is_stacked_no_higher_than_the_model_takes() -> None:
    seen: list[int] = []
    run = ENGINE.run
    engine = sums(**RANGES)
    engine.run = lambda feed: seen.append(len(feed["x"])) or run(feed)  # type: ignore[method-assign]
    answers = engine.batch([x(3, 2) | state(3)] * 5)
    assert seen == [6, 6, 3]
    assert [len(answer["y"]) for answer in answers] == [3] * 5
    seen.clear()
    engine.batch([x(1, 2) | state(1)] * 5, limit=2)
    assert seen == [2, 2, 1]


def test_of_a_name_without_a_range_every_size_but_0_is_taken_and_0_of_the_batch() -> None:
    engine = sums()
    assert engine.run(x(5, 1000) | state(5))["y"].shape == (5, 1000, 2)
    assert engine.run(x(0, 3) | state(0))["y"].shape == (0, 3, 2)
    with pytest.raises(InputError, match="T is 0, the bundle takes 1 or more; got x \\[5, 0, 2\\], s0 \\[5, 2\\]"):
        engine.run(x(5, 0) | state(5))


def test_what_a_bundle_recorded_is_taken_whatever_its_range() -> None:
    """A recorded case was proven, and the ranges may have come later."""
    assert ENGINE.run(RecordedInputs(x(9, 3) | state(9)))["y"].shape == (9, 3, 2)


def test_a_range_of_an_output_alone_is_the_graphs_own_business() -> None:
    graph = graph_bytes(
        [helper.make_node("NonZero", ["v"], ["found"])],
        [("v", TensorProto.FLOAT, ["N"])],
        [("found", TensorProto.INT64, [1, "D"])],
    )
    spec = dataclasses.replace(Engine(graph, threads=1).spec, dimensions={"D": DimensionSpec(1, 4)})
    engine = Engine(graph, spec=spec, threads=1)
    assert engine.run(np.zeros(9, np.float32))["found"].shape == (1, 0)


@pytest.mark.parametrize(
    ("spec", "text", "taken", "refused"),
    [
        (DimensionSpec(), "1 or more", (1, 2, 10**18), (0, -1)),
        (DimensionSpec(0), "0 or more", (0, 1), (-1,)),
        (DimensionSpec(1, 512), "1 to 512", (1, 512), (0, 513)),
        (DimensionSpec(4, None, 4), "4 or more, multiples of 4", (4, 8), (0, 5, 6)),
        (DimensionSpec(0, 8, 4), "0 to 8, multiples of 4", (0, 4, 8), (2, 12)),
    ],
    ids=str,
)
def test_a_range_says_what_it_takes(
    spec: DimensionSpec, text: str, taken: tuple[int, ...], refused: tuple[int, ...]
) -> None:
    assert str(spec) == text
    assert all(size in spec for size in taken)
    assert not any(size in spec for size in refused)
