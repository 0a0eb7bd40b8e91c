"""Who signed a bundle, and whether that is somebody you trust.

What is signed is ``manifest.json``, byte for byte. Its sha256 is the bundle's digest, and it names the sha256 of every
other file, so a signature stands for the whole bundle. Proofs lie outside of it. A signature is a file of minisign's
(see `runtime.minisign`) beside the manifest: ``manifest.json.minisig``, or ``manifest.json.KEY.minisig`` of a further
signer. Anyone can check it by hand: ``minisign -Vm manifest.json -p signer.pub``.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import BundleError, InputError
from runtime.minisign import COMMENT, PublicKey, SecretKey, Signature, key_id
from runtime.sources import MANIFEST, SIGNATURE_SUFFIX

if TYPE_CHECKING:
    from runtime.bundle import Bundle

_KEY_FILE_BYTES = 1 << 20
_DEFAULT_NAME = "minisign public key"
_HINT = "edgedl bundle; check with: minisign -Vm manifest.json -p KEY.pub"


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed a bundle.

    Attributes:
        name: As the file of trusted keys has it.
        key: The id of the key, as minisign shows it.
        file: The signature in the bundle.
        comment: What the signer said, covered by the signature.
    """

    name: str
    key: str
    file: str
    comment: str

    def __str__(self) -> str:
        return self.key if self.name == self.key else f"{self.name} ({self.key})"


@dataclass(frozen=True, slots=True)
class Claim:
    """A signature that lies in a bundle, not checked.

    Attributes:
        file: Its name.
        key: The id of the key that it claims to be from; None if the file cannot be read.
    """

    file: str
    key: str | None


def check(bundle: Bundle, keys: Sequence[PublicKey]) -> Signer:
    """Requires that a trusted key signed a bundle and that every file of it is as it was signed.

    What is read from this object afterwards is compared with what was signed. A bundle that is opened again has to be
    checked again.

    Args:
        bundle: an opened bundle, of either form.
        keys: those that are trusted, see `read_keys`. One signature by one of them is enough.

    Raises:
        BundleError: no trusted key signed it, or a file differs.
        MissingExtraError: PyNaCl is not installed.
    """
    manifest = bundle.read(MANIFEST)
    found: list[str] = []
    for file, data in bundle.signatures.items():
        try:
            signature = Signature.from_bytes(data)
        except ValueError as error:
            found.append(f"{file} is not a signature ({error})")
            continue
        claimed = [key for key in keys if key.number == signature.number]
        for key in claimed:
            if key.verifies(signature, manifest):
                bundle.check()
                return Signer(key.name, key_id(key.number), file, signature.comment.decode(errors="replace"))
        if claimed:
            who = _named(claimed[0])
            found.append(
                f"{file} claims to be by {who}, but it does not fit: it, or the bundle, was changed or replaced"
            )
        else:
            found.append(f"{file} is by the key {key_id(signature.number)}, which is not trusted")
    told = "; ".join(found[:5]) or "it has no signature"
    trusted = ", ".join(_named(key) for key in keys[:5]) + (" …" if len(keys) > 5 else "")
    raise BundleError(
        f"{bundle.path}: no trusted key signed it: {told}; trusted are: {trusted or 'none'}. "
        "Get a signed copy, or let one of them sign it: edgedl pack B --sign KEY"
    )


def claims(bundle: Bundle) -> tuple[Claim, ...]:
    """The signatures in a bundle and the keys that they claim to be from. Nothing of it is checked."""
    found = []
    for file, data in bundle.signatures.items():
        try:
            found.append(Claim(file, key_id(Signature.from_bytes(data).number)))
        except ValueError:
            found.append(Claim(file, None))
    return tuple(found)


def sign(bundle: Bundle, key: SecretKey) -> dict[str, bytes]:
    """Signs a bundle.

    Returns:
        The name of the signature's file and its content, for `runtime.bundle.pack`. An older signature by the same key
        has that name, too.

    Raises:
        MissingExtraError: PyNaCl is not installed.
    """
    signer = key_id(key.number)
    own = [claim.file for claim in claims(bundle) if claim.key == signer]
    first = MANIFEST + SIGNATURE_SUFFIX
    name = own[0] if own else f"{MANIFEST}.{signer}{SIGNATURE_SUFFIX}" if first in bundle.signatures else first
    # The beginning is what minisign itself says.
    comment = f"timestamp:{int(time.time())}\tfile:{MANIFEST}\thashed\tdigest:{bundle.digest}"
    return {name: key.sign(bundle.read(MANIFEST), _HINT, comment)}


def read_keys(path: str | os.PathLike[str]) -> tuple[PublicKey, ...]:
    """Reads a file of trusted keys: public keys of minisign, one after the other.

    A line ``untrusted comment: NAME`` gives the name of the key in the next line. Empty lines and those that begin
    with ``#`` are passed over, and a name may be missing. Warns if others may change the file.

    Raises:
        InputError: it cannot be read, holds something else or no key.
    """
    keys: dict[tuple[bytes, bytes], PublicKey] = {}
    name = ""
    for number, line in enumerate(_read_key_file(path, 0o022, "changed by others", "go-w").splitlines(), 1):
        line = line.strip()
        if line.startswith(COMMENT):
            said = line.removeprefix(COMMENT).decode(errors="replace").strip()
            name = "" if said.startswith(_DEFAULT_NAME) else said
        elif line and not line.startswith(b"#"):
            try:
                key = PublicKey.from_base64(line, name)
            except ValueError as error:
                raise InputError(f"{path}, line {number} is not a public key of minisign: {error}") from error
            keys.setdefault((key.number, key.key), key)
            name = ""
    if not keys:
        raise InputError(f"{path} holds no public key; it takes the .pub files that minisign -G writes, joined")
    return tuple(keys.values())


def read_secret_key(path: str | os.PathLike[str], ask_password: Callable[[], str]) -> SecretKey:
    """Reads a secret key of minisign. Warns if others may read it.

    Args:
        path: the file that ``minisign -G`` wrote.
        ask_password: called only if the key has a password.

    Raises:
        InputError: it cannot be read, is none, or the password is wrong.
        MissingExtraError: PyNaCl is not installed.
    """
    data = _read_key_file(path, 0o077, "read by others", "600")
    try:
        return SecretKey.from_bytes(data, ask_password)
    except ValueError as error:
        raise InputError(f"{path} cannot sign: {error}") from error


def _named(key: PublicKey) -> str:
    number = key_id(key.number)
    return number if key.name == number else f"{key.name} ({number})"


def _read_key_file(path: str | os.PathLike[str], forbidden: int, danger: str, mode: str) -> bytes:
    try:
        with Path(path).open("rb") as stream:
            found = os.fstat(stream.fileno()).st_mode
            data = stream.read(_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    if len(data) > _KEY_FILE_BYTES:
        raise InputError(f"{path} has more than {_KEY_FILE_BYTES} bytes, so it is not a file of keys")
    if os.name == "posix" and found & forbidden:
        warnings.warn(f"{path} can be {danger}; mend it with: chmod {mode} {path}", UserWarning, stacklevel=3)
    return data
