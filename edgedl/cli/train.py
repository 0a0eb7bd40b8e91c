"""``edgedl train``: data -> a trained run."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from edgedl.cli import arguments
from edgedl.cli.output import Output, number
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
    from edgedl.training.processes import in_turn, is_first_process
    from runtime.errors import InputError

    chosen = task(args.task)
    if args.output is None and args.resume:
        raise InputError("--resume needs to know which run: add -o RUN")
    with _as_one(args.out), in_turn(), _run_folder(args) as path:
        how = _resume_command(args, path) if chosen.resumes else ""
        if not args.resume and is_first_process() and (path / "config.json").exists():
            instead = f"go on with it, {how}, or " if how else ""
            raise InputError(f"{path} already holds a run; {instead}choose another folder with -o")
        try:
            result = chosen.train(args, path)
        except KeyboardInterrupt:
            if how and (path / "config.json").exists():
                log.warning("to go on with this training: %s", how)
            raise
    args.out.text(f"run  {path}")
    for key, value in result.items():
        if not isinstance(value, Mapping | list | tuple):
            args.out.text(f"{key}  {number(value)}")
    args.out.document({"ok": True, "run": str(path), **result})
    return 0


@contextlib.contextmanager
def _as_one(out: Output) -> Iterator[None]:
    """Processes that a launcher started speak with one voice: but for its own errors, only the first one says anything.

    Raises:
        EdgedlError: with the number of the process, where it is another one.
    """
    from edgedl.training.processes import is_first_process, launched
    from runtime.errors import EdgedlError

    place = launched()
    if place is None or is_first_process():
        yield
        return
    out.silence()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except EdgedlError as error:
        error.args = (f"process {place.rank}: {error}",)
        raise
    finally:
        logging.disable(before)


def _resume_command(args: argparse.Namespace, path: Path) -> str:
    """What to type to go on with a run; all but the data lies in its folder."""
    data = [] if args.data is None else ["--data", args.data]
    return shlex.join(["edgedl", "train", args.task, *data, "-o", str(path), "--resume"])


@contextlib.contextmanager
def _run_folder(args: argparse.Namespace) -> Iterator[Path]:
    """The folder asked for, or a new one: the same for every process that this one starts to train beside it."""
    from edgedl.training.processes import of_first

    if args.output is not None:
        yield Path(args.output)
        return
    first = SAME_RUN not in os.environ
    path = os.environ.get(SAME_RUN) or of_first("folder", lambda: str(_new_run(args.task)).encode()).decode()
    os.environ[SAME_RUN] = path
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
