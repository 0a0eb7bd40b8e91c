"""A model that was proven in one bundle goes into another with its proof."""

from __future__ import annotations

import dataclasses

import pytest

from exporters.assemble import assemble, reuse
from runtime.bundle import Bundle
from runtime.errors import BundleError
from runtime.verify import verify
from tests.bundles import write_scale_bundle


def test_a_reused_model_keeps_its_graph_and_its_proof(age_bundle, tmp_path):
    first = Bundle.open(age_bundle)
    again = assemble(tmp_path / "faces.edge", name="faces", task="faces", models={"faces": reuse(first, "faces")})
    old, new = first.model("faces"), again.model("faces")
    assert (new.inputs, new.outputs, new.parity) == (old.inputs, old.outputs, old.parity)
    assert [case.name for case in again.golden("faces")] == [case.name for case in first.golden("faces")]
    assert again.read(new.trace.file) == first.read(old.trace.file)
    assert verify(again)


def test_a_model_without_a_proof_is_not_reused(tmp_path):
    bundle = write_scale_bundle(tmp_path / "scale.edge")
    (name,) = bundle.manifest.models
    spec = dataclasses.replace(bundle.model(name), trace=None)
    bare = dataclasses.replace(bundle.manifest, models={name: spec})
    stripped = Bundle.open(bundle.path)
    object.__setattr__(stripped, "manifest", bare)
    with pytest.raises(BundleError, match="no recorded proof"):
        reuse(stripped, name)
