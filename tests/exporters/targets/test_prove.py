"""The proof on a target: what runs there is judged here. The target of these tests is this Python, as a child."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from exporters.targets.base import TargetError
from exporters.targets.child import BOOT
from exporters.targets.known import find_target
from exporters.targets.process import ProcessTarget
from exporters.targets.prove import prove
from runtime.bundle import Bundle, record_proof
from runtime.processor import processor_class
from runtime.verify import verify
from tests.bundles import SCALE, write_scale_bundle


class HereTarget(ProcessTarget):
    """This Python; `code` runs before its program."""

    def __init__(self, code: str = "", variables: Mapping[str, str] | None = None) -> None:
        super().__init__("here")
        self._code = code
        self._variables = variables

    def command(self) -> Sequence[str]:
        return [sys.executable, "-P", "-c", self._code + BOOT]

    def environment(self) -> Mapping[str, str] | None:
        return self._variables


@pytest.fixture(scope="module")
def here():
    with HereTarget() as target:
        yield target


def test_the_same_rows_as_verify(here: HereTarget, tmp_path: Path):
    bundle = write_scale_bundle(tmp_path / "scale.edge")
    report = prove(bundle, here)
    assert report.checks == verify(bundle, threads=1).checks
    (proof,) = report.proofs
    assert (proof.target, proof.variant, proof.ok, proof.cases, proof.recorded) == ("here", "fp32", True, 4, 4)
    assert (proof.processor_class, proof.changed, proof.emulated) == (processor_class(), 0, False)
    assert proof.first_s > 0
    assert proof.p50_ms <= proof.p95_ms
    assert proof.memory_mb > 10


def test_wrong_answers_fail_and_the_proof_says_so(here: HereTarget, tmp_path: Path):
    bundle = write_scale_bundle(tmp_path / "scale.edge", SCALE * np.float32(1.001))
    report = prove(bundle, here)
    assert not report
    assert [proof.ok for proof in report.proofs] == [False]
    assert report.proofs[0].share > 1


def test_a_proof_takes_the_place_of_the_one_before(here: HereTarget, tmp_path: Path):
    bundle = write_scale_bundle(tmp_path / "scale.edge")
    older = len(bundle.proofs)
    for _ in range(2):
        record_proof(bundle.path, *prove(bundle, here).proofs)
    assert len(Bundle.open(bundle.path).proofs) == older + 1
    assert Bundle.open(bundle.path).digest == bundle.digest


def test_a_graph_that_ends_the_process_is_an_answer(tmp_path: Path):
    """As on a processor that lacks an instruction: no other graph is hurt, and the verdict is no."""
    code = "import os, onnxruntime; onnxruntime.InferenceSession.run = lambda *_: os._exit(4)\n"
    with HereTarget(code) as target:
        target._machine = replace_saturation(target)
        report = prove(write_scale_bundle(tmp_path / "scale.edge"), target)
        assert not report
        assert "the process there ended: status 4" in report.checks[0].note
        assert target.machine().system.startswith("Linux")


def replace_saturation(target: HereTarget):
    """The machine without asking the graph that tells the class of the processor."""
    target._saturates = lambda: False  # type: ignore[method-assign]
    return target.machine()


def test_what_a_library_prints_disturbs_no_answer(tmp_path: Path):
    code = (
        "import onnxruntime as o\nrun = o.InferenceSession.run\n"
        "o.InferenceSession.run = lambda *a: (print('hello', flush=True), run(*a))[1]\n"
    )
    with HereTarget(code) as target:
        assert prove(write_scale_bundle(tmp_path / "scale.edge"), target)


@pytest.mark.parametrize("package", ["numpy", "onnxruntime"])
def test_what_is_missing_is_named(package: str):
    code = f"import sys; sys.modules[{package!r}] = None\n"
    with pytest.raises(TargetError, match=f"here: ModuleNotFoundError: .*{package}"):
        HereTarget(code).open()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("sparc", "there is no target 'sparc'; there is onnxruntime==X"),
        ("onnxruntime==latest", "'latest' is no version of ONNX Runtime"),
    ],
)
def test_an_unknown_target_is_named(name: str, sentence: str):
    with pytest.raises(TargetError, match=sentence):
        find_target(name)
