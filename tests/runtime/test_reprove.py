"""A bundle that was proven elsewhere says so here, and is proven here where that is asked for."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgedl
from runtime.bundle import Bundle, pack, record_proof
from runtime.devices import onnxruntime
from runtime.doctor import diagnose
from runtime.door import Door
from runtime.errors import BundleError, CheckFailedError
from runtime.machine import processor_name
from runtime.pipelines import load
from runtime.place import Place, last_proof, told_unproven
from runtime.processor import processor_class
from runtime.proofs import HERE, Proof
from runtime.reprove import reprove
from tests.bundles import SCALE, write_scale_bundle, write_sums_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """It comes with a proof that was made with ONNX Runtime 1.32.0 on a Cortex-A72."""
    return write_scale_bundle(tmp_path / "scale.edge")


def proof_here(bundle: Bundle, **changed: object) -> Proof:
    release = str(onnxruntime().__version__)
    made = Proof(bundle.digest, "elsewhere", release, processor_name(), "fp32", True, "2026-11-29")
    made = replace(made, processor_class=processor_class())
    return replace(made, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ({}, ()),
        ({"processor": "another board of the same class"}, ()),
        ({"processor_class": "another"}, ("processor",)),
        ({"processor_class": None}, ()),
        ({"processor_class": None, "processor": "Cortex-A53"}, ("processor",)),
        ({"onnxruntime": "1.17.3"}, ("onnxruntime",)),
        ({"onnxruntime": "1.17.3", "processor_class": "another"}, ("onnxruntime", "processor")),
    ],
    ids=["same", "another name", "class", "no class, same name", "no class", "version", "both"],
)
def test_a_proof_speaks_of_a_version_and_a_class_of_processor(bundle, changed, differs):
    assert Place.here().differs(proof_here(bundle, **changed)) == differs


def test_one_proof_that_speaks_of_here_is_enough(bundle):
    record_proof(bundle.path, proof_here(bundle))
    known = record_proof(bundle.path, proof_here(bundle, onnxruntime="1.99.0", date="2027-01-01"))
    last = last_proof(known, Place.here(), "fp32")
    assert last is not None
    assert last.target == "elsewhere"
    assert told_unproven(known, Place.here(), last) is None


@pytest.mark.parametrize(
    "changed", [{"ok": False}, {"variant": "int8"}], ids=["a failed proof", "a proof of another variant"]
)
def test_other_proofs_say_nothing(bundle, changed):
    known = record_proof(bundle.path, proof_here(bundle, **changed))
    told = told_unproven(known, Place.here(), last_proof(known, Place.here(), "fp32"))
    assert told is not None
    assert "arm64/cortex-a72" in told
    assert f"edgedl doctor {bundle.path} --reprove" in told


@pytest.mark.parametrize("check", [False, True], ids=["load", "load and check"])
def test_load_says_that_the_proofs_are_of_other_places(bundle, check, caplog):
    with load(bundle.path, check=check):
        pass
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert processor_class() in record.getMessage()


def test_load_says_nothing_where_it_was_proven(bundle, caplog):
    record_proof(bundle.path, proof_here(bundle))
    with load(bundle.path):
        pass
    assert not caplog.records


def test_load_says_nothing_of_a_bundle_without_proofs(bundle, caplog):
    (bundle.path / "proofs.json").unlink()
    with load(bundle.path):
        pass
    assert not caplog.records


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "file"])
def test_load_proves_it_here_once(bundle, packed, tmp_path, caplog):
    path = pack(bundle, tmp_path / "packed.edge").path if packed else bundle.path
    with edgedl.load(path, reprove=True) as pipeline:
        assert pipeline.predict({"x": np.ones((1, 3), np.float32)})["outputs"]["y"] == [SCALE.tolist()]
    known = Bundle.open(path)
    made = known.proofs[-1]
    assert (made.target, made.ok, made.cases, made.recorded) == (HERE, True, 4, 4)
    assert Place.here().differs(made) == ()
    assert 0 <= made.share < 1
    assert known.digest == bundle.digest
    with edgedl.load(path, reprove=True):
        pass
    assert Bundle.open(path).proofs == known.proofs
    assert not caplog.records


def test_what_answers_otherwise_is_not_proven(tmp_path):
    wrong = write_scale_bundle(tmp_path / "wrong.edge", spoilt=3)
    before = wrong.proofs
    with pytest.raises(CheckFailedError), edgedl.load(wrong.path, reprove=True):
        pass
    assert Bundle.open(wrong.path).proofs == before


def test_a_door_has_no_proof_until_every_case_is_done(bundle):
    with load(bundle.path) as pipeline:
        door = Door(pipeline.bundle, pipeline.engines)
        door.first()
        assert door.proof() is None
        assert reprove(door, pipeline.bundle).cases == 4


def test_a_bundle_without_recorded_cases_cannot_be_proven(tmp_path):
    plain = write_sums_bundle(tmp_path / "sums.edge")
    with load(plain.path) as pipeline, pytest.raises(BundleError, match="nothing recorded"):
        reprove(Door(pipeline.bundle, pipeline.engines), pipeline.bundle)


def test_doctor_tells_of_each_bundle(bundle, tmp_path):
    bare = write_scale_bundle(tmp_path / "bare.edge", name="bare")
    (bare.path / "proofs.json").unlink()
    report = diagnose(start_providers=list, bundles=[bundle.path, bare.path])
    rows = {check.name: check for check in report.checks}
    assert not report
    assert (rows["bundle scale"].ok, rows["bundle bare"].ok) == (False, True)
    assert "--reprove" in rows["bundle scale"].advice
    assert "--reprove" in rows["bundle bare"].advice


def test_doctor_proves_a_bundle_here(bundle):
    rows = {check.name: check for check in diagnose(start_providers=list, bundles=[bundle.path], reprove=True).checks}
    assert rows["bundle scale"].ok
    assert "4 recorded cases" in rows["bundle scale"].found
    after = {check.name: check for check in diagnose(start_providers=list, bundles=[bundle.path]).checks}
    assert after["bundle scale"].ok


def test_doctor_says_which_answer_differs(tmp_path):
    wrong = write_scale_bundle(tmp_path / "wrong.edge", SCALE * 2)
    rows = {check.name: check for check in diagnose(start_providers=list, bundles=[wrong.path], reprove=True).checks}
    assert not rows["bundle scale"].ok
    assert "output y" in rows["bundle scale"].found
