"""Signatures at the command line: ``--trust``, and the password of a key."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.bundle import Bundle
    from runtime.signatures import Signer


def trust(parser: argparse.ArgumentParser) -> None:
    """Whose bundles are taken."""
    parser.add_argument(
        "--trust",
        metavar="KEYS",
        help="take only what one of these keys signed: a file of public keys of minisign (needs the extra `sign`)",
    )


def trusted_signer(args: argparse.Namespace, bundle: Bundle) -> Signer | None:
    """Who signed the bundle; None without ``--trust``.

    Raises:
        BundleError: no trusted key signed it.
        InputError: the file of keys cannot be read.
        MissingExtraError: PyNaCl is not installed.
    """
    if args.trust is None:
        return None
    from runtime.signatures import check, read_keys

    return check(bundle, read_keys(args.trust))


def password() -> str:
    """The password of a secret key, as minisign takes it: from the terminal, else the first line of standard input."""
    if sys.stdin.isatty():
        return getpass.getpass("password of the key: ")
    return sys.stdin.readline().rstrip("\r\n")
