"""``edgedl predict``: photos and videos in, answers out."""

from __future__ import annotations

import argparse
import glob
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedl.cli import arguments, continuation, many, small_faces
from edgedl.cli.failures import USAGE, explain
from edgedl.cli.output import number, render, table

if TYPE_CHECKING:
    from runtime.pipelines.base import Pipeline, Source

STANDARD_INPUT = "-"
LONGEST_LINE = 100
# What comes in through a pipe lies in memory as a whole.
MOST_STANDARD_INPUT = 256 << 20

log = logging.getLogger(__name__)


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "predict",
        run,
        "a photo or a video in, the answer out",
        "An input that cannot be read is reported, the others are done, and the exit status is 2. Of a folder the "
        "pictures are taken; those of a kind that is not read (TIFF, HEIC …) are named and left out. For a bundle that "
        "describes clips, a folder is one clip: its pictures are the frames in natural order. Several photos or videos "
        "are named one by one or by a pattern. A camera is watched for four seconds, or as many as stand behind a "
        "second colon: camera:0:10.",
    )
    arguments.bundle(parser)
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="*",
        help="a file, a folder (its pictures; for captions one clip), a pattern like 'photos/*.jpg', "
        "camera:0 (captions only), or - for standard input",
    )
    parser.add_argument(
        "--stream",
        action="store_true",
        help="of a recurrent model: read steps from standard input, a line of numbers each, answer each as it comes",
    )
    many.add_arguments(parser)
    small_faces.add_arguments(parser)
    continuation.add_arguments(parser)
    arguments.max_pixels(parser)
    parser.add_argument("--save", metavar="DIR", help="draw each answer on its picture and write it to this folder")
    parser.add_argument("--variant", metavar="V", help="the form of the graphs, e.g. fp32")
    arguments.device(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from runtime import pipelines
    from runtime.errors import InputError
    from runtime.pipelines.base import TextPipeline

    if args.stream:
        return _stream(args)
    if many.is_asked_for(args):
        return many.run(args)
    if not args.inputs:
        raise InputError("nothing to predict: name an input, or - for standard input")
    folder = Path(args.save) if args.save else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    pipeline = pipelines.load(args.bundle, device=args.device, threads=args.threads, variant=args.variant)
    results, status = [], 0
    try:
        continuation.check_options(args, pipeline)
        options = small_faces.given_options(args, pipeline)
        if args.max_pixels is not None and pipeline.modality not in ("picture", "clip"):
            raise InputError(f"--max-pixels: a bundle of the task {pipeline.task!r} takes no pictures")
        if isinstance(pipeline, TextPipeline):
            names, _ = expand(args.inputs, clips=True)
            return continuation.run(args, pipeline, names, _standard_input)
        names, skipped = expand(args.inputs, clips=pipeline.modality == "clip")
        for path, reason in skipped.items():
            log.warning("%s is left out: %s", path, reason)
        for name in names:
            try:
                result = {"input": name, **_predict(pipeline, name, folder, args.max_pixels, options)}
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
    for note in dict.fromkeys(
        result["interval"]["note"] for result in results if result.get("faces") and "interval" in result
    ):
        args.out.text(note)
    left_out = [{"input": path, "reason": reason} for path, reason in skipped.items()]
    args.out.document({"ok": status == 0, "results": results} | ({"skipped": left_out} if left_out else {}))
    return status


def _stream(args: argparse.Namespace) -> int:
    """A line of standard input is a step; its answer is a line of standard output, with --json a document."""
    from runtime import pipelines
    from runtime.errors import InputError

    if args.inputs or args.save or continuation.given_options(args):
        raise InputError("--stream reads standard input; it takes no INPUT, no --save and no option of text")
    status = 0
    with pipelines.load(args.bundle, device=args.device, threads=args.threads, variant=args.variant) as pipeline:
        lines = pipeline.lines()
        for number_of_line, line in enumerate(sys.stdin, 1):
            if not line.strip():
                continue
            try:
                answer = lines.answer(line)
            except InputError as error:
                log.error("line %d: %s", number_of_line, error)
                args.out.line({"ok": False, "error": str(error)})
                status = USAGE
            else:
                args.out.text(_stepped(answer))
                args.out.line({"ok": True, **answer})
            args.out.flush()
    return status


def _stepped(answer: Mapping[str, Any]) -> str:
    """The answer to a step in a line: values alone where there is one output, else behind their names."""
    said = {name: " ".join(map(str, v)) if isinstance(v, list) else str(v) for name, v in answer.items()}
    return next(iter(said.values())) if len(said) == 1 else "  ".join(f"{name} {text}" for name, text in said.items())


def expand(inputs: Sequence[str], *, clips: bool = False) -> tuple[list[str], dict[str, str]]:
    """The single inputs behind files, folders, patterns, ``camera:0`` and ``-``, in the order given.

    Args:
        inputs: as on the command line.
        clips: a folder is one input, a clip; else each of its pictures is one.

    Returns:
        The inputs, and the pictures of folders that are left out because they cannot be read, each with the reason.

    Raises:
        InputError: a folder or pattern holds no picture.
    """
    from runtime.errors import InputError
    from runtime.media.folders import list_pictures

    names: list[str] = []
    skipped: dict[str, str] = {}
    for name in inputs:
        path = Path(name)
        if name != STANDARD_INPUT and path.is_dir():
            try:
                listed = list_pictures(path)
            except InputError:
                if not clips:
                    raise
                names.append(name)  # reading it gives the reason
                continue
            names += [name] if clips else map(str, listed.pictures)
            skipped |= {str(item): reason for item, reason in listed.skipped}
        elif glob.has_magic(name) and not path.is_file():
            # Not Path.glob, which takes no absolute pattern.
            found = sorted(item for item in glob.glob(name, recursive=True) if Path(item).is_file())  # noqa: PTH207
            if not found:
                raise InputError(f"{name}: no file fits this pattern")
            names += found
        else:
            names.append(name)  # reading it gives the reason, if there is one
    return names, skipped


def _predict(
    pipeline: Pipeline, name: str, folder: Path | None, max_pixels: int | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    from runtime.media.pictures import MAX_PIXELS
    from runtime.pipelines.base import ClipPipeline, PicturePipeline

    most = MAX_PIXELS if max_pixels is None else max_pixels
    source: Source = _standard_input() if name == STANDARD_INPUT else Path(name)
    # Read once for the answer and for what is drawn: a camera never gives the same frames again.
    if isinstance(pipeline, ClipPipeline):
        source = pipeline.read(name if isinstance(source, Path) else source, max_pixels=most)
    elif isinstance(pipeline, PicturePipeline):
        source = pipeline.open_picture(source, max_pixels=most)
    result = pipeline.predict(source, **options)
    if folder is None:
        return result
    from runtime.media.pictures import write_jpeg

    stem = "stdin" if name == STANDARD_INPUT else Path(name).stem.replace(":", "-")
    saved = _free_name(folder, stem, pipeline)
    write_jpeg(saved, pipeline.draw(source, result))
    return {**result, "saved": str(saved)}


def _standard_input() -> bytes:
    from runtime.errors import TooLargeError

    data = sys.stdin.buffer.read(MOST_STANDARD_INPUT + 1)
    if len(data) > MOST_STANDARD_INPUT:
        raise TooLargeError(f"more than {MOST_STANDARD_INPUT} bytes on standard input; write them to a file first")
    return data


def _free_name(folder: Path, stem: str, pipeline: Pipeline) -> Path:
    """A name in the folder that is not taken: two inputs may share a name, and an input may lie there itself."""
    base = f"{stem}-{pipeline.bundle.manifest.name}"
    path, number = folder / f"{base}.jpg", 2
    while path.exists():
        path, number = folder / f"{base}-{number}.jpg", number + 1
    return path


def _text(result: Mapping[str, Any]) -> str:
    """An answer for people: what is one value in a line, a list of things as a table, a caption as sentences."""
    lines = [str(result["input"])]
    told = {"input", "interval"}  # what holds for every input is said once, at the end
    if {"caption", "score", "frames", "alternatives"} <= result.keys():
        lines += _sentences(result)
        told |= {"caption", "score", "frames", "alternatives"}
    for key, value in result.items():
        if key in told:
            continue
        if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
            lines.append(_things(key, value))
        elif isinstance(value, Mapping):
            lines += [f"  {name}: {_shortened(item)}" for name, item in value.items()]
        else:
            lines.append(f"  {key}: {_shortened(value)}")
    return "\n".join(lines)


def _sentences(result: Mapping[str, Any]) -> list[str]:
    """The caption and the other hypotheses with their scores, the best first, and which frames were looked at."""
    rows = [(item["score"], item["caption"]) for item in (result, *result["alternatives"])]
    frames = result["frames"]
    times = [frame["seconds"] for frame in frames]
    lines = [f"  {score:6.2f}  {sentence or '(nothing)'}" for score, sentence in rows]
    if len(frames) > 1:
        exact = all(second is not None for second in times)
        where = ", ".join(f"{second:.1f}" for second in times) + " s" if exact else _indices(frames)
        lines.append(f"  {len(frames)} frames: {_shortened(where)}")
    return lines


def _indices(frames: Sequence[Mapping[str, Any]]) -> str:
    return "number " + ", ".join(str(frame["index"]) for frame in frames)


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
