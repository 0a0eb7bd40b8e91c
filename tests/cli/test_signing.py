"""Signatures at the command line: pack --sign, and verify, inspect and serve with --trust."""

from __future__ import annotations

import builtins
import io
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgedl.cli import signing

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "runtime" / "minisign"
ALICE = "C07E2D98E565292D"
BOB = "3828FD2416E0A3C0"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return private_copy("alice.key", tmp_path)


def private_copy(name: str, folder: Path) -> Path:
    path = Path(shutil.copyfile(VECTORS / name, folder / name))
    path.chmod(0o600)
    return path


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """Alice by name, and bob."""
    path = tmp_path / "team.keys"
    alice = (VECTORS / "alice.pub").read_text().splitlines()[1]
    path.write_text(f"untrusted comment: alice\n{alice}\n" + (VECTORS / "bob.pub").read_text())
    return path


@pytest.fixture
def signed(edgedl, scale_bundle, secret, tmp_path) -> Path:
    path = tmp_path / "signed.edge"
    assert edgedl("pack", scale_bundle, "--sign", secret, "-o", path).status == 0
    return path


def test_pack_signs(edgedl, scale_bundle, secret, tmp_path):
    result = edgedl("pack", scale_bundle, "--sign", secret, "-o", tmp_path / "a.edge")
    assert (result.status, result.err) == (0, "")
    assert result.out.endswith(f"kB, signed by the key {ALICE}\n")
    document = edgedl("pack", scale_bundle, "--sign", secret, "-o", tmp_path / "a.edge", "--json").document
    assert document["signed_by"] == ALICE
    assert edgedl("pack", tmp_path / "a.edge", "-o", tmp_path / "b.edge", "--json").document["signed_by"] is None
    assert (tmp_path / "b.edge").read_bytes() == (tmp_path / "a.edge").read_bytes()


def test_inspect_shows_who_signed(edgedl, signed, scale_bundle, team):
    digest = edgedl("inspect", scale_bundle, "--json").document["digest"]
    result = edgedl("inspect", signed)
    assert f"digest {digest}\nmanifest.json.minisig by the key {ALICE}, not checked (--trust KEYS)\n" in result.out
    document = edgedl("inspect", signed, "--json").document
    assert (document["signatures"], document["signer"]) == ([{"file": "manifest.json.minisig", "key": ALICE}], None)
    result = edgedl("inspect", signed, "--trust", team)
    assert f"\nsigned by alice ({ALICE}), manifest.json.minisig: timestamp:" in result.out
    signer = edgedl("inspect", signed, "--trust", team, "--json").document["signer"]
    assert (signer["name"], signer["key"]) == ("alice", ALICE)
    assert f"digest:{digest}" in signer["comment"]
    assert edgedl("inspect", scale_bundle, "--json").document["signatures"] == []


def test_verify_says_who_signed(edgedl, signed, team):
    result = edgedl("verify", signed, "--trust", team)
    assert (result.status, result.err) == (0, "")
    assert f"\nsigned by alice ({ALICE})\n" in result.out
    assert edgedl("verify", signed, "--trust", team, "--json").document["signer"]["name"] == "alice"
    assert "signer" not in edgedl("verify", signed, "--json").document


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, because the server forks."""
    return subprocess.run(
        [sys.executable, "-m", "edgedl", *command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("verb", ["inspect", "verify"])
@pytest.mark.parametrize(
    ("bundle", "keys", "reason"),
    [
        (
            "scale.edge",
            "team.keys",
            f"no trusted key signed it: it has no signature; trusted are: alice ({ALICE}), {BOB}.",
        ),
        ("signed.edge", VECTORS / "bob.pub", f"is by the key {ALICE}, which is not trusted; trusted are: {BOB}."),
        ("signed.edge", "nothing", "nothing: No such file or directory"),
        ("signed.edge", "signed.edge", "line 1 is not a public key of minisign"),
        ("signed.edge", VECTORS / "alice.key", "this is a secret key"),
    ],
    ids=["unsigned", "another key", "no file", "no keys", "secret"],
)
def test_what_no_trusted_key_signed_is_refused(edgedl, verb, signed, team, tmp_path, bundle, keys, reason):
    result = edgedl(verb, tmp_path / bundle, "--trust", tmp_path / keys)
    assert (result.status, result.out) == (2, "")
    assert reason in result.err
    assert len(result.err.splitlines()) == 1


def test_serve_refuses_what_no_trusted_key_signed(scale_bundle, signed, team):
    for bundle, keys, reason in (
        (scale_bundle, team, "no trusted key signed it: it has no signature"),
        (signed, VECTORS / "bob.pub", f"is by the key {ALICE}, which is not trusted"),
        (signed, team.with_name("nothing"), "nothing: No such file or directory"),
    ):
        done = run("serve", bundle, "--port", "0", "--trust", keys)
        assert (done.returncode, done.stdout) == (2, "")
        assert reason in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_serve_takes_what_a_trusted_key_signed(signed, team):
    command = [sys.executable, "-m", "edgedl", "serve", signed, "--port", "0", "--trust", team]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout.readline().startswith("Serving /v1/scale at http://127.0.0.1:")
        finally:
            server.terminate()
    assert server.returncode == 0


def test_the_signature_of_another_bundle_does_not_count(edgedl, signed, wrong_bundle, team):
    with zipfile.ZipFile(signed) as archive:
        archive.extract("manifest.json.minisig", wrong_bundle)
    result = edgedl("verify", wrong_bundle, "--trust", team)
    assert result.status == 2
    assert "it does not fit" in result.err


@pytest.mark.parametrize("typed", [True, False], ids=["terminal", "input"])
def test_a_key_with_a_password(edgedl, monkeypatch, scale_bundle, tmp_path, typed):
    key = private_copy("locked.key", tmp_path)
    monkeypatch.setattr(signing.getpass, "getpass", lambda prompt: "correct horse")
    stdin = io.StringIO("" if typed else "correct horse\nmore\n")
    stdin.isatty = lambda: typed
    monkeypatch.setattr(sys, "stdin", stdin)
    result = edgedl("pack", scale_bundle, "--sign", key, "-o", tmp_path / "a.edge")
    assert (result.status, result.err) == (0, "")
    assert ALICE in result.out


def test_nothing_is_written_where_the_key_does_not_sign(edgedl, monkeypatch, scale_bundle, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    for key, reason in (
        (private_copy("locked.key", tmp_path), "cannot sign: the password is wrong"),
        (private_copy("alice.pub", tmp_path), "this is a public key; the secret one signs"),
        (tmp_path / "nothing", "No such file or directory"),
    ):
        before = key.read_bytes() if key.exists() else None
        result = edgedl("pack", scale_bundle, "--sign", key, "-o", tmp_path / "a.edge")
        assert (result.status, result.out) == (2, "")
        assert reason in result.err
        assert not (tmp_path / "a.edge").exists()
        assert before == (key.read_bytes() if key.exists() else None)


def test_a_key_is_never_overwritten(edgedl, scale_bundle, secret):
    before = secret.read_bytes()
    result = edgedl("pack", scale_bundle, "--sign", secret, "-o", secret)
    assert result.status == 2
    assert "not a bundle that can be read" in result.err
    assert secret.read_bytes() == before


def test_a_key_that_others_can_read_is_warned_of(edgedl, scale_bundle, secret, tmp_path):
    secret.chmod(0o644)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = edgedl("pack", scale_bundle, "--sign", secret, "-o", tmp_path / "a.edge")
    assert result.status == 0
    assert f"warning: {secret} can be read by others; mend it with: chmod 600 {secret}\n" in result.err


def test_without_the_extra(edgedl, monkeypatch, scale_bundle, signed, secret, team, tmp_path):
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "nacl":
            raise ModuleNotFoundError("No module named 'nacl'", name="nacl")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert edgedl("inspect", signed).status == 0
    assert edgedl("verify", signed).status == 0
    for command in (("verify", signed, "--trust", team), ("pack", scale_bundle, "--sign", secret)):
        result = edgedl(*command)
        assert (result.status, result.out) == (2, "")
        assert "PyNaCl is not installed; it is part of an extra: pip install 'edgedl[sign]'" in result.err
