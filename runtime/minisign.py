"""The files of minisign: public keys, secret keys and signatures.

They are described at https://jedisct1.github.io/minisign/. A signature is Ed25519 (RFC 8032) of the BLAKE2b-512 of a
message. A second one covers the first and the trusted comment. The program ``minisign`` reads what this module writes,
and the other way round. The cryptography is that of libsodium, through PyNaCl (the extra ``sign``), which is imported
where it is needed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from runtime.errors import MissingExtraError

if TYPE_CHECKING:
    from nacl.signing import SigningKey

COMMENT = b"untrusted comment: "
TRUSTED_COMMENT = b"trusted comment: "

_PURE, _HASHED = b"Ed", b"ED"  # what is signed: the message, or its BLAKE2b-512
_SCRYPT, _NO_PASSWORD = b"Sc", b"\0\0"
_PUBLIC = struct.Struct("<2s8s32s")  # algorithm, number of the key, public key
_SIGNATURE = struct.Struct("<2s8s64s")  # algorithm, number of the key, signature
_SECRET = struct.Struct("<2s2s2s32sQQ104s")  # algorithm, of the password, of the checksum, salt, two limits, the key
_OPEN_SECRET = struct.Struct("<8s32s32s32s")  # number of the key, seed, public key, checksum
_MEMORY_LIMIT = 2 << 30  # minisign asks for 1 GiB


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Checks signatures.

    Attributes:
        number: Eight random bytes that tell which key a signature is from.
        key: The Ed25519 public key, 32 bytes.
        name: Whose key it is, for people.
    """

    number: bytes
    key: bytes
    name: str

    @classmethod
    def from_base64(cls, text: bytes, name: str = "") -> PublicKey:
        """Reads the line of a public key; without a name it is called by its number.

        Raises:
            ValueError: it is none.
        """
        data = _decoded(text)
        if len(data) == _SECRET.size:
            raise ValueError("this is a secret key; a public one is expected here")
        algorithm, number, key = _unpack(_PUBLIC, data, "a public key")
        if algorithm != _PURE:
            raise ValueError(f"the algorithm {algorithm!r} is not known")
        return cls(number, key, name or key_id(number))

    def verifies(self, signature: Signature, message: bytes) -> bool:
        """Whether the signature is by this key, of this message and of its own trusted comment.

        Raises:
            MissingExtraError: PyNaCl is not installed.
        """
        nacl = _nacl()
        verifier = nacl.signing.VerifyKey(self.key)
        try:
            verifier.verify(signature.digest(message), signature.signature)
            verifier.verify(signature.signature + signature.comment, signature.comment_signature)
        except nacl.exceptions.BadSignatureError:
            return False
        return signature.number == self.number


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that nobody has checked yet.

    Attributes:
        number: Of the key, as it claims.
        hashed: Whether it is of the message's BLAKE2b-512; else, as minisign did before 0.11, of the message.
        signature: Of the message, 64 bytes.
        comment: The trusted comment.
        comment_signature: Of the signature and the trusted comment, 64 bytes.
    """

    number: bytes
    hashed: bool
    signature: bytes
    comment: bytes
    comment_signature: bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> Signature:
        """Reads a file ``.minisig``.

        Raises:
            ValueError: it is none.
        """
        lines = data.splitlines()
        if len(lines) != 4 or not lines[0].startswith(COMMENT) or not lines[2].startswith(TRUSTED_COMMENT):
            raise ValueError(
                "a signature has four lines: comment, signature, trusted comment, signature of the comment"
            )
        algorithm, number, signature = _unpack(_SIGNATURE, _decoded(lines[1]), "a signature")
        if algorithm not in (_PURE, _HASHED):
            raise ValueError(f"the algorithm {algorithm!r} is not known")
        comment_signature = _decoded(lines[3])
        if len(comment_signature) != 64:
            raise ValueError(f"the signature of the comment has {len(comment_signature)} bytes, expected 64")
        return cls(number, algorithm == _HASHED, signature, lines[2].removeprefix(TRUSTED_COMMENT), comment_signature)

    def digest(self, message: bytes) -> bytes:
        """What of the message is signed."""
        return hashlib.blake2b(message).digest() if self.hashed else message


@dataclass(frozen=True, slots=True)
class SecretKey:
    """Signs.

    Attributes:
        number: See `PublicKey.number`.
        seed: The Ed25519 secret key, 32 bytes.
    """

    number: bytes
    seed: bytes = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes, ask_password: Callable[[], str]) -> SecretKey:
        """Reads the file of a secret key.

        Args:
            data: what is in the file.
            ask_password: called only if the key has a password.

        Raises:
            MissingExtraError: PyNaCl is not installed.
            ValueError: it is no secret key, or the password is wrong.
        """
        lines = data.splitlines()
        if len(lines) != 2 or not lines[0].startswith(COMMENT):
            raise ValueError("a secret key of minisign has two lines: a comment and the key")
        raw = _decoded(lines[1])
        if len(raw) == _PUBLIC.size:
            raise ValueError("this is a public key; the secret one signs")
        algorithm, lock, _, salt, operations, memory, content = _unpack(_SECRET, raw, "a secret key")
        if algorithm != _PURE or lock not in (_SCRYPT, _NO_PASSWORD):
            raise ValueError(f"the algorithms {algorithm!r} and {lock!r} are not known")
        if lock == _SCRYPT:
            content = _unlocked(content, ask_password(), salt, operations, memory)
        number, seed, public, checksum = _OPEN_SECRET.unpack(content)
        if lock == _SCRYPT and checksum != hashlib.blake2b(algorithm + number + seed + public, digest_size=32).digest():
            raise ValueError("the password is wrong, or the key is damaged")
        key = cls(number, seed)
        if bytes(key._signer().verify_key) != public:
            raise ValueError("the key is damaged: its two halves do not belong together")
        return key

    @property
    def public(self) -> PublicKey:
        """The key that checks what this one signs."""
        return PublicKey(self.number, bytes(self._signer().verify_key), key_id(self.number))

    def sign(self, message: bytes, comment: str, trusted_comment: str) -> bytes:
        """The content of a file ``.minisig``.

        Raises:
            MissingExtraError: PyNaCl is not installed.
        """
        signer = self._signer()
        signature = signer.sign(hashlib.blake2b(message).digest()).signature
        trusted = trusted_comment.encode()
        lines = (
            COMMENT + comment.encode(),
            base64.b64encode(_SIGNATURE.pack(_HASHED, self.number, signature)),
            TRUSTED_COMMENT + trusted,
            base64.b64encode(signer.sign(signature + trusted).signature),
        )
        return b"".join(line + b"\n" for line in lines)

    def _signer(self) -> SigningKey:
        signer: SigningKey = _nacl().signing.SigningKey(self.seed)
        return signer


def key_id(number: bytes) -> str:
    """The number of a key as minisign writes it for people."""
    return number[::-1].hex().upper()


def _unlocked(content: bytes, password: str, salt: bytes, operations: int, memory: int) -> bytes:
    if memory > _MEMORY_LIMIT:
        raise ValueError(f"the password takes {memory} bytes of memory, at most {_MEMORY_LIMIT} are given")
    nacl = _nacl()
    try:
        stream = nacl.pwhash.scrypt.kdf(len(content), password.encode(), salt, operations, memory)
    except (nacl.exceptions.CryptoError, ValueError) as error:
        raise ValueError(f"the password cannot be tried: {error}") from error
    return bytes(a ^ b for a, b in zip(content, stream, strict=True))


def _nacl() -> ModuleType:
    try:
        import nacl.exceptions
        import nacl.pwhash
        import nacl.signing
    except ImportError as error:
        raise MissingExtraError("PyNaCl", "sign") from error
    return nacl


def _decoded(text: bytes) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error
    if base64.b64encode(data) != text:
        raise ValueError("not base64: its last character has bits that mean nothing")
    return data


def _unpack(form: struct.Struct, data: bytes, kind: str) -> tuple[Any, ...]:
    if len(data) != form.size:
        raise ValueError(f"{kind} has {form.size} bytes, found {len(data)}")
    return form.unpack(data)
