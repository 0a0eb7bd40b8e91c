"""``edgedl doctor``: is this machine ready?"""

from __future__ import annotations

import argparse

from edgedl.cli import arguments
from edgedl.cli.output import table


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
    rows = [("ok" if check.ok else "WRONG", check.name, check.found) for check in report.checks]
    args.out.text(table(("", "what", "found"), rows))
    for check in report.checks:
        if not check.ok and check.advice:
            args.out.text(f"\n{check.name}: {check.advice}")
    checks = [
        {"name": check.name, "ok": check.ok, "found": check.found, "advice": check.advice} for check in report.checks
    ]
    args.out.document({"ok": report.ok, "checks": checks})
    return 0 if report.ok else 1
