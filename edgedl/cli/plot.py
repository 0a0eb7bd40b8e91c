"""``edgedl plot``: the curves of a run, or how the caption of a clip came about, as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgedl.cli import arguments, runs


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "plot",
        run,
        "draw the curves of a run, or how a caption came about",
        "With --clip: the frames that a captioner used and, if it has attention, where it looked for each word. The\n"
        "attention is drawn for a run; a bundle's graph does not give it, so a bundle shows frames and sentences.",
    )
    parser.add_argument("source", metavar="RUN|B", help="the folder of a run; with --clip also a bundle")
    parser.add_argument("--clip", metavar="CLIP", help="a photo, a video, a folder of frames or camera:0")
    parser.add_argument(
        "-o", "--output", metavar="PNG", help="the picture to write (default: RUN/curves.png, or CLIP-caption.png)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from edgedl.tasks import task

    path = Path(args.source)
    # Only what was asked for, so that a task need not know every other task's options.
    options = {} if args.clip is None else {"clip": args.clip}
    pictures = task(_task_of(path, clip=args.clip is not None)).plot(path, args.output, **options)
    for picture in pictures:
        args.out.text(str(picture))
    args.out.document({"ok": True, "pictures": [str(picture) for picture in pictures]})
    return 0


def _task_of(path: Path, *, clip: bool) -> str:
    """The task of a run or of a bundle.

    Raises:
        InputError: it is neither, or a bundle where a run is needed.
    """
    from runtime.bundle import Bundle
    from runtime.errors import InputError

    if not (path.is_file() or (path / "manifest.json").is_file()):
        return runs.task_of(path)
    name = Bundle.open(path, check=False).manifest.task
    if not clip:
        raise InputError(f"{path} is a bundle and has no curves: plot the run that it came from, or add --clip CLIP")
    return name
