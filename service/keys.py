"""API keys: who may ask. The service knows only their SHA-256, so that its configuration gives none of them away.

A key is 256 random bits. Nobody can try them all, so a plain hash is enough: scrypt and its kin slow down the guessing
of passwords that people chose, at the price of as much time for each request.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from os import PathLike
from pathlib import Path

from runtime.errors import InputError
from service.problems import Problem
from service.visits import Visit

PREFIX = "edgedl_"
"""Of a key, so that tools which look for secrets in code and logs know it."""

OPEN = frozenset(("/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/", ""))
"""What is answered without a key, beside the files of the page: of the bundles it tells whether they answer."""

_LINE = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9a-fA-F]{64})")
_FORM = "NAME:SHA256, the name of a key and the 64 hexadecimal digits of its hash (edgedl serve --new-api-key NAME)"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that are taken.

    Attributes:
        digests: A name and the SHA-256 of each.
    """

    digests: tuple[tuple[str, bytes], ...]

    def admit(self, visit: Visit, authorization: str) -> None:
        """Lets a request pass if it has a key or needs none.

        A wrong key takes as long as a right one, whichever that is.

        Args:
            visit: The request; it is told the name of its key.
            authorization: The header of this name.

        Raises:
            Problem: 401.
        """
        # A browser asks with OPTIONS whether it may send the key at all.
        if visit.path in OPEN or visit.path.startswith("/static/") or visit.method == "OPTIONS":
            visit.admitted = True
            return
        scheme, _, key = authorization.partition(" ")
        digest = sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        found = ""
        for name, known in self.digests:
            if hmac.compare_digest(digest, known):
                found = name
        if found and scheme.lower() == "bearer":
            visit.key, visit.admitted = found, True
            return
        detail = "This key is not known here." if authorization else "This service asks for a key."
        error = ', error="invalid_token"' if authorization else ""  # RFC 6750, section 3
        raise Problem(
            401,
            f"{detail} Send one that it knows as the header Authorization: Bearer KEY.",
            headers={"WWW-Authenticate": f'Bearer realm="edgedl"{error}'},
        )


def new_key(name: str) -> tuple[str, str]:
    """A fresh key, and the line by which a service knows it.

    Raises:
        InputError: The name cannot stand in such a line.
    """
    key = PREFIX + secrets.token_urlsafe(32)
    line = f"{name}:{sha256(key.encode()).hexdigest()}"
    if not _LINE.fullmatch(line):
        raise InputError(f"{name!r} is no name for a key; it is made of up to 64 letters, digits, '.', '_' and '-'")
    return key, line


def parse_keys(lines: Sequence[str], where: str) -> Keys:
    """The keys of a list; empty lines and those that begin with # are skipped.

    Args:
        lines: ``NAME:SHA256`` each.
        where: They are from.

    Raises:
        InputError: A line has another form, a name is there twice, or there is no key.
    """
    digests: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found = _LINE.fullmatch(text)
        if found is None:  # the line itself is not shown: it may be a key
            raise InputError(f"{where}: line {number} is not of the form {_FORM}")
        if found[1] in digests:
            raise InputError(f"{where}: line {number} has the name {found[1]!r} a second time")
        digests[found[1]] = bytes.fromhex(found[2])
    if not digests:
        raise InputError(f"{where}: there is no key; expected lines of the form {_FORM}")
    return Keys(tuple(digests.items()))


def read_keys(path: str | PathLike[str]) -> Keys:
    """The keys of a file; see `parse_keys`.

    Raises:
        InputError: The file cannot be read, or has no keys in it.
    """
    try:
        text = Path(path).read_text("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: this is no text; expected lines of the form {_FORM}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    return parse_keys(text.splitlines(), str(path))
