"""``edgedl predict`` with a bundle that goes on with text: the characters are printed as they come."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedl.cli.failures import USAGE, explain

if TYPE_CHECKING:
    from runtime.pipelines.base import Pipeline, TextPipeline

OPTIONS = ("length", "temperature", "top_k", "seed")

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares how a text goes on."""
    group = parser.add_argument_group("text", "of a chars bundle; INPUT is a UTF-8 text file or -, and what follows it")
    group.add_argument("--length", type=int, metavar="N", help="characters to write (default: 300)")
    group.add_argument(
        "--temperature", type=float, metavar="X", help="0: always the likeliest; 1: as the model expects (default: 0.8)"
    )
    group.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest only (default: 0, from all)")
    group.add_argument("--seed", type=int, metavar="N", help="of the draws; the same seed, the same text (default: 0)")


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_arguments` that were given."""
    return {name: value for name in OPTIONS if (value := getattr(args, name)) is not None}


def check_options(args: argparse.Namespace, pipeline: Pipeline) -> None:
    """Refuses options of another kind of bundle.

    Raises:
        InputError: an option for text with a bundle that takes none, or the reverse.
    """
    from runtime.errors import InputError

    if pipeline.modality != "text":
        if given := given_options(args):
            named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(f"{named}: a bundle of the task {pipeline.task!r} writes no text")
    elif args.save:
        raise InputError("--save draws answers on pictures; a bundle that goes on with text has none")


def run(
    args: argparse.Namespace, pipeline: TextPipeline, inputs: Sequence[str], standard_input: Callable[[], bytes]
) -> int:
    """Goes on with each input; nothing but the new characters is printed, so that output can be appended to input.

    Args:
        args: of the verb.
        pipeline: the bundle.
        inputs: text files, or ``-``.
        standard_input: reads all of it.
    """
    from runtime.errors import InputError

    options = given_options(args)
    # What is wrong with an option is wrong with every input: said once.
    pipeline.generate("", **options)
    results, status = [], 0
    for name in inputs:
        try:
            prompt = pipeline.read(standard_input() if name == "-" else Path(name))
        except InputError as error:
            failure = explain(error)
            log.error("%s", failure.message if name in failure.message else f"{name}: {failure.message}")
            results.append({"input": name, "error": {"type": type(error).__name__, "message": failure.message}})
            status = USAGE
            continue
        if len(inputs) > 1:
            args.out.text(f"==> {name} <==")
        text = "".join(_shown(args, pipeline.generate(prompt, **options)))
        args.out.text("")
        report = pipeline.report(prompt, **options)
        if report["unknown"]:
            unknown = " ".join(map(repr, report["unknown"][:20]))
            log.warning("%s: the model has never seen %s; each counts as an unknown character", name, unknown)
        results.append({"input": name, "text": text, **report})
    args.out.document({"ok": status == 0, "results": results})
    return status


def _shown(args: argparse.Namespace, characters: Iterator[str]) -> Iterator[str]:
    for character in characters:
        args.out.piece(character)
        yield character
