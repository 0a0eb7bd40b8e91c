"""``edgedl predict``: photos in, answers out."""

from __future__ import annotations

import argparse
import glob
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedl.cli import arguments
from edgedl.cli.failures import USAGE, explain
from edgedl.cli.output import number, render, table

if TYPE_CHECKING:
    from runtime.pipelines import Pipeline

STANDARD_INPUT = "-"
LONGEST_LINE = 100
# What a folder is searched for; a file that is named outright is tried whatever its name.
SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".npy", ".png", ".tif", ".tiff", ".webp"))

log = logging.getLogger(__name__)


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "predict",
        run,
        "a photo in, the answer out",
        "An input that cannot be read is reported, the others are done, and the exit status is 2.",
    )
    arguments.bundle(parser)
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="a file, a folder (its pictures), a pattern like 'photos/*.jpg', or - for standard input",
    )
    parser.add_argument("--save", metavar="DIR", help="draw each answer on its picture and write it to this folder")
    parser.add_argument("--variant", metavar="V", help="the form of the graphs, e.g. fp32")
    arguments.device(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from runtime import pipelines
    from runtime.errors import InputError

    names = list(expand(args.inputs))
    folder = Path(args.save) if args.save else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    pipeline = pipelines.load(args.bundle, device=args.device, threads=args.threads, variant=args.variant)
    results, status = [], 0
    try:
        for name in names:
            try:
                result = {"input": name, **_predict(pipeline, name, folder)}
            except (InputError, OSError) as error:
                failure = explain(error)
                log.error("%s", failure.message if name in failure.message else f"{name}: {failure.message}")
                result = {"input": name, "error": {"type": type(error).__name__, "message": failure.message}}
                status = USAGE
            else:
                args.out.text(_text(result))
            results.append(result)
    finally:
        pipeline.close()
    args.out.document({"ok": status == 0, "results": results})
    return status


def expand(inputs: Sequence[str]) -> Iterator[str]:
    """The single inputs behind files, folders, patterns and ``-``, in the order given.

    Raises:
        InputError: a folder or pattern holds no picture.
    """
    from runtime.errors import InputError

    for name in inputs:
        path = Path(name)
        if name == STANDARD_INPUT or path.is_file():
            yield name
        elif path.is_dir():
            found = sorted(str(item) for item in path.iterdir() if item.suffix.lower() in SUFFIXES and item.is_file())
            if not found:
                raise InputError(f"{name}: a folder without pictures ({', '.join(sorted(SUFFIXES))})")
            yield from found
        elif glob.has_magic(name):
            # Not Path.glob, which takes no absolute pattern.
            found = sorted(item for item in glob.glob(name, recursive=True) if Path(item).is_file())  # noqa: PTH207
            if not found:
                raise InputError(f"{name}: no file fits this pattern")
            yield from found
        else:
            yield name  # reading it gives the reason


def _predict(pipeline: Pipeline, name: str, folder: Path | None) -> dict[str, Any]:
    source = sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name)
    result = pipeline.predict(source)
    if folder is None:
        return result
    from runtime.media import write_jpeg

    saved = _free_name(folder, "stdin" if name == STANDARD_INPUT else Path(name).stem, pipeline)
    write_jpeg(saved, pipeline.draw(source, result))
    return {**result, "saved": str(saved)}


def _free_name(folder: Path, stem: str, pipeline: Pipeline) -> Path:
    """A name in the folder that is not taken: two inputs may share a name, and an input may lie there itself."""
    base = f"{stem}-{pipeline.bundle.manifest.name}"
    path, number = folder / f"{base}.jpg", 2
    while path.exists():
        path, number = folder / f"{base}-{number}.jpg", number + 1
    return path


def _text(result: Mapping[str, Any]) -> str:
    """An answer for people: what is one value in a line, a list of things as a table."""
    lines = [str(result["input"])]
    for key, value in result.items():
        if key == "input":
            continue
        if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
            lines.append(_things(key, value))
        elif isinstance(value, Mapping):
            lines += [f"  {name}: {_shortened(item)}" for name, item in value.items()]
        else:
            lines.append(f"  {key}: {_shortened(value)}")
    return "\n".join(lines)


def _shortened(value: Any) -> str:
    text = render(value) if isinstance(value, list | Mapping) else number(value)
    return text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]} … (all of it: --json)"


def _things(key: str, items: Sequence[Mapping[str, Any]]) -> str:
    if not items:
        return f"  no {key}"
    columns = [name for name, value in items[0].items() if _in_a_cell(value)]
    rows = [[_cell(item.get(name)) for name in columns] for item in items]
    return table(columns, rows, "  ")


def _in_a_cell(value: Any) -> bool:
    """Whether a value fits a table: one value, or a short list of numbers such as a box."""
    if isinstance(value, list):
        return len(value) <= 4 and all(isinstance(item, int | float) for item in value)
    return not isinstance(value, Mapping)


def _cell(value: Any) -> Any:
    return " ".join(f"{item:.0f}" for item in value) if isinstance(value, list) else value
