"""``edgedl train``: data -> a trained run."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence

from edgedl._version import __version__
from edgedl.cli import arguments, runs
from edgedl.cli.output import number


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb; the task declares its own options once its name is known."""
    parser = arguments.verb(
        sub,
        "train",
        run,
        "train a network",
        "`edgedl train TASK --help` lists the options of a task.",
    )
    parser.add_argument("task", metavar="TASK", help="what to learn, e.g. age; comes before the options")
    parser.add_argument(
        "--data", metavar="PATH", help="a folder or zip in the data set's own format (default: the embedded data)"
    )
    parser.add_argument("-o", "--output", metavar="RUN", help="the folder of the run (default: runs/TASK-N)")
    parser.declare = _declare_task


def _declare_task(parser: arguments.Parser, words: Sequence[str]) -> None:
    if words and not words[0].startswith("-"):
        from edgedl.tasks import task

        task(words[0]).add_train_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from edgedl.tasks import task

    path = runs.new_run(args.task, args.output)
    chosen = task(args.task)
    # Before training: an interrupted run can be exported too.
    runs.record(path, task=args.task, edgedl=__version__, command=shlex.join(sys.argv), data=args.data)
    result: Mapping[str, object] = chosen.train(args, path)
    args.out.text(f"run  {path}")
    for key, value in result.items():
        if not isinstance(value, Mapping | list | tuple):
            args.out.text(f"{key}  {number(value)}")
    args.out.document({"ok": True, "run": str(path), **result})
    return 0
