"""``edgedl doctor``: is this machine ready?"""

from __future__ import annotations

import argparse

from edgedl.cli import arguments
from edgedl.cli.failures import UsageError


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "doctor",
        run,
        "tell whether this machine is ready",
        "Versions, execution providers that really start, conflicting wheels, threads, shadowed packages.\n"
        "Of each bundle, whether a proof was made with this ONNX Runtime on this class of processor.\n"
        "The exit status is 1 where something is wrong.",
    )
    parser.add_argument("bundles", metavar="B", nargs="*", help="bundles: folders or files NAME.edge")
    parser.add_argument(
        "--reprove",
        action="store_true",
        help="replay all recorded answers of each bundle here, and add the proof to its proofs.json",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from runtime.doctor import diagnose

    if args.reprove and not args.bundles:
        raise UsageError("--reprove replays the answers of bundles; name at least one")
    report = diagnose(bundles=args.bundles, reprove=args.reprove)
    args.out.text(str(report))
    args.out.document(report.to_json())
    return 0 if report else 1
