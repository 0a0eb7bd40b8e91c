"""One recorded case at a time: the judge of `verify`, before a bundle is used and while it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgedl
from runtime.bundle import Bundle, pack, record_proof
from runtime.door import Door, prove_case, proven_json
from runtime.errors import BundleError, CheckFailedError
from runtime.machine import installed, processor_name
from runtime.pipelines import load
from runtime.pipelines.base import Pipeline
from runtime.proofs import Proof
from runtime.verify import verify
from tests.bundles import SCALE, write_scale_bundle, write_sums_bundle

ROUNDED = np.array([2.1, -0.7, 0.3], np.float32)
"""Products with these are rounded in float32, other than those with powers of two."""


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_scale_bundle(tmp_path / "scale.edge", ROUNDED, recorded=ROUNDED.astype(np.float64))


@pytest.fixture
def pipeline(bundle: Bundle) -> Iterator[Pipeline]:
    with load(bundle, threads=1) as opened:
        yield opened


def door(pipeline: Pipeline) -> Door:
    return Door(pipeline.bundle, pipeline.engines, pipeline.variant)


def test_a_case_is_judged_as_verify_judges_it(bundle: Bundle, pipeline: Pipeline) -> None:
    """The worst of the cases, asked one by one, is the row of `verify`."""
    checks = [prove_case(pipeline.engines["scale"], case)[0] for case in bundle.golden("scale")]
    (row,) = verify(bundle, threads=1).checks
    assert row.max_abs == max(check.max_abs for check in checks) > 0
    assert row.share == max(check.share for check in checks)
    assert all(check.allowed == 1e-5 and check.model == "scale" and check.variant == "fp32" for check in checks)


def test_a_right_bundle_passes_and_a_wrong_one_is_not_loaded(tmp_path: Path) -> None:
    """The hashes of the wrong one are right: its weights were changed and the manifest with them."""
    right = write_scale_bundle(tmp_path / "right.edge").path
    wrong = write_scale_bundle(tmp_path / "wrong.edge", SCALE * np.float32(1.01)).path
    with edgedl.load(right, threads=1, check=True) as pipeline:
        assert pipeline.bundle.manifest.name == "scale"
    edgedl.load(wrong, threads=1).close()
    with pytest.raises(CheckFailedError, match=r"model scale, output y: error 4\.08e-02, allowed 1\.00e-05 \(case"):
        edgedl.load(wrong, threads=1, check=True)


def test_an_engine_that_refuses_a_recorded_case_is_not_right(pipeline: Pipeline) -> None:
    opened = door(pipeline)
    pipeline.close()
    with pytest.raises(CheckFailedError, match="output y: engine 'scale' is closed"):
        opened.first()


def test_what_was_proven_grows_case_by_case(pipeline: Pipeline) -> None:
    opened = door(pipeline)
    assert str(opened.proven) == "0 of 4 recorded cases"
    opened.first()
    opened.first()
    assert (opened.proven.cases, opened.proven.recorded) == (1, 4)
    assert [opened.proven.cases for _ in opened.rest()] == [2, 3, 4]
    assert opened.proven.share == verify(pipeline.bundle, threads=1).checks[0].share
    assert str(opened.proven).startswith("4 of 4 recorded cases, at most 0.0")
    assert list(opened.rest()) == []


def test_a_later_case_that_differs_is_found(tmp_path: Path) -> None:
    with load(write_scale_bundle(tmp_path / "spoilt.edge", spoilt=2), threads=1) as pipeline:
        opened = door(pipeline)
        opened.first()
        with pytest.raises(CheckFailedError, match=r"error 1\.00e\+00, allowed 1\.00e-05 \(case 'batch 7'"):
            list(opened.rest())
        assert opened.proven.cases == 2


def test_files_that_were_replaced_are_no_wrong_answer(tmp_path: Path, pipeline: Pipeline) -> None:
    opened = door(pipeline)
    opened.first()
    write_scale_bundle(pipeline.bundle.path, SCALE * 2, recorded=SCALE * 2)
    with pytest.raises(BundleError, match=r"scale\.golden\.npz"):
        list(opened.rest())


def test_a_bundle_without_recorded_cases_is_not_proven(tmp_path: Path) -> None:
    with load(write_sums_bundle(tmp_path / "sums.edge"), threads=1, check=True) as pipeline:
        opened = door(pipeline)
        opened.first()
        opened.judge_rows()
        assert list(opened.rest()) == []
        assert str(opened.proven) == "nothing recorded"
        assert (opened.proven.recorded, opened.proven.share, opened.stackable) == (0, None, {"sums": False})


def test_a_variant_that_declares_its_error_is_not_held_to_the_recorded_answers(pipeline: Pipeline) -> None:
    """As `verify` leaves it out unless it is asked for."""
    engine = pipeline.engines["scale"]
    form = engine.spec.variants["fp32"]
    engine.spec = replace(engine.spec, variants={"fp32": replace(form, error={"metric": "MAE", "value": 0.1})})
    assert str(door(pipeline).proven) == "nothing recorded"


HERE: dict[str, Any] = {"onnxruntime": installed("onnxruntime"), "processor": processor_name()}


@pytest.mark.parametrize(
    ("proofs", "last", "differs"),
    [
        ([], "arm64/cortex-a72", ("onnxruntime", "processor")),
        ([HERE], "here", ()),
        ([HERE, {"processor": "Cortex-A53"}], "here", ()),
        ([HERE | {"processor": "Cortex-A53"}], "here", ("processor",)),
        ([HERE | {"ok": False}], "arm64/cortex-a72", ("onnxruntime", "processor")),
    ],
    ids=["another machine", "this machine", "this machine before", "another processor", "a proof that failed"],
)
def test_the_last_proof_is_compared_with_this_machine(
    bundle: Bundle, proofs: list[dict[str, Any]], last: str, differs: tuple[str, ...]
) -> None:
    """The bundle has one of a Cortex-A72 with ONNX Runtime 1.32.0 already."""
    made = Proof(bundle.digest, "here", "1.0.0", "none", "fp32", ok=True, date="2026-11-29")
    for values in proofs:
        record_proof(bundle.path, replace(made, **values))
    with load(bundle.path, threads=1) as pipeline:
        told = proven_json(door(pipeline).proven)
    assert told["last_proof"]["target"] == last
    if last != "here":  # whether its ONNX Runtime is this one's depends on what is installed
        assert "processor" in told["differs"]
    else:
        assert told["differs"] == differs


def test_a_damaged_proof_is_no_proof(bundle: Bundle) -> None:
    (bundle.path / "proofs.json").write_text("{")
    with load(bundle.path, threads=1) as pipeline:
        assert proven_json(door(pipeline).proven)["last_proof"] is None


def test_a_packed_bundle_is_replayed_too(bundle: Bundle, tmp_path: Path) -> None:
    with load(pack(bundle, tmp_path / "packed.edge"), threads=1) as pipeline:
        opened = door(pipeline)
        opened.first()
        assert [opened.proven.cases for _ in opened.rest()] == [2, 3, 4]
