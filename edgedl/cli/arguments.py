"""Options that several verbs share, so that they mean the same everywhere."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

from edgedl.cli.failures import UsageError


class Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of leaving the process, and may learn its options late.

    ``declare`` is called with this parser and what is to be parsed, just before parsing: a task's options are known
    only once its name is.
    """

    declare: Callable[[Parser, Sequence[str]], None] | None = None

    @property
    def verbs(self) -> dict[str, Parser]:
        """The parser of each verb."""
        (sub,) = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        return cast("dict[str, Parser]", sub.choices)

    def parse_verb(self, words: Sequence[str]) -> argparse.Namespace:
        """Parses a command line: a verb, its options and its inputs, in any order.

        Raises:
            UsageError: it does not parse.
        """
        place = next((place for place, word in enumerate(words) if not word.startswith("-")), None)
        if place is None:
            return self.parse_args(words)  # --help, --version, or nothing at all
        if words[place] not in self.verbs:
            self.error(f"unknown verb {words[place]!r}{suggestion(words[place], self.verbs)}")
        return self.verbs[words[place]].parse([*words[:place], *words[place + 1 :]])

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parses what follows the verb: options and inputs in any order.

        Raises:
            UsageError: they do not parse.
        """
        self.declare_late(words)
        args, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            known = [flag for action in self._actions for flag in action.option_strings]
            self.error(f"unknown {unknown[0]}{suggestion(unknown[0].partition('=')[0], known)}")
        return args

    def declare_late(self, words: Sequence[str]) -> None:
        """Adds the options that depend on what is to be parsed."""
        if self.declare is not None:
            self.declare(self, words)

    def error(self, message: str) -> NoReturn:
        """Called by argparse on a usage error."""
        raise UsageError(f"{message} ({self.prog} --help lists the options)", usage=self.format_usage())


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` where a known word is like the one that was given."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


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


def device(parser: argparse.ArgumentParser, threads: str = "what this process may use") -> None:
    """Where and with how many threads a graph runs; `threads` says how many by default."""
    group = parser.add_argument_group("device")
    group.add_argument(
        "--device",
        default="cpu",
        help="cpu, gpu, auto or another that ONNX Runtime offers here; one asked for by name is never replaced "
        "by another (default: cpu)",
    )
    group.add_argument("--threads", type=positive, metavar="N", help=f"threads of one run (default: {threads})")


def max_pixels(parser: argparse._ActionsContainer) -> None:
    """How large pictures may be."""
    parser.add_argument(
        "--max-pixels",
        type=positive,
        metavar="N",
        help="most pixels of a picture that are decoded, at up to nine bytes of memory each (default: 50000000); a "
        "JPEG with more is read at 1/2, 1/4 or 1/8 of its size",
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


def seconds(text: str) -> float:
    """A time of more than nothing and at most a day."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, above 0 and at most 86400")
    return value


def port(text: str) -> int:
    """A TCP port."""
    value = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return value


def add_one_graph(parser: argparse.ArgumentParser) -> None:
    """Declares ``--one-graph``."""
    parser.add_argument(
        "--one-graph",
        action="store_true",
        help="of age: add the model photo, which does all that lies between a photo and its ages, for hosts without "
        "Python; the bundle is twice as large",
    )
