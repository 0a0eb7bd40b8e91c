"""Numbers as people send them: each value exactly, or refused with its place. The same in lists, lines and arrays."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.engine import Engine
from runtime.errors import InputError
from runtime.golden import GoldenCase, RecordedInputs, golden_from_npz, golden_to_npz
from runtime.lines import LineStream, line_values
from runtime.manifest import ModelSpec, StateSpec, TensorSpec
from runtime.pieces import run_in_pieces
from runtime.values import as_array
from tests.bundles import sums_graph

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "float32", "float64")


def spec(dtype: str, *, finite: bool = True) -> TensorSpec:
    return TensorSpec("x", dtype, ("N",), finite=finite)


REFUSED: list[tuple[str, Any, str]] = [
    ("float32", [[1, 2], [3, "6"]], r"x\[1\]\[1\] is the text '6'; the input x \(float32\) needs numbers"),
    ("float32", ["6"], r"x\[0\] is the text '6'"),
    ("float32", [1, True], r"x\[1\] is a truth value"),
    ("float32", [[[True]]], r"x\[0\]\[0\]\[0\] is a truth value"),
    ("int64", [1, True], r"x\[1\] is a truth value"),
    ("int64", ["6"], r"x\[0\] is the text '6'"),
    ("int64", True, "^x is a truth value"),
    ("float32", None, "^x is null"),
    ("float32", [1, None], r"x\[1\] is null"),
    ("float32", [[1, 2], [3]], r"x\[0\] is a list; .* needs numbers in lists of equal lengths"),
    ("float32", [[1], 2], r"x\[0\] is a list"),
    ("float32", {"a": 1}, "^x is an object"),
    ("float32", "6", "^x is the text '6'"),
    ("float32", [0, 1e39], r"x\[1\] is the number 1e\+39; .* needs finite numbers that float32 can hold"),
    ("float32", [-1e39], r"x\[0\] is the number -1e\+39"),
    ("float32", [10**400], r"x\[0\] is the number 10000"),
    ("float32", [3.4028235677973366e38], r"x\[0\] is the number 3\.40282356"),
    ("float64", [10**309], r"x\[0\] is the number 10000"),
    ("float16", [65520], r"x\[0\] is the number 65520; .* needs finite numbers that float16 can hold"),
    ("float32", [math.nan], r"x\[0\] is the number nan"),
    ("float32", [0.0, -math.inf], r"x\[1\] is the number -inf"),
    ("uint8", [300], r"x\[0\] is the number 300; .* needs whole numbers from 0 to 255"),
    ("uint8", [0, -1], r"x\[1\] is the number -1"),
    ("int8", [128], "whole numbers from -128 to 127"),
    ("int64", [2**63], r"x\[0\] is the number 9223372036854775808"),
    ("int64", [-(2**63) - 1], r"x\[0\] is the number -9223372036854775809"),
    ("int64", [float(2**63)], r"x\[0\] is the number 9\.22"),
    ("int64", [-9.223372036854776e18], r"x\[0\] is the number -9\.22"),
    ("uint64", [2**64], r"x\[0\] is the number 18446744073709551616"),
    ("int64", [1.5], r"x\[0\] is the number 1\.5; .* needs whole numbers"),
    ("int64", [1e18], "whole numbers"),
    ("int64", [math.inf], r"x\[0\] is the number inf"),
    ("int32", [math.nan], r"x\[0\] is the number nan"),
    ("bool", [1], "needs true or false in lists"),
    ("bool", ["true"], "needs true or false"),
    ("string", [1], "needs texts"),
    ("string", [None], "needs texts"),
]


@pytest.mark.parametrize(("dtype", "value", "words"), REFUSED, ids=[f"{d} {str(v)[:24]}" for d, v, _ in REFUSED])
def test_what_the_type_cannot_hold_is_refused_by_place(dtype: str, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        as_array(spec(dtype), value)


TAKEN: list[tuple[str, Any]] = [
    ("float32", 1),
    ("float32", [0.1, 2]),
    ("float32", [3.4028234663852886e38, 1e-46]),
    ("float32", [2**63]),
    ("float16", [65504]),
    ("float64", [1e308, 5e-324]),
    ("int64", [2**63 - 1, -(2**63)]),
    ("int64", [3.0, 2.0**53]),
    ("uint64", [2**64 - 1, 2**63 + 1]),
    ("uint8", [[0, 255]]),
    ("int64", [2**53 + 1]),
    ("bool", [[True], [False]]),
    ("string", ["a\0", "", "é"]),
    ("float32", []),
    ("int64", [[]]),
    ("float32", [[[]], [[]]]),
]


@pytest.mark.parametrize(("dtype", "value"), TAKEN, ids=[f"{d} {str(v)[:24]}" for d, v in TAKEN])
def test_what_the_type_holds_is_taken_exactly(dtype: str, value: Any) -> None:
    array = as_array(spec(dtype), value)
    assert array.dtype == ("object" if dtype == "string" else dtype)
    if dtype.startswith("float"):
        np.testing.assert_array_equal(array, np.array(value, np.float64).astype(dtype))
    else:
        assert array.tolist() == value


def test_declared_infinities_are_taken_and_numbers_that_only_become_them_are_not() -> None:
    declared = spec("float32", finite=False)
    np.testing.assert_array_equal(
        as_array(declared, [math.nan, math.inf, -math.inf, 1]), np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    )
    for value in (1e39, -1e39, 10**400):
        with pytest.raises(InputError, match="needs finite numbers that float32 can hold"):
            as_array(declared, [0, value])


# --- the engine and what is in front of it -------------------------------------------------------------------------


def engine(*, finite: bool = True, dtype: str = "float32") -> Engine:
    """Running sums of x [B, T, 2] onto a state [B, 2]."""
    model = ModelSpec(
        variants={},
        inputs=(TensorSpec("x", dtype, ("B", "T", 2), finite=finite), TensorSpec("s0", dtype, ("B", 2), finite=finite)),
        outputs=(TensorSpec("y", dtype, ("B", "T", 2)), TensorSpec("sn", dtype, ("B", 2))),
        state=(StateSpec("s0", "sn", ("B", 2), dtype),),
    )
    return Engine(sums_graph(), spec=model, threads=1, name="sums")


SUMS = engine()
X = np.ones((1, 3, 2), np.float32)
S0 = np.zeros((1, 2), np.float32)


def with_value(array: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    changed = array.copy()
    changed[place] = value
    return changed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("way", ["run", "batch", "stream", "pieces", "state", "begun", "recovered"])
def test_a_number_that_is_none_is_refused_with_its_place(way: str, value: float) -> None:
    x, s0 = with_value(X, (0, 1, 1), value), with_value(S0, (0, 1), value)
    ways = {
        "run": lambda: SUMS.run(x, S0),
        "batch": lambda: SUMS.batch([{"x": X, "s0": S0}, {"x": x, "s0": S0}]),
        "stream": lambda: SUMS.stream().step(x),
        "pieces": lambda: run_in_pieces(SUMS, {"x": x}),
        "state": lambda: SUMS.run(X, s0),
        "begun": lambda: SUMS.stream({"s0": s0}),
        "recovered": lambda: SUMS.stream().reset({"s0": s0}),
    }
    place = r"'x' holds -?(nan|inf) at \[0, 1, 1\]" if way in ("run", "batch", "stream", "pieces") else r"'s0' holds"
    with pytest.raises(InputError, match=f"sums: input {place}"):
        ways[way]()


@pytest.mark.parametrize("size", [1, 2, 16, 1000, 70_000], ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-42], ids=str)
def test_one_number_among_many(size: int, value: float) -> None:
    """Large and tiny numbers are finite, however many there are of them."""
    for where in {0, size // 2, size - 1}:
        x = np.full((1, size, 2), 3.4e38 if abs(value) > 1 else 1, np.float32)
        x[0, where, 1] = value
        if math.isfinite(value):
            SUMS.run(x, S0)
        else:
            with pytest.raises(InputError, match=rf"at \[0, {where}, 1\]"):
                SUMS.run(x, S0)


def test_what_the_bundle_declares_or_recorded_is_taken() -> None:
    x = with_value(X, (0, 1, 1), -np.inf)
    assert engine(finite=False).run(x, S0)["sn"][0, 1] == -np.inf
    assert SUMS.run(RecordedInputs(x=x, s0=S0))["sn"][0, 1] == -np.inf
    (case,) = golden_from_npz(golden_to_npz([GoldenCase("masked", {"x": x, "s0": S0}, {})]))
    assert SUMS.run(case.inputs)["sn"][0, 1] == -np.inf


def test_whole_numbers_and_levels_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.checks.is_finite", lambda _: pytest.fail("looked at"))
    with pytest.raises(pytest.fail.Exception, match="looked at"):
        SUMS.run(X, S0)
    from runtime.checks import InputCheck

    check = InputCheck("levels", ModelSpec({}, (TensorSpec("x", "uint8", ("N",)),), ()))
    check({"x": np.zeros(3, np.uint8)})


def test_a_step_that_would_leave_nan_in_the_state_is_refused() -> None:
    """Finite inputs whose sum is not, and then one that takes infinity away from infinity: no number ever after."""
    stream = SUMS.stream()
    stream(np.full((1, 2, 2), 3e38, np.float32))
    was = stream.state["s0"]
    assert np.isinf(was).all()
    with pytest.raises(InputError, match="this step would leave NaN in the state 's0'"):
        stream(np.full((1, 2, 2), -3e38, np.float32))
    np.testing.assert_array_equal(stream.state["s0"], was)


def test_several_steps_are_taken_all_or_none() -> None:
    lines = LineStream(SUMS)
    lines.answer("1 2")
    steps = [lines.inputs([1, 1]), lines.inputs([3e38, 3e38]), lines.inputs([3e38, 0]), lines.inputs([-3e38, 0])]
    late = [*steps, {"x": np.full((1, 2, 2), -3.4e38, np.float32)}]
    with pytest.raises(InputError, match="step 5 of 5: sums: this step would leave NaN"):
        lines.run_all(late)
    assert lines.run_all([lines.inputs([0, 0])]) == [{"y": [1.0, 2.0]}]
    assert [answer["y"][1] for answer in lines.run_all(steps[:1] * 2)] == [3.0, 4.0]


def test_an_error_that_nobody_expected_moves_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = SUMS.stream()
    stream(X)
    was = stream.state["s0"]
    run, calls = SUMS.run, iter((False, False, True))

    def breaking(*inputs: Any, **options: Any) -> Any:
        if next(calls):
            raise RuntimeError("a cosmic ray")
        return run(*inputs, **options)

    monkeypatch.setattr(SUMS, "run", breaking)
    with pytest.raises(RuntimeError, match="cosmic"):
        stream.steps([{"x": X}, {"x": X}, {"x": X}])
    np.testing.assert_array_equal(stream.state["s0"], was)


@pytest.mark.parametrize(
    "line",
    ["1e39 0", "nan 0", "inf 0", "-Infinity 0", "[1e39, 0]", "[NaN, 0]", "[Infinity, 0]", '["6", 0]', "[true, 0]",
     "[[1, 2], 3]", "[null, 0]", '{"x": ["6", 0]}', '{"x": [[true], [0]]}', '{"x": 1e999}', "1_0 0", "0x1 0", "1 2e",
     "9" * 5000 + " 0", "[" + "9" * 400 + ", 0]"],
    ids=lambda line: line[:16],
)  # fmt: skip
def test_a_line_of_what_is_no_number_is_refused_and_moves_nothing(line: str) -> None:
    lines = LineStream(SUMS)
    lines.answer("1 2")
    with pytest.raises(InputError):
        lines.answer(line)
    assert lines.answer("0 0") == {"y": [1.0, 2.0]}


@pytest.mark.parametrize("word", ["1", "+1", "01", "1.", ".5", "-.5e1", "1E2", "-0"])
def test_the_ways_to_write_a_number(word: str) -> None:
    assert line_values(f"{word},2") == [float(word), 2]


@settings(max_examples=200)
@given(st.sampled_from([*INTEGERS, *FLOATS]), st.integers(-(2**70), 2**70) | st.floats(width=64))
def test_any_number_is_exact_or_refused(dtype: str, number: float) -> None:
    try:
        array = as_array(spec(dtype), [number])
    except InputError:
        if dtype in INTEGERS:
            limits = np.iinfo(dtype)
            assert not (limits.min <= number <= limits.max and type(number) is int)
        else:
            with np.errstate(over="ignore"):
                assert not np.isfinite(np.float64(number).astype(dtype))
        return
    if dtype in INTEGERS:
        assert array.tolist() == [number]
    else:
        assert array[0] == np.float64(number).astype(dtype)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "y", ""]), inner, max_size=2),
    max_leaves=12,
)


@settings(max_examples=200)
@given(ANYTHING, st.sampled_from([*INTEGERS, *FLOATS, "bool", "string"]), st.booleans())
def test_anything_is_an_array_or_refused(value: Any, dtype: str, finite: bool) -> None:
    try:
        array = as_array(spec(dtype, finite=finite), value)
    except InputError:
        return
    assert array.dtype == ("object" if dtype == "string" else dtype)
    assert not finite or dtype == "string" or np.isfinite(array).all()


def test_a_message_stays_short() -> None:
    for value in ([10**4000], ["x" * 10**6], {"a": "b" * 10**6}, [[1] * 10**5, 2]):
        with pytest.raises(InputError) as caught:
            as_array(spec("float32"), value)
        assert len(str(caught.value)) < 300


LINES = (
    st.text(alphabet='0123456789+-.eEnaif [],{}":xtru\t', max_size=30) | st.text(max_size=20) | ANYTHING.map(json.dumps)
)


@settings(max_examples=300)
@given(LINES)
def test_any_line_is_answered_or_refused(line: str) -> None:
    lines = LineStream(SUMS)
    try:
        answer = lines.answer(line)
    except InputError:
        assert lines.stream.state == {}
    else:
        assert np.isfinite(answer["y"]).all()


@pytest.mark.slow
@settings(max_examples=20_000)
@given(LINES, ANYTHING, st.sampled_from([*INTEGERS, *FLOATS, "bool", "string"]))
def test_anything_for_longer(line: str, value: Any, dtype: str) -> None:
    for ask in (lambda: LineStream(SUMS).answer(line), lambda: as_array(spec(dtype), value)):
        with contextlib.suppress(InputError):
            ask()
