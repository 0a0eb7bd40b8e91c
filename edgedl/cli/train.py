"""``edgedl train``: data -> a trained run."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from edgedl.cli import arguments
from edgedl.cli.output import number
from edgedl.tasks import SUMMARIES

log = logging.getLogger(__name__)

# Lightning starts the further processes of a run as the same command with this environment.
SAME_RUN = "EDGEDL_RUN"


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb; the task declares its own options once its name is known."""
    tasks = "\n".join(f"  {name:11}{summary}" for name, summary in SUMMARIES.items())
    parser = arguments.verb(
        sub,
        "train",
        run,
        "train a network",
        f"`edgedl train TASK --help` lists the options of a task.\n\ntasks:\n{tasks}",
    )
    parser.add_argument("task", metavar="TASK", help="what to learn, e.g. age")
    parser.add_argument(
        "--data", metavar="PATH", help="a folder or zip in the data set's own format (default: the embedded data)"
    )
    parser.add_argument("-o", "--output", metavar="RUN", help="the folder of the run (default: runs/TASK-N)")
    parser.declare = _declare_task


def _declare_task(parser: arguments.Parser, words: Sequence[str]) -> None:
    """Declares the options of the task that is named, wherever it stands; behind a flag stands that flag's value."""
    from edgedl.tasks import task, task_names

    for before, word in pairwise(("", *words)):
        if word in task_names() and before not in ("--data", "-o", "--output"):
            task(word).add_train_arguments(parser)
            return


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from edgedl.tasks import task
    from runtime.errors import InputError

    if args.output is None and getattr(args, "resume", None):
        raise InputError("--resume needs to know which run: add -o RUN")
    with _run_folder(args) as path:
        try:
            result = task(args.task).train(args, path)
        except KeyboardInterrupt:
            if (path / "checkpoints" / "last.ckpt").exists():
                log.warning("to go on with this training: edgedl train %s -o %s --resume", args.task, path)
            raise
    args.out.text(f"run  {path}")
    for key, value in result.items():
        if not isinstance(value, Mapping | list | tuple):
            args.out.text(f"{key}  {number(value)}")
    args.out.document({"ok": True, "run": str(path), **result})
    return 0


@contextlib.contextmanager
def _run_folder(args: argparse.Namespace) -> Iterator[Path]:
    """The folder asked for, or a new one: the same for every process that this one starts to train beside it."""
    if args.output is not None:
        yield Path(args.output)
        return
    first = SAME_RUN not in os.environ
    path = os.environ.setdefault(SAME_RUN, str(_new_run(args.task)))
    try:
        yield Path(path)
    finally:
        if first:
            del os.environ[SAME_RUN]


def _new_run(task: str) -> Path:
    """``runs/TASK-N`` with the next free N."""
    number = 1
    while (path := Path("runs") / f"{task}-{number}").exists():
        number += 1
    return path
