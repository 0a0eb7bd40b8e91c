"""Options that several verbs share, so that they mean the same everywhere."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from edgedl.cli.failures import UsageError


class Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of leaving the process, and may learn its options late.

    ``declare`` is called with this parser and what is to be parsed, just before parsing: a task's options are known
    only once its name is.
    """

    declare: Callable[[Parser, Sequence[str]], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses after the late options were added."""
        declare, self.declare = self.declare, None
        if declare is not None:
            declare(self, args or ())
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Called by argparse on a usage error."""
        raise UsageError(message, usage=self.format_usage())


if TYPE_CHECKING:
    # Generic for mypy, not at run time.
    Subparsers = argparse._SubParsersAction[Parser]
else:
    Subparsers = Any


def verb(
    sub: Subparsers, name: str, run: Callable[[argparse.Namespace], int], summary: str, details: str = ""
) -> Parser:
    """Adds a verb with the options that every verb has."""
    parser = sub.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n{details}".rstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    every_verb(parser)
    return parser


def every_verb(parser: argparse.ArgumentParser) -> None:
    """``--json``, ``--verbose`` and ``--traceback``."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print one JSON document")
    group.add_argument("--verbose", action="store_true", help="say more on standard error")
    group.add_argument(
        "--traceback", action="store_true", help="show where an error came from (or set EDGEDL_TRACEBACK=1)"
    )


def bundle(parser: argparse.ArgumentParser) -> None:
    """The bundle that a verb reads."""
    parser.add_argument("bundle", metavar="B", help="a bundle: a folder or a file NAME.edge")


def device(parser: argparse.ArgumentParser) -> None:
    """Where and with how many threads a graph runs."""
    group = parser.add_argument_group("device")
    group.add_argument(
        "--device",
        default="cpu",
        help="cpu, gpu, auto or another that ONNX Runtime offers here; one asked for by name is never replaced "
        "by another (default: cpu)",
    )
    group.add_argument(
        "--threads", type=positive, metavar="N", help="threads of one run (default: what this process may use)"
    )


def variant(parser: argparse.ArgumentParser) -> None:
    """Which form of the graphs runs."""
    parser.add_argument("--variant", metavar="V", help="the form of the graphs, e.g. fp32 (default: every form)")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def port(text: str) -> int:
    """A TCP port."""
    value = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return value
