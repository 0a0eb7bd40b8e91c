"""The files of minisign, against what the program itself wrote and signed."""

from __future__ import annotations

import base64
import builtins
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import MissingExtraError
from runtime.minisign import PublicKey, SecretKey, Signature, key_id

VECTORS = Path(__file__).parent / "minisign"
MESSAGE = b'{"some": "message"}\n'


def content(name: str) -> bytes:
    return (VECTORS / name).read_bytes()


def never() -> str:
    raise AssertionError("the key has no password")


def secret(name: str = "alice.key", password: str | None = None) -> SecretKey:
    return SecretKey.from_bytes(content(name), never if password is None else lambda: password)


def public(name: str) -> PublicKey:
    return PublicKey.from_base64(content(name).splitlines()[1])


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the vectors are signatures of."""
    from tests.frozen_bundles import unpack

    return unpack("sgd", tmp_path_factory.mktemp("sgd")).read("manifest.json")


@pytest.mark.parametrize(
    ("file", "signer", "comment"),
    [
        ("hashed.minisig", "alice.pub", "timestamp:1795922366\tfile:manifest.json\thashed"),
        ("pure.minisig", "alice.pub", "timestamp:1795922366\tfile:manifest.json"),
        ("bob.minisig", "bob.pub", "größer"),
    ],
)
def test_what_minisign_signed_is_verified(manifest, file, signer, comment):
    signature = Signature.from_bytes(content(file))
    assert signature.comment.decode() == comment
    for key in ("alice.pub", "bob.pub"):
        assert public(key).verifies(signature, manifest) is (key == signer)
    assert not public(signer).verifies(signature, manifest + b" ")


def test_the_name_of_a_key_is_the_one_that_minisign_shows():
    comment = content("alice.pub").splitlines()[0].decode()
    assert comment == f"untrusted comment: minisign public key {public('alice.pub').name}"
    assert key_id(secret().number) == public("alice.pub").name


def test_the_same_bytes_as_minisign_writes(manifest):
    expected = content("exact.minisig")
    lines = expected.decode().splitlines()
    comments = [lines[0].removeprefix("untrusted comment: "), lines[2].removeprefix("trusted comment: ")]
    assert secret().sign(manifest, *comments) == expected
    assert secret("locked.key", "correct horse").sign(manifest, *comments) == expected


def test_a_secret_key_gives_its_public_one():
    assert secret().public == public("alice.pub") == secret("locked.key", "correct horse").public
    assert secret().seed.hex() not in repr(secret())
    assert "seed" not in repr(secret())


@pytest.mark.parametrize("password", ["", "Correct horse", "größer"])
def test_a_wrong_password(password):
    with pytest.raises(ValueError, match="the password is wrong"):
        secret("locked.key", password)


def signed() -> bytes:
    return secret().sign(MESSAGE, "comment", "trusted comment")


def test_a_changed_byte_anywhere_breaks_a_signature():
    """All but the untrusted comment, which nothing covers and nobody is shown."""
    whole, key = signed(), secret().public
    assert key.verifies(Signature.from_bytes(whole), MESSAGE)
    for place in range(whole.index(b"\n") + 1, len(whole) - 1):
        for mask in (1, 2, 32, 128):
            data = bytearray(whole)
            data[place] ^= mask
            try:
                signature = Signature.from_bytes(bytes(data))
            except ValueError:
                continue
            assert not key.verifies(signature, MESSAGE), (place, mask)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400) | st.text(max_size=300).map(str.encode))
def test_nonsense_is_a_value_error(data):
    for read in (Signature.from_bytes, PublicKey.from_base64, lambda data: SecretKey.from_bytes(data, never)):
        with pytest.raises(ValueError):  # noqa: PT011 - its kind is the point
            read(data)


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 10**4), mask=st.integers(1, 255))
def test_a_damaged_secret_key_is_refused_or_signs_as_before(place, mask):
    data = bytearray(content("alice.key"))
    data[place % len(data)] ^= mask
    try:
        key = SecretKey.from_bytes(bytes(data), lambda: "")
    except ValueError:
        return
    assert key.seed == secret().seed  # the untrusted comment, the number, or what only a password uses


def in_base64(data: bytes) -> bytes:
    return base64.b64encode(data)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "a public key has 42 bytes, found 0"),
        (b"RW", "not base64|found 1"),
        (content("alice.key").splitlines()[1], "this is a secret key"),
        (in_base64(b"XX" + bytes(40)), "the algorithm b'XX' is not known"),
        (content("hashed.minisig").splitlines()[1], "has 42 bytes, found 74"),
    ],
    ids=["empty", "cut", "secret", "algorithm", "signature"],
)
def test_what_is_no_public_key(line, reason):
    with pytest.raises(ValueError, match=reason):
        PublicKey.from_base64(line)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (content("alice.pub"), "this is a public key; the secret one signs"),
        (content("hashed.minisig"), "two lines"),
        (
            b"untrusted comment: x\n" + in_base64(b"EdScB2" + bytes(32) + b"\xff" * 8 + b"\xff" * 8 + bytes(104)),
            "memory",
        ),
        (b"untrusted comment: x\n" + in_base64(b"EdXXB2" + bytes(152)), "algorithms b'Ed' and b'XX'"),
        (b"untrusted comment: x\n" + in_base64(b"Ed\0\0B2" + bytes(152)), "two halves do not belong together"),
    ],
    ids=["public", "signature", "memory", "algorithm", "zeros"],
)
def test_what_is_no_secret_key(data, reason):
    with pytest.raises(ValueError, match=reason):
        SecretKey.from_bytes(data, lambda: "")


def test_without_pynacl(monkeypatch):
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "nacl":
            raise ModuleNotFoundError("No module named 'nacl'", name="nacl")
        return real(name, *args, **kwargs)

    signature, key = Signature.from_bytes(content("hashed.minisig")), public("alice.pub")
    monkeypatch.setattr(builtins, "__import__", refuse)
    for ask in (lambda: key.verifies(signature, MESSAGE), secret):
        with pytest.raises(MissingExtraError, match=r"PyNaCl is not installed.*edgedl\[sign\]"):
            ask()


@pytest.mark.skipif(shutil.which("minisign") is None, reason="needs the program minisign")
def test_the_program_itself_verifies_what_we_sign_and_we_what_it_signs(tmp_path):
    def minisign(*arguments: str) -> None:
        subprocess.run(["minisign", *arguments], cwd=tmp_path, check=True, capture_output=True, timeout=60)

    minisign("-G", "-W", "-p", "key.pub", "-s", "key.key")
    (tmp_path / "message").write_bytes(MESSAGE)
    key = SecretKey.from_bytes((tmp_path / "key.key").read_bytes(), never)
    (tmp_path / "message.minisig").write_bytes(key.sign(MESSAGE, "ours", "größer\tthan"))
    minisign("-Vm", "message", "-p", "key.pub")
    minisign("-Vm", "message", "-P", (tmp_path / "key.pub").read_text().splitlines()[1])
    for option in ("-H", "-l"):
        minisign("-Sm", "message", "-s", "key.key", option)
        assert key.public.verifies(Signature.from_bytes((tmp_path / "message.minisig").read_bytes()), MESSAGE)
