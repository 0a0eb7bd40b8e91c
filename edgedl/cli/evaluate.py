"""``edgedl evaluate``: judge a bundle, not the network, on data with known answers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from edgedl.cli import arguments, many
from edgedl.cli.output import number, table


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(sub, "evaluate", run, "judge a bundle on data with known answers")
    arguments.bundle(parser)
    parser.add_argument(
        "--data", metavar="PATH", help="a folder or zip in the data set's own format (default: the embedded data)"
    )
    parser.add_argument(
        "--split",
        metavar="S",
        help="a part of the data, e.g. val (default: all of --data; of the embedded data val for age, caption and sgd, "
        "test for the others)",
    )
    parser.add_argument("--format", metavar="F", help="of --data, where it cannot be told from its contents")
    parser.add_argument(
        "--max-unreadable",
        type=float,
        metavar="SHARE",
        help="of age and caption: of the files of --data that may be left out because they cannot be read "
        "(default: 0.01)",
    )
    parser.add_argument(
        "--aligned",
        action="store_true",
        help="of age: the pictures are faces already cropped: give each to the network as it is, without the detector",
    )
    parser.add_argument(
        "--by",
        type=_names,
        metavar="NAMES",
        help="of age: the figures for each value of an attribute that the data set tells, e.g. gender,race",
    )
    parser.add_argument(
        "--against",
        metavar="B2",
        help="of age: the difference to another bundle on the same faces, with its standard error",
    )
    parser.add_argument(
        "--stability",
        action="store_true",
        help="of age: by how many years a mirror, a shift by one pixel, less light and JPEG move the answers; takes "
        "five times as long",
    )
    parser.add_argument("--variant", metavar="V", help="the form of the graphs, e.g. fp32")
    arguments.device(parser)
    many.add_workers(
        parser, "of age and caption: processes that answer, each with one thread (default: this one alone)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from edgedl.tasks import task
    from runtime.bundle import Bundle
    from runtime.errors import InputError

    if args.format and not args.data:
        raise InputError("--format says how --data is to be read; there is no --data")
    # Only what was asked for, so that a task need not know every other task's options.
    options: dict[str, Any] = {name: True for name in ("aligned", "stability") if getattr(args, name)}
    given = {name: getattr(args, name) for name in ("variant", "format", "max_unreadable", "against", "by")}
    given["spread"] = many.spread(args)
    options |= {name: value for name, value in given.items() if value is not None}
    name = Bundle.open(args.bundle).manifest.task
    result: Mapping[str, Any] = task(name).evaluate(
        args.bundle, args.data, args.split, args.device, args.threads, **options
    )
    args.out.text(f"{result['n']} samples")
    args.out.text(table(("metric", "value"), list(result["metrics"].items())))
    for key, value in result.items():
        if key not in ("n", "metrics"):
            args.out.text(_more(key, _left_out(value) if key == "unreadable" else value))
    args.out.document({"ok": True, **result})
    return 0


def _names(text: str) -> tuple[str, ...]:
    """Names that are divided by commas."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of names, such as gender,race")
    return names


def _left_out(found: Mapping[str, Any]) -> str:
    """Files that could not be read: their number and the names of the first."""
    names = ", ".join(found["names"])
    more = ", …" if found["count"] > len(found["names"]) else ""
    return f"{found['count']:,} ({names}{more})" if names else "none"


def _more(key: str, value: Any) -> str:
    """What a task reports beyond its metrics: one value, names with values or reasons, or a table."""
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        columns = list(value[0])
        return "\n" + table(columns, [[item.get(column) for column in columns] for item in value])
    if not isinstance(value, Mapping):
        return f"{key}: {number(value)}"
    inner = list(value.values())
    if inner and all(isinstance(item, Mapping) for item in inner):
        columns = list(inner[0])
        return "\n" + table((key, *columns), [(name, *map(item.get, columns)) for name, item in value.items()])
    if inner and all(isinstance(item, str) for item in inner):
        named = {reason: ", ".join(name for name in value if value[name] == reason) for reason in inner}
        return f"{key}: " + "; ".join(f"{names} ({reason})" for reason, names in named.items())
    return f"{key}: " + (", ".join(f"{name} {number(item)}" for name, item in value.items()) or "none")
