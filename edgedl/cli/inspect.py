"""``edgedl inspect``: what is in a bundle."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from edgedl.cli import arguments
from edgedl.cli.describe import description


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "inspect",
        run,
        "show what is in a bundle",
        "Models, inputs and outputs, tolerances, recorded answers, metrics, proofs and where it came from.\n"
        "Every file is compared with its sha256.",
    )
    arguments.bundle(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from runtime.bundle import Bundle

    bundle = Bundle.open(args.bundle)
    args.out.text(description(bundle))
    args.out.document(
        {
            "ok": True,
            "bundle": str(bundle.path),
            "digest": bundle.digest,
            "manifest": bundle.manifest.to_json(),
            "proofs": [asdict(proof) for proof in bundle.proofs],
        }
    )
    return 0
