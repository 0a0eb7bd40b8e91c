"""Streams: the state goes from call to call, and nothing that is refused moves it."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from runtime.engine import Engine
from runtime.errors import BundleError, InputError
from runtime.lines import LineStream
from runtime.manifest import StateSpec
from tests.bundles import sums_graph

STATE = StateSpec(input="s0", output="sn", shape=("B", 2), dtype="float32")


def running_sum(state: StateSpec | None = STATE) -> Engine:
    """See `sums_graph`."""
    engine = Engine(sums_graph(), threads=1, name="sums")
    if state is not None:
        engine.spec = dataclasses.replace(engine.spec, state=(state,))
    return engine


ENGINE = running_sum()


def steps_of(batch: int, steps: int) -> NDArray[np.float32]:
    return np.random.default_rng([batch, steps]).integers(-9, 9, (batch, steps, 2)).astype(np.float32)


@settings(deadline=None, max_examples=50)
@given(batch=st.integers(1, 4), pieces=st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_pieces_answer_as_the_whole(batch: int, pieces: list[int]) -> None:
    x = steps_of(batch, sum(pieces))
    whole = ENGINE.run(x, np.zeros((batch, 2), np.float32))
    stream = ENGINE.stream()
    answers = [stream(part)["y"] for part in np.split(x, np.cumsum(pieces)[:-1], axis=1)]
    np.testing.assert_array_equal(np.concatenate(answers, axis=1), whole["y"])
    np.testing.assert_array_equal(stream.state["s0"], whole["sn"])


def test_the_state_is_neither_given_nor_returned() -> None:
    answer = ENGINE.stream().step({"x": steps_of(1, 1)})
    assert list(answer) == ["y"]
    with pytest.raises(InputError, match="s0 is carried by the stream"):
        ENGINE.stream().step({"x": steps_of(1, 1), "s0": np.zeros((1, 2), np.float32)})


def test_a_stream_begins_with_zeros_with_a_state_and_anew() -> None:
    stream, x = ENGINE.stream(), steps_of(2, 3)
    assert stream.state == {}
    first = stream(x)["y"]
    kept = stream.state
    second = stream(x)["y"]
    stream.reset(kept)
    np.testing.assert_array_equal(stream(x)["y"], second)
    np.testing.assert_array_equal(ENGINE.stream(kept)(x)["y"], second)
    stream.reset()
    np.testing.assert_array_equal(stream(x)["y"], first)
    stream.reset(kept)
    kept["s0"][:] = 99  # the stream has a copy, and gives copies
    stream.state["s0"][:] = 99
    np.testing.assert_array_equal(stream(x)["y"], second)


def test_streams_of_one_engine_know_nothing_of_each_other() -> None:
    one, other, x = ENGINE.stream(), ENGINE.stream(), steps_of(1, 4)
    one(x)
    np.testing.assert_array_equal(other(x)["y"], ENGINE.stream()(x)["y"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "0 inputs, a step takes x"),
        ((steps_of(1, 1), steps_of(1, 1)), "2 inputs, a step takes x"),
        (({},), "input 'x' is missing"),
        (({"x": steps_of(1, 1)[0]},), r"expected float32 \[B, T, 2\], got the shape \[1, 2\]"),
        (({"x": steps_of(1, 1).astype(np.float64)},), "got float64"),
        ((steps_of(3, 1),), r"B is"),
        ((steps_of(1, 1)[..., :1],), "dimension 2 is off"),
        (({"x": steps_of(1, 1), "z": steps_of(1, 1)},), "unknown input 'z'"),
    ],
    ids=["none", "two", "missing", "rank", "type", "rows", "width", "stranger"],
)
def test_what_is_refused_leaves_the_state(arguments: tuple[Any, ...], words: str) -> None:
    stream, x = ENGINE.stream(), steps_of(1, 2)
    stream(x)
    before = stream.state
    with pytest.raises(InputError, match=words):
        stream.step(*arguments)
    np.testing.assert_array_equal(stream.state["s0"], before["s0"])
    np.testing.assert_array_equal(stream(x)["y"], ENGINE.stream(before)(x)["y"])


def test_a_refused_first_step_leaves_a_fresh_stream() -> None:
    stream, x = ENGINE.stream(), steps_of(3, 2)
    for wrong in ({}, {"x": x[0]}, {"x": x.astype(np.float64)}):
        with pytest.raises(InputError):
            stream.step(wrong)
    assert stream.state == {}
    np.testing.assert_array_equal(stream(x)["y"], ENGINE.stream()(x)["y"])


def test_a_model_without_state_has_no_stream() -> None:
    with pytest.raises(InputError, match="sums declares no state that could be carried"):
        running_sum(None).stream()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"h": np.zeros((1, 2), np.float32)}, "sums carries s0, not 'h'"),
        ({"s0": np.zeros((1, 2))}, r"'s0': expected float32 \[B, 2\], got float64"),
        ({"s0": np.zeros(2, np.float32)}, r"expected float32 \[B, 2\], got the shape \[2\]"),
        ({"s0": [[0.0, 0.0]]}, "got list"),
    ],
    ids=["stranger", "type", "rank", "list"],
)
def test_a_wrong_state_is_refused(state: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ENGINE.stream(state)


def test_a_size_that_no_input_has_needs_a_state() -> None:
    engine = running_sum()
    x, s0 = engine.spec.inputs
    engine.spec = dataclasses.replace(
        engine.spec,
        inputs=(x, dataclasses.replace(s0, shape=("M", 2))),
        outputs=(engine.spec.outputs[0], dataclasses.replace(engine.spec.outputs[1], shape=("M", 2))),
        state=(dataclasses.replace(STATE, shape=("M", 2)),),
    )
    with pytest.raises(BundleError, match="the size M of the state s0 is that of no input"):
        engine.stream()(steps_of(1, 1))
    assert engine.stream({"s0": np.zeros((1, 2), np.float32)})(steps_of(1, 1))["y"].shape == (1, 1, 2)


@pytest.mark.parametrize("change", [{"input": "h"}, {"output": "h"}, {"shape": ("B", 3)}], ids=str)
def test_a_state_that_the_model_does_not_have_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="which are no output and input of the shape"):
        running_sum(dataclasses.replace(STATE, **change)).stream()


def test_calls_from_several_threads_come_one_after_the_other() -> None:
    stream, one = ENGINE.stream(), np.ones((1, 1, 2), np.float32)
    threads = [threading.Thread(target=lambda: [stream(one) for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(stream.state["s0"], [[800, 800]])


@pytest.mark.parametrize("line", ["1 2", "1,2", " 1 , 2 \n", "[1, 2]", '{"x": [1, 2]}', '{"x": [[[1, 2]]]}'])
def test_a_line_is_a_step(line: str) -> None:
    lines = LineStream(ENGINE)
    assert lines.answer(line) == {"y": [1.0, 2.0]}
    assert lines.answer(line) == {"y": [2.0, 4.0]}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1", "x: a step has 2 numbers, the line has 1"),
        ("1 2 3", "the line has 3"),
        ("1 two", "'two' in '1 two' is no number"),
        ("[1, 2", "is no JSON"),
        ("1 nan", r"x\[1\] is the number nan; .* needs finite numbers that float32 can hold"),
        ("1e999 0", r"x\[0\] is the number inf"),
        ('{"y": [1, 2]}', "a step has the inputs x, found 'y'"),
        ('["a", 2]', r"x\[0\] is the text 'a'; .* needs numbers in lists of equal lengths"),
        ('[{"a": 1}, 2]', r"x\[0\] is an object"),
        ("[" * 5000, "is no JSON"),
        ("1 " * (1 << 20), "a line of 2097152 characters"),
    ],
    ids=["few", "many", "word", "json", "nan", "infinite", "stranger", "text", "object", "deep", "long"],
)
def test_a_bad_line_is_refused_and_moves_nothing(line: str, words: str) -> None:
    lines = LineStream(ENGINE)
    lines.answer("3 4")
    with pytest.raises(InputError, match=words):
        lines.answer(line)
    assert lines.answer("0 0") == {"y": [3.0, 4.0]}
