"""The comparison itself, against a rule written out element by element, and its two callers against each other."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from runtime.compare import OutputCheck, compare, distance, failure, merge
from runtime.engine import Engine
from runtime.golden import GoldenCase
from runtime.manifest import CRITERION, OutputParity, Parity
from runtime.verify import check_graph
from tests.runtime.conftest import graph_bytes

RANDOM = 10_000
VALUES = (0.0, 1.0, -1.0, 1.00005, 1.001, 2.0, -3.5, 1e-30, 3e38, math.inf, -math.inf, math.nan)


def right(a: float, b: float, rule: OutputParity) -> bool:
    """The criterion of the manifest for one element, in Python's own numbers."""
    if math.isnan(a) or math.isnan(b):
        return rule.nan and math.isnan(a) and math.isnan(b)
    return a == b or (math.isfinite(a) and math.isfinite(b) and abs(a - b) <= rule.atol + rule.rtol * abs(b))


def drawn(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float64], OutputParity]:
    """An answer, a reference that is often the same, and a tolerance."""
    shape = tuple(rng.integers(0, 3, rng.integers(0, 3)))
    answer = rng.choice(VALUES, shape).astype(np.float32)
    reference = answer.astype(np.float64)
    if rng.random() < 0.6 and reference.size:
        reference = np.where(rng.random(shape) < 0.3, rng.choice(VALUES, shape), reference)
    if rng.random() < 0.1:
        reference = np.zeros((*shape, 1)) if rng.random() < 0.5 else reference[..., None].repeat(2, -1)
    rule = OutputParity(
        atol=float(rng.choice([0.0, 1e-4, 0.1])), rtol=float(rng.choice([0.0, 1e-4])), nan=bool(rng.random() < 0.3)
    )
    return answer, reference, rule


def test_the_verdict_is_the_criterion_element_by_element() -> None:
    rng = np.random.default_rng(1)
    verdicts = []
    for _ in range(RANDOM):
        answer, reference, rule = drawn(rng)
        expected = answer.shape == reference.shape and all(
            right(float(a), float(b), rule) for a, b in zip(answer.flat, reference.flat, strict=True)
        )
        check = compare("y", answer, reference, rule, case="one")
        assert check.ok is expected, (answer, reference, rule, check)
        assert bool(check) is expected
        assert (check.note == "") is math.isfinite(check.max_abs)
        verdicts.append(expected)
    assert 0.2 < np.mean(verdicts) < 0.8


def test_the_gate_and_verify_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph divides, so that finite inputs give every number there is, NaN and the infinities among them."""
    pytest.importorskip("torch", reason="the gate needs torch")
    from exporters import parity
    from exporters.parity import Tolerance
    from exporters.spec import Case, Output

    shape = ["A", "B"]
    graph = graph_bytes(
        [helper.make_node("Div", ["a", "b"], ["y"])],
        [("a", TensorProto.FLOAT, shape), ("b", TensorProto.FLOAT, shape)],
        [("y", TensorProto.FLOAT, shape)],
        [],
    )
    sessions = {level: parity.open_graph(graph, level) for level in parity.LEVELS}
    monkeypatch.setattr(parity, "open_graph", lambda _, level: sessions[level])
    engine = Engine(graph, threads=1)
    output = Output("y", "float32", tuple(shape))
    rng, verdicts = np.random.default_rng(2), []
    for _ in range(RANDOM):
        answer, reference, rule = drawn(rng)
        if answer.ndim != 2 or not answer.size:
            continue
        feed = {"a": divided(answer, 1), "b": divided(answer, 0)}
        held = parity.hold(graph, [output], [Case("one", feed)], [{"y": reference}], {"y": Tolerance(rule)})
        (check,) = held.checks
        assert not held.failures
        assert bool(held) == check.ok
        engine.spec = replace(engine.spec, parity=Parity(CRITERION, "", {"y": rule}))
        (other,) = check_graph(engine, [GoldenCase("one", feed, {"y": reference})], "fp32", asked=False)
        assert check.ok == other.ok
        verdicts.append(check.ok)
    assert len(verdicts) > RANDOM / 10
    assert 0.2 < np.mean(verdicts) < 0.8


def divided(answer: NDArray[np.float32], part: int) -> NDArray[np.float32]:
    """The numerator or the denominator of a quotient that is ``answer``, both finite."""
    special = ~np.isfinite(answer)
    if part == 0:
        return np.where(special, 0, 1).astype(np.float32)
    signs = np.nan_to_num(np.sign(answer), nan=0.0)
    return np.where(special, signs, answer).astype(np.float32)


@pytest.mark.parametrize(
    ("decision", "answer", "truth", "changes"),
    [
        ("argmax", [[0.4, 0.6]], [[0.6, 0.4]], 1),
        ("argmax", [[0.4999, 0.5001]], [[0.5001, 0.4999]], 0),
        ("argmax", [[1.0]], [[2.0]], 0),
        ("argmax", 1.0, 2.0, 0),
        ("argmax", [[0.0, -math.inf, -9.0]], [[-9.0, -math.inf, 0.0]], 1),
        ("argmax", [[-math.inf, -math.inf]], [[-math.inf, -math.inf]], 0),
        ("round", [30.6], [30.3], 1),
        ("round", [30.5001], [30.4999], 0),
        ("round", [math.inf], [math.inf], 0),
        ("exact", [1, 2, 4], [1, 2, 3], 1),
        ("exact", [2**53 + 1], [2**53], 1),
        ("exact", [1.0, 2.0], [1.0, 2.0], 0),
        (None, [1.0], [2.0], 0),
    ],
)
def test_decisions_count_where_the_reference_can_tell(decision: str, answer: Any, truth: Any, changes: int) -> None:
    rule = OutputParity(1e-3, 1e-6, decision=decision)
    check = compare("y", np.array(answer), np.array(truth), rule)
    assert check.decision_changes == changes
    assert not (changes and check.ok)


@pytest.mark.parametrize(
    ("a", "b", "difference"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.5),
        ([1.0], [1.0, 1.0], math.inf),
        ([math.nan], [1.0], math.inf),
        ([math.nan], [math.nan], math.inf),
        ([math.inf], [math.inf], 0.0),
        ([math.inf], [1.0], math.inf),
        ([1.0], [-math.inf], math.inf),
        ([], [], 0.0),
        ([3], [5], 2.0),
        ([2**60 + 1], [2**60], 1.0),
        ([True], [False], 1.0),
        (["a"], ["a"], 0.0),
        (["a"], ["b"], math.inf),
        ([b"a"], ["a"], 0.0),
        (["1"], [1.0], math.inf),
    ],
)
def test_the_distance_never_hides_anything(a: list[Any], b: list[Any], difference: float) -> None:
    assert distance(np.array(a), np.array(b)) == difference


@pytest.mark.parametrize(
    ("a", "b", "note"),
    [
        ([math.nan], [math.nan], "both are NaN, and the output was not declared to give NaN"),
        ([1.0, math.nan], [1.0, 2.0], "NaN where the reference is 2"),
        ([1.0], [math.nan], "1 where the reference is NaN"),
        ([-math.inf], [math.inf], "-inf where the reference is inf"),
        ([1.0], [[1.0]], "shape [1], the reference has [1, 1]"),
        (["1"], [1.0], "<U1 where the reference is float64"),
        (["a"], ["b"], "another text"),
    ],
)
def test_what_is_no_number_is_told_in_words(a: list[Any], b: list[Any], note: str) -> None:
    assert compare("y", np.array(a), np.array(b), OutputParity(1e9, 1e9)).note == note


def test_whole_numbers_have_no_tolerance() -> None:
    assert not compare("y", np.array([5]), np.array([6]), OutputParity(10.0, 10.0))


def test_merging_keeps_what_fared_worst() -> None:
    rule = OutputParity(1.0, 0.0)
    near = compare("y", np.array([1.0]), np.array([1.9]), rule, case="near")
    far = compare("y", np.array([1.0]), np.array([0.5]), rule, case="far")
    lost = failure(OutputCheck("y", cases=1, worst_case="lost"), "gone")
    assert merge([far, near]).worst_case == "near"
    total = merge([near, lost, far])
    assert (total.cases, total.ok, total.worst_case, total.note) == (3, False, "lost", "gone")
    with pytest.raises(ValueError, match="no checks"):
        merge([])
