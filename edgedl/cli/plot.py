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
    pictures = task(runs.task_of(path)).plot(path, args.output)
    for picture in pictures:
        args.out.text(str(picture))
    args.out.document({"ok": True, "pictures": [str(picture) for picture in pictures]})
    return 0
