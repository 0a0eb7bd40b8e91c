"""``edgedl calibrate``: intervals that hold what they promise."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from edgedl.cli import arguments
from edgedl.cli.output import number, table

LEVELS = (0.5, 0.99)


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "calibrate",
        run,
        "give an age bundle an interval that holds what it promises",
        "The bundle answers faces of known age that its training has not seen. The interval that fits these answers\n"
        "goes into the manifest, with its coverage and width. No graph changes.",
    )
    arguments.bundle(parser)
    parser.add_argument(
        "--data", required=True, metavar="PATH", help="a folder or zip of faces in the data set's own format"
    )
    parser.add_argument(
        "--split", metavar="S", help="the part that calibrates; it must have chosen nothing else (default: val)"
    )
    parser.add_argument(
        "--level",
        type=_level,
        metavar="SHARE",
        help=f"of the true ages that is to lie inside, {LEVELS[0]:g} to {LEVELS[1]:g} (default: 0.8)",
    )
    parser.add_argument("--format", metavar="F", help="of --data, where it cannot be told from its contents")
    parser.add_argument(
        "--max-unreadable",
        type=float,
        metavar="SHARE",
        help="of the files that may be left out because they cannot be read (default: 0.01)",
    )
    parser.add_argument("-o", "--output", metavar="B", help="write the result here (default: in place)")
    arguments.device(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from edgedl.tasks import task, task_names
    from runtime.bundle import Bundle
    from runtime.errors import InputError

    name = Bundle.open(args.bundle).manifest.task
    if name not in task_names():
        raise InputError(
            f"{args.bundle}: the answers of the task {name!r} have no interval; calibrate takes age bundles"
        )
    given = {key: getattr(args, key) for key in ("level", "output", "format", "max_unreadable", "device", "threads")}
    options = {key: value for key, value in given.items() if value is not None}
    result = task(name).calibrate(args.bundle, args.data, args.split, **options)
    args.out.text(_told(result))
    args.out.document({"ok": True, **result})
    return 0


def _level(text: str) -> float:
    """A share that an interval may promise."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not LEVELS[0] <= value <= LEVELS[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from {LEVELS[0]:g} to {LEVELS[1]:g}; 80 % is 0.8")
    return value


def _told(result: Mapping[str, Any]) -> str:
    bands = result["by_age"]
    columns = list(next(iter(bands.values())))
    before = result["before"]
    whole = [before["coverage"], before["width"], result["coverage"], result["width"], result["n"]]
    rows = [(name, *band.values()) for name, band in bands.items()]
    return "\n\n".join(
        (
            f"{result['n']} faces of {result['dataset']}, split {result['split']}, level {number(result['level'])}",
            table(("age", *columns), [*rows, ("all", *whole)]),
            f"{result['bundle']}: calibrated, digest {result['digest']}",
        )
    )
