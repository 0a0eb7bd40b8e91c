"""``edgedl prove``: replay the recorded answers on a target, and keep the proof with the bundle."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgedl.cli import arguments

if TYPE_CHECKING:
    from exporters.targets.prove import ProveReport


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "prove",
        run,
        "replay the recorded answers on a target, and keep the proof with the bundle",
        "A target runs the graphs with the ONNX Runtime that lives there; this machine compares, as `verify` does.\n"
        "Targets set themselves up in the cache. The proof is written into proofs.json beside the manifest.",
    )
    arguments.bundle(parser)
    parser.add_argument(
        "--target",
        action="append",
        required=True,
        metavar="T",
        help="onnxruntime==X (another release here), node, browser (both here); may be given several times, two run "
        "side by side",
    )
    arguments.variant(parser)
    parser.add_argument(
        "--every-case",
        action="store_true",
        help="replay all recorded cases under emulation, too, and not those only that add something",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from concurrent.futures import ThreadPoolExecutor

    from exporters.targets.known import find_target
    from exporters.targets.prove import prove
    from runtime.bundle import Bundle, record_proof

    bundle = Bundle.open(args.bundle)
    targets = [find_target(name) for name in dict.fromkeys(args.target)]

    def proven(target: Any) -> ProveReport:
        with target:
            return prove(bundle, target, args.variant, every_case=args.every_case)

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(proven, targets))
    proofs = [proof for report in reports for proof in report.proofs]
    if proofs:
        record_proof(args.bundle, *proofs)
    args.out.text("\n\n".join(map(str, reports)))
    verdict = "the same answers" if all(reports) else "not the same answers"
    args.out.text(f"\n{verdict}; {len(proofs)} proofs are in proofs.json")
    args.out.document(
        {
            "ok": all(reports),
            "digest": bundle.digest,
            "targets": [report.to_json() for report in reports],
            "proofs": [asdict(proof) for proof in proofs],
        }
    )
    return 0 if all(reports) else 1
