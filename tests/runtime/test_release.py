"""What a bundle has to be proven on before it is released."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtime.errors import BundleError
from runtime.manifest import Manifest
from runtime.proofs import Proof, read_proofs, write_proofs
from runtime.release import Release, parse_release, unproven
from tests.bundles import write_scale_bundle

PROOF = Proof("0" * 64, "arm64/cortex-a72", "1.32.0", "Cortex-A72", "fp32", ok=True, date="2026-11-29", share=0.4)
CASES = {
    "none": ([], "not proven"),
    "good": ([PROOF], None),
    "of another bundle": ([replace(PROOF, digest="1" * 64)], "not proven"),
    "of another variant": ([replace(PROOF, variant="int8")], "not proven"),
    "of another target": ([replace(PROOF, target="arm64x")], "not proven"),
    "too large": ([replace(PROOF, share=0.6)], "an error takes 0.6 of its tolerance, 0.5 may be"),
    "failed": ([replace(PROOF, ok=False)], "an answer differs"),
    "failed before": ([replace(PROOF, ok=False), PROOF], None),
    "failed on another of them": ([PROOF, replace(PROOF, target="arm64/cortex-a53", ok=False)], "an answer differs"),
}


@pytest.mark.parametrize(("proofs", "reason"), CASES.values(), ids=CASES)
def test_what_stands_in_the_way(proofs, reason):
    found = unproven(Release(("arm64",), 0.5), "0" * 64, ["fp32"], proofs)
    assert found == ({("arm64", "fp32"): reason} if reason else {})


def test_it_stands_in_the_manifest(tmp_path):
    manifest = write_scale_bundle(tmp_path / "scale.edge").manifest
    asked = replace(manifest, release=Release(("arm64", "node"), 0.5))
    assert Manifest.from_json(asked.to_json()) == asked
    assert "release" not in manifest.to_json()
    assert parse_release(Release(("node",)).to_json(), "release") == Release(("node",), 1.0)


@pytest.mark.parametrize("share", [0, 1.5])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(BundleError, match=r"release\.share is .*, expected a share above 0 and at most 1"):
        parse_release({"targets": ["node"], "share": share}, "release")


def test_all_that_a_proof_tells_comes_back():
    proof = replace(
        PROOF, system="Linux", processor_class="arm", emulated=True, cases=3, recorded=4, changed=0, arithmetic=0.5,
        first_s=0.1, p50_ms=1.0, p95_ms=2.0, memory_mb=50.0,
    )  # fmt: skip
    assert read_proofs(write_proofs((proof,))) == (proof,)
