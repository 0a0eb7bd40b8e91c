"""``edgedl plot``: the curves of a run as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgedl.cli import arguments, runs


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(sub, "plot", run, "draw the curves of a run")
    parser.add_argument("run_path", metavar="RUN", help="the folder of a run")
    parser.add_argument("-o", "--output", metavar="PNG", help="the picture to write (default: RUN/curves.png)")


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from edgedl.tasks import task

    path = Path(args.run_path)
    output = Path(args.output) if args.output else path / "curves.png"
    task(runs.task_of(path)).plot(path, output)
    args.out.text(str(output))
    args.out.document({"ok": True, "figure": str(output)})
    return 0
