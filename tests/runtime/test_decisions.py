"""Variants with a budget: their decisions are counted, per class of processor, by verify and at the door."""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import processor
from runtime.budget import Budget, Counted, parse_budget
from runtime.bundle import Bundle, write_bundle
from runtime.child import child_environment, python_command
from runtime.decisions import changed_decisions
from runtime.door import Door, proven_json
from runtime.engine import Engine
from runtime.errors import BundleError, CheckFailedError
from runtime.manifest import OutputParity, Parity, Variant
from runtime.pipelines import load
from runtime.processor import processor_class
from runtime.tuning import tune
from runtime.verify import check_graph, verify
from tests.bundles import SCALE, scale_graph, write_scale_bundle

HERE = processor_class()
ELSEWHERE = "of-another-kind"


def coarse_bundle(path: Path, recorded: dict[str, Counted], *, decision: str | None = "argmax") -> Bundle:
    """The bundle of three scaled numbers with a variant whose second number is wrong, so that argmax may differ."""
    fine = write_scale_bundle(path.with_name("fine.edge"))
    graph = scale_graph(SCALE * np.array([1, -0.4, 1], np.float32))
    budget = Budget("accuracy", 0.9, 0.8, 0.2, {HERE: 0.1}, recorded)
    variant = Variant("coarse.onnx", hashlib.sha256(graph).hexdigest(), len(graph), budget=budget)
    model = fine.model("scale")
    assert model.parity is not None
    outputs = {"y": OutputParity(1e-5, 0.0, decision=decision)}
    parity = Parity(model.parity.criterion, model.parity.reference, outputs)
    model = replace(model, variants={**model.variants, "int8": variant}, parity=parity)
    manifest = replace(fine.manifest, models={"scale": model})
    return write_bundle(path, manifest, {name: fine.read(name) for name in fine.files} | {"coarse.onnx": graph})


def truly_changed(bundle: Bundle) -> Counted:
    """By the definition of argmax, without the code under test."""
    changed = of = 0
    for case in bundle.golden("scale"):
        wrong = case.inputs["x"] * SCALE * np.array([1, -0.4, 1])
        changed += int((wrong.argmax(1) != case.outputs["y"].argmax(1)).sum())
        of += len(wrong)
    return Counted(changed, of)


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    return truly_changed(coarse_bundle(tmp_path / "counting.edge", {}))


def test_as_many_as_were_recorded_may_change(tmp_path: Path, counted: Counted) -> None:
    assert 10 < counted.changed < counted.of == 42
    bundle = coarse_bundle(tmp_path / "coarse.edge", {HERE: counted})
    exact, coarse = verify(bundle).checks
    assert (exact.variant, coarse.variant) == ("fp32", "int8")
    assert coarse.ok
    assert coarse.judged
    assert coarse.decision_changes == counted.changed
    assert coarse.max_abs > 1
    assert f"{counted.changed} of 42 decisions differ" in coarse.note


def test_more_than_were_recorded_fail(tmp_path: Path) -> None:
    report = verify(coarse_bundle(tmp_path / "coarse.edge", {HERE: Counted(2, 42)}))
    assert [check.ok for check in report.checks] == [True, False]
    assert not report
    assert "FAILED" in str(report)


def test_another_class_of_processor_is_reported_and_never_passes(tmp_path: Path, counted: Counted) -> None:
    bundle = coarse_bundle(tmp_path / "coarse.edge", {ELSEWHERE: counted})
    every, asked = verify(bundle), verify(bundle, variant="int8")
    row = every.checks[1]
    assert not row.judged
    assert (
        row.note == f"{counted.changed} of 42 decisions differ; none were counted on {HERE}, so it is not judged here"
    )
    assert "not judged" in str(every)
    assert every.ok, "what runs by default is proven"
    assert not asked.ok, "what was asked for is not"
    assert every.to_json()["checks"][1]["judged"] is False


def test_a_model_without_a_decision_is_not_judged(tmp_path: Path, counted: Counted) -> None:
    bundle = coarse_bundle(tmp_path / "coarse.edge", {HERE: counted}, decision=None)
    report = verify(bundle, variant="int8")
    assert not report.ok
    assert "the model declares no decision" in report.checks[0].note


def test_the_door_counts_over_all_cases(tmp_path: Path, counted: Counted) -> None:
    bundle = coarse_bundle(tmp_path / "coarse.edge", {HERE: counted})
    with load(bundle, threads=1, variant="int8", check=True) as pipeline:
        door = Door(bundle, pipeline.engines, "int8")
        door.judge_rows()
        door.first()
        for _ in door.rest():
            pass
        assert door.proven.cases == door.proven.recorded == 4
        assert door.proven.unjudged == ()
        assert door.stackable == {"scale": True}


def test_the_door_refuses_when_more_differ(tmp_path: Path) -> None:
    bundle = coarse_bundle(tmp_path / "coarse.edge", {HERE: Counted(0, 42)})
    with load(bundle, threads=1, variant="int8") as pipeline:
        door = Door(bundle, pipeline.engines, "int8")
        with pytest.raises(
            CheckFailedError, match=rf"variant int8: \d+ of \d+ decisions differ so far, 1 may on {HERE}"
        ):
            for _ in door.rest():
                pass


def test_the_door_says_what_it_cannot_judge(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle = coarse_bundle(tmp_path / "coarse.edge", {ELSEWHERE: Counted(20, 42)})
    with caplog.at_level(logging.WARNING), load(bundle, threads=1, variant="int8", check=True) as pipeline:
        proven = Door(bundle, pipeline.engines, "int8").proven
    assert "the variant int8 of scale was not judged on processors of the class" in caplog.text
    assert proven.recorded == 0
    assert proven_json(proven)["unjudged"] == ("scale",)
    assert "scale not judged" in str(proven)


def test_float32_stays_the_default(tmp_path: Path, counted: Counted) -> None:
    bundle = coarse_bundle(tmp_path / "coarse.edge", {HERE: counted})
    x = np.ones((1, 3), np.float32)
    with load(bundle, threads=1) as exact, load(bundle, threads=1, variant="int8") as coarse:
        answers = [pipeline.predict({"x": x})["outputs"]["y"] for pipeline in (exact, coarse)]
    assert answers == [[[2.0, -1.0, 0.5]], [[2.0, pytest.approx(0.4), 0.5]]]


@pytest.mark.parametrize(
    ("decision", "answer", "reference", "expected"),
    [
        ("argmax", [[0.1, 0.9], [0.6, 0.4]], [[0.2, 0.8], [0.4, 0.6]], Counted(1, 2)),
        ("round", [19.4, 20.6, 3.0], [19.6, 20.6, 3.4], Counted(1, 3)),
        ("exact", [1, 2, 3], [1, 2, 4], Counted(1, 3)),
        ("exact", [1, 2], [1, 2, 4], Counted(3, 3)),
        ("argmax", np.zeros((0, 4)), np.zeros((0, 4)), Counted(0, 0)),
    ],
)
def test_what_a_changed_decision_is(decision: str, answer: list, reference: list, expected: Counted) -> None:
    assert changed_decisions(np.array(answer), np.array(reference), decision) == expected


@given(st.integers(0, 500), st.integers(0, 500))
def test_the_allowance_covers_the_record_and_never_all_of_chance(changed: int, more: int) -> None:
    counted = Counted(changed, changed + more)
    assert changed <= counted.allowed <= min(counted.of, changed + 1 + np.sqrt(changed))


def test_a_budget_is_written_and_read() -> None:
    budget = Budget("MAE", 5.93, 6.01, 0.1, {"vnni": 0.011}, {"vnni": Counted(3, 48)}, 1898, "utkface", "year")
    document = budget.to_json("int8")
    assert (document["int8"], document["fp32"], document["decisions_changed"]) == (6.01, 5.93, {"vnni": 0.011})
    assert parse_budget("int8")(document, "budget") == budget
    least = {"metric": "MAE", "fp32": 5.93, "int8": 6.01, "allowed": 0.1, "decisions_changed": {"vnni": 0.011}}
    assert parse_budget("int8")(least, "budget").recorded_changed == {}
    with pytest.raises(BundleError, match="5 of 4 decisions changed"):
        parse_budget("int8")(least | {"recorded_changed": {"vnni": {"changed": 5, "of": 4}}}, "models.age.budget")


@pytest.mark.parametrize(
    ("machine", "saturating", "flags", "expected"),
    [
        ("x86_64", True, "avx2 avx512_vnni", "avx2"),
        ("AMD64", False, "avx2 avx512_vnni", "vnni"),
        ("AMD64", False, "", "vnni"),
        ("x86_64", False, "sse4_1", "sse"),
        ("aarch64", False, "asimd asimddp", "arm-dot"),
        ("aarch64", False, "asimd", "arm"),
        ("riscv64", False, "", "riscv64"),
    ],
)
def test_classes_of_processors(
    monkeypatch: pytest.MonkeyPatch, machine: str, saturating: bool, flags: str, expected: str
) -> None:
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    monkeypatch.setattr(processor.platform, "system", lambda: "Linux")
    monkeypatch.setattr(processor, "saturates", lambda: saturating)
    monkeypatch.setattr(processor, "_flags", lambda: frozenset(flags.split()))
    assert processor_class.__wrapped__() == expected


@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="needs qemu-x86_64 (Debian's qemu-user)")
@pytest.mark.parametrize(("model", "expected"), [("Haswell", "avx2"), ("Nehalem", "sse,vnni")])
def test_the_class_of_an_emulated_processor(model: str, expected: str) -> None:
    """A Nehalem has no AVX2, but the flags that Linux tells are those of the machine around it."""
    code = "from runtime.processor import processor_class; print(processor_class())"
    command = ["qemu-x86_64", "-cpu", model, *python_command(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=child_environment())
    assert done.stdout.strip() in expected.split(",")


@pytest.mark.parametrize(("changed", "note"), [(None, ""), (0, "not the recorded answers: scale.y")])
def test_tuning_takes_a_variant_that_keeps_to_its_count(
    tmp_path: Path, counted: Counted, changed: int | None, note: str
) -> None:
    recorded = counted if changed is None else Counted(changed, counted.of)
    tuned = tune(coarse_bundle(tmp_path / "coarse.edge", {HERE: recorded}), threads=1, seconds=0.01)
    (trial,) = [trial for trial in tuned.trials if trial.way.variant == "int8" and trial.way.device == "cpu"][:1]
    assert trial.note == note


def recounted(bundle: Bundle, elsewhere: str | None) -> tuple[bool, bool, str]:
    """The verdict on the variant's first output, whether it is one, and its words, as of another processor."""
    graph = bundle.graph("scale", "int8")
    with Engine(graph, spec=bundle.model("scale"), threads=1, name="scale") as engine:
        (row,) = check_graph(engine, bundle.golden("scale"), "int8", asked=True, elsewhere=elsewhere)
    return row.ok, row.judged, row.note


def test_on_a_class_that_was_not_judged_as_many_may_differ_as_on_the_worst(tmp_path: Path, counted: Counted) -> None:
    few = Counted(0, counted.of)
    bundle = coarse_bundle(tmp_path / "b.edge", {"one": few, "two": counted})
    ok, judged, note = recounted(bundle, "three")
    assert (ok, judged) == (True, True)
    assert note.endswith(f"{counted.allowed} may on two")
    bundle = coarse_bundle(tmp_path / "b.edge", {"one": few})
    assert recounted(bundle, "three")[:2] == (False, True)
    assert recounted(bundle, None)[:2] == (False, False), "verify does not judge what was not counted here"


def test_on_a_class_that_was_judged_its_own_count_holds(tmp_path: Path, counted: Counted) -> None:
    bundle = coarse_bundle(tmp_path / "b.edge", {"one": Counted(0, counted.of), "two": counted})
    assert recounted(bundle, "one")[:2] == (False, True)
    assert recounted(bundle, "two")[:2] == (True, True)
