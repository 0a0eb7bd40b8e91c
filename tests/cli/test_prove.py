"""`edgedl prove` at the command line, with targets that are child processes with this Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exporters.targets import known
from exporters.targets.base import Target, TargetError
from runtime.bundle import Bundle, pack
from tests.bundles import SCALE, write_scale_bundle
from tests.cli.conftest import Result
from tests.exporters.targets.test_prove import HereTarget


class Absent(HereTarget):
    def open(self) -> None:
        raise TargetError("absent: nothing is there; on Debian: apt-get install it")


@pytest.fixture(autouse=True)
def targets(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str, **_: object) -> Target:
        target = Absent() if name == "absent" else HereTarget()
        target.name = name
        return target

    monkeypatch.setattr(known, "find_target", find)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_scale_bundle(tmp_path / "scale.edge").path


def test_the_same_answers(edgedl: Callable[..., Result], bundle: Path):
    before = Bundle.open(bundle)
    result = edgedl("prove", bundle, "--target", "one")
    assert result.status == 0
    assert "the same answers; 1 proof is in proofs.json" in result.out
    after = Bundle.open(bundle)
    assert after.digest == before.digest
    assert [proof.target for proof in after.proofs] == ["arm64/cortex-a72", "one"]
    shown = edgedl("inspect", bundle).out
    assert "proven on" in shown
    assert "0 changed" in shown


def test_a_packed_bundle_keeps_its_proofs(edgedl: Callable[..., Result], bundle: Path, tmp_path: Path):
    packed = pack(Bundle.open(bundle), tmp_path / "packed.edge").path
    assert edgedl("prove", packed, "--target", "one", "--target", "two").status == 0
    assert [proof.target for proof in Bundle.open(packed).proofs][1:] == ["one", "two"]


def test_other_answers_end_with_1_and_are_documented(edgedl: Callable[..., Result], tmp_path: Path):
    wrong = write_scale_bundle(tmp_path / "wrong.edge", SCALE * np.float32(1.01)).path
    result = edgedl("prove", wrong, "--target", "one", "--json")
    document = result.document
    assert (result.status, document["ok"]) == (1, False)
    (target,) = document["targets"]
    assert target["explanations"] == [f"scale fp32: {wrong}: model 'scale' has no trace; export it again to be able to "
                                      "explain it"]  # fmt: skip
    assert [proof["ok"] for proof in document["proofs"]] == [False]


def test_a_target_that_is_not_there_is_one_sentence(edgedl: Callable[..., Result], bundle: Path):
    result = edgedl("prove", bundle, "--target", "absent")
    assert (result.status, result.out) == (2, "")
    assert "absent: nothing is there; on Debian: apt-get install it" in result.err


def test_the_others_are_proven_all_the_same(edgedl: Callable[..., Result], bundle: Path):
    result = edgedl("prove", bundle, "--target", "one", "--target", "absent", "--json")
    assert result.status == 2
    assert [target["ok"] for target in result.document["targets"]] == [True, False]
    assert Bundle.open(bundle).proofs[-1].target == "one"


def demanding(bundle: Path, targets: list[str], share: float = 1.0) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["release"] = {"targets": targets, "share": share}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_all_are_those_that_the_manifest_asks_for(edgedl: Callable[..., Result], bundle: Path):
    demanding(bundle, ["one", "two"])
    assert "it may not be released: one fp32: not proven; two fp32: not proven" in edgedl("inspect", bundle).out
    result = edgedl("prove", bundle, "--all", "--json")
    assert result.status == 0
    assert result.document["release"] == {"ok": True, "targets": ["one", "two"], "share": 1.0, "missing": []}
    assert "it may be released" in edgedl("inspect", bundle).out


def test_an_error_above_the_share_is_not_released(edgedl: Callable[..., Result], tmp_path: Path):
    bundle = write_scale_bundle(tmp_path / "off.edge", SCALE * np.float32(1 + 3e-7)).path
    demanding(bundle, ["one"], share=1e-6)
    result = edgedl("prove", bundle, "--all")
    assert result.status == 1
    assert "it may not be released: one fp32: an error takes" in result.out


def test_a_target_has_to_be_named(edgedl: Callable[..., Result], bundle: Path):
    result = edgedl("prove", bundle)
    assert result.status == 2
    assert "say where: --target T, or --all" in result.err
