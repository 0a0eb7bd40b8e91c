"""``edgedl doctor``: is this machine ready?"""

from __future__ import annotations

import argparse

from edgedl.cli import arguments


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    arguments.verb(
        sub,
        "doctor",
        run,
        "tell whether this machine is ready",
        "Versions, execution providers that really start, conflicting wheels, threads, shadowed packages.\n"
        "The exit status is 1 where something is wrong.",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from runtime.doctor import diagnose

    report = diagnose()
    args.out.text(str(report))
    args.out.document(report.to_json())
    return 0 if report else 1
