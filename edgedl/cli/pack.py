"""``edgedl pack``: a bundle as one file."""

from __future__ import annotations

import argparse

from edgedl.cli import arguments, signing
from edgedl.cli.output import size


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "pack",
        run,
        "make one file of a bundle",
        "An uncompressed zip; everything that reads a bundle takes either form. Signatures and proofs stay with it.",
    )
    arguments.bundle(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="the file to write (default: NAME-VERSION.edge)")
    parser.add_argument(
        "--sign",
        metavar="KEY",
        help="sign it with this secret key of minisign, which `minisign -G` makes (needs the extra `sign`); a password "
        "is asked for, or read from standard input",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from runtime.bundle import Bundle, pack

    bundle = Bundle.open(args.bundle)
    signatures, signer = {}, None
    if args.sign is not None:
        from runtime.signatures import read_secret_key, sign

        key = read_secret_key(args.sign, signing.password)
        signatures, signer = sign(bundle, key), key.public.name
    path = args.output or f"{bundle.manifest.name}-{bundle.manifest.version}.edge"
    packed = pack(bundle, path, signatures=signatures)
    length = packed.path.stat().st_size
    args.out.text(f"{packed.path}: {size(length)}" + (f", signed by the key {signer}" if signer else ""))
    args.out.document({"ok": True, "bundle": str(packed.path), "bytes": length, "signed_by": signer})
    return 0
