"""``edgedl pack``: a bundle as one file."""

from __future__ import annotations

import argparse

from edgedl.cli import arguments
from edgedl.cli.output import size


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "pack",
        run,
        "make one file of a bundle",
        "An uncompressed zip; everything that reads a bundle takes either form.",
    )
    arguments.bundle(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="the file to write (default: NAME-VERSION.edge)")


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from runtime.bundle import Bundle, pack

    bundle = Bundle.open(args.bundle)
    packed = pack(bundle, args.output or f"{bundle.manifest.name}-{bundle.manifest.version}.edge")
    length = packed.path.stat().st_size
    args.out.text(f"{packed.path}: {size(length)}")
    args.out.document({"ok": True, "bundle": str(packed.path), "bytes": length})
    return 0
