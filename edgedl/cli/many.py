"""``edgedl predict B SOURCE… -o OUT.parquet``: any number of files, on all cores or on a Ray cluster."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgedl.cli import arguments, continuation, small_faces
from edgedl.cli.failures import USAGE, UsageError

if TYPE_CHECKING:
    from edgedl.data.spreading import Spread
    from runtime.pipelines.base import Pipeline

_LOCAL = "local"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares where the answers to many files go, and what answers them."""
    group = parser.add_argument_group(
        "many files",
        "With -o an INPUT may also be a zip, @list.txt with a path in each line, or a Parquet table with a column path "
        "or bytes; folders are entered to the bottom. What was interrupted goes on when it is called again.",
    )
    group.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="write answers to this folder of Parquet files: name, sha256, bundle, answer (JSON), error",
    )
    add_workers(group, "processes, each with one thread (default: the cores)")


def add_workers(parser: argparse._ActionsContainer, processes: str) -> None:
    """Declares ``--workers`` with this help, and ``--ray``."""
    parser.add_argument("--workers", type=arguments.positive, metavar="N", help=processes)
    parser.add_argument(
        "--ray",
        nargs="?",
        const=_LOCAL,
        metavar="ADDRESS",
        help="on the Ray cluster at this address, auto for the one of this machine; without an address on a Ray of "
        "its own",
    )


def spread(args: argparse.Namespace) -> Spread | None:
    """The processes that were asked for by `add_workers`, if any."""
    if args.ray is not None:
        from edgedl.deploy.many.cluster import Cluster

        return Cluster(args.ray, args.workers, args.threads or 1)
    if args.workers is None:
        return None
    from edgedl.deploy.many.processes import Cores

    return Cores(args.workers)


def is_asked_for(args: argparse.Namespace) -> bool:
    """Whether the answers go to a folder.

    Raises:
        UsageError: an option is given that needs the folder.
    """
    if args.output is None and (args.workers is not None or args.ray is not None):
        raise UsageError("--workers and --ray are for many files; name a folder for the answers with -o OUT")
    return args.output is not None


def run(args: argparse.Namespace) -> int:
    """Answers many files."""
    from pathlib import Path

    from edgedl.deploy.many.answering import Setting
    from edgedl.deploy.many.inputs import list_inputs
    from edgedl.deploy.many.results import Results, Run
    from edgedl.deploy.many.tables import parquet
    from runtime import pipelines
    from runtime.errors import InputError
    from runtime.threads import default_threads

    parquet()
    if not args.inputs:
        raise InputError("nothing to predict: name an input")
    if args.save or continuation.given_options(args):
        raise InputError("-o writes answers to Parquet; it takes no --save and no option of text")
    threads = args.threads or 1
    with pipelines.load(args.bundle, device=args.device, threads=threads, variant=args.variant) as pipeline:
        _check_modality(pipeline)
        options = small_faces.given_options(args, pipeline)
        digest, clips = pipeline.bundle.digest, pipeline.modality == "clip"
    items = list_inputs(args.inputs, clips=clips)
    results = Results(Path(args.output), Run.of(digest, args.variant, options, items))
    setting = Setting(args.bundle, digest, args.device, threads, args.variant, options)
    left = sum(part.stop - part.start for part in map(results.rows_of, results.open_parts()))
    told = _counter(len(items) - left, len(items))
    if args.ray is not None:
        from edgedl.deploy.many.cluster import answer_on_ray

        answer_on_ray(items, results, setting, args.ray, args.workers, told)
    else:
        from edgedl.deploy.many.processes import answer_on_cores

        answer_on_cores(items, results, setting, args.workers or max(1, default_threads() // threads), told)
    number, errors = results.count()
    kept = number - left
    args.out.text(
        f"{args.output}: {number:,} answers"
        + (f", {errors:,} of them an error" if errors else "")
        + (f"; {kept:,} were there before" if kept else "")
    )
    document = {"ok": not errors, "output": args.output, "n": number, "errors": errors, "kept": kept, "bundle": digest}
    args.out.document(document)
    return USAGE if errors else 0


def _check_modality(pipeline: Pipeline) -> None:
    from runtime.errors import InputError

    if pipeline.modality not in ("picture", "clip"):
        raise InputError(f"-o is for pictures and videos; a bundle of the task {pipeline.task!r} takes neither")


def _counter(done: int, total: int) -> Callable[[int], None]:
    """The progress on a terminal; each call adds answers."""
    from edgedl.training.progress import Progress

    show = Progress("answered")

    def told(number: int) -> None:
        nonlocal done
        done += number
        show(done, total)

    return told
