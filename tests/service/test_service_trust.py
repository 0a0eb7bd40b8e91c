"""A service that takes only bundles that a trusted key signed."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.bundle import Bundle, pack
from runtime.errors import BundleError
from runtime.minisign import SecretKey
from runtime.pipelines import load
from runtime.signatures import sign
from service.app import create_app
from tests.bundles import write_scale_bundle

KEY = SecretKey(b"numberof", b"k" * 32)
OTHER = SecretKey(b"another.", b"o" * 32)
TRUST = (KEY.public,)


@pytest.fixture
def unsigned(tmp_path: Path) -> Bundle:
    return write_scale_bundle(tmp_path / "scale.edge")


@pytest.fixture
def signed(unsigned: Bundle, tmp_path: Path) -> Bundle:
    return pack(unsigned, tmp_path / "signed.edge", signatures=sign(unsigned, KEY))


@pytest.mark.parametrize("form", ["path", "bundle", "pipeline"])
def test_whatever_is_served_has_to_be_signed(form, signed, unsigned):
    def source(bundle: Bundle) -> object:
        return {"path": bundle.path, "bundle": bundle, "pipeline": load(bundle)}[form]

    client = create_app([source(signed)], trust=TRUST).test_client()
    assert client.post("/v1/scale", json={"inputs": {"x": [[1, 1, 1]]}}).status_code == 200
    create_app([source(unsigned)])
    with pytest.raises(BundleError, match="no trusted key signed it: it has no signature"):
        create_app([source(unsigned)], trust=TRUST)


def test_one_that_is_not_signed_keeps_all_out(signed, unsigned):
    with pytest.raises(BundleError, match=r"scale\.edge: no trusted key signed it"):
        create_app([signed.path, ("second", unsigned.path)], trust=TRUST)


def test_another_signer_is_refused(signed):
    with pytest.raises(BundleError, match=f"which is not trusted; trusted are: {OTHER.public.name}"):
        create_app([signed.path], trust=(OTHER.public,))


def test_nothing_of_a_bundle_that_is_refused_is_loaded(unsigned, monkeypatch):
    monkeypatch.setattr("service.bundles.opening.pipeline_class", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(BundleError):
        create_app([unsigned.path], trust=TRUST)


def test_a_file_that_no_answer_needs_is_compared_too(signed, unsigned):
    (unsigned.path / "manifest.json.minisig").write_bytes(signed.signatures["manifest.json.minisig"])
    create_app([unsigned.path], trust=TRUST)
    golden = unsigned.path / "scale.golden.npz"
    golden.write_bytes(golden.read_bytes()[:-1] + b"\1")
    with pytest.raises(BundleError, match=r"scale\.golden\.npz has sha256"):
        create_app([unsigned.path], trust=TRUST)
