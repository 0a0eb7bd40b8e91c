"""``edgedl inspect``: what is in a bundle."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from edgedl.cli import arguments, signing
from edgedl.cli.describe import description
from edgedl.cli.matrix import release_document


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "inspect",
        run,
        "show what is in a bundle",
        "Models, inputs and outputs, tolerances, recorded answers, metrics, proofs by target, variant and runtime,\n"
        "whether it may be released, who signed it and where it came from. Every file is compared with its sha256.",
    )
    arguments.bundle(parser)
    signing.trust(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from runtime.bundle import Bundle
    from runtime.signatures import claims

    bundle = Bundle.open(args.bundle)
    signer = signing.trusted_signer(args, bundle)
    args.out.text(description(bundle, signer))
    args.out.document(
        {
            "ok": True,
            "bundle": str(bundle.path),
            "digest": bundle.digest,
            "manifest": bundle.manifest.to_json(),
            "signatures": [asdict(claim) for claim in claims(bundle)],
            "signer": asdict(signer) if signer else None,
            "proofs": [asdict(proof) for proof in bundle.proofs],
            "release": release_document(bundle),
        }
    )
    return 0
