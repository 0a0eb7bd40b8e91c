"""``edgedl plot``: what there is to see of a run or a bundle, as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgedl.cli import arguments


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "plot",
        run,
        "draw a run, how a caption came about, or what a network sees in a photo",
        "Without an option: the curves of a run, or what its task shows instead.\n"
        "With --clip: the frames that a captioner used and, if it has attention, where it looked for each word. The\n"
        "attention is drawn for a run; a bundle's graph does not give it, so a bundle shows frames and sentences.\n"
        "With --occlusion: the places of a photo that a bundle's answer depends on; any bundle that takes a picture.\n"
        "With --features: first filters, what excites the units at each depth, Grad-CAM and occlusion; of a run of\n"
        "age, or of efficientnet-lite0, the public ImageNet network.\n"
        "With --learning-curve: the errors of three techniques against the number of training digits. It trains\n"
        "them, which takes less than two minutes of one core.",
    )
    parser.add_argument(
        "source",
        metavar="RUN|B",
        help="the folder of a run; with --clip also a bundle; with --occlusion a bundle; with --learning-curve digits",
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--clip", metavar="CLIP", help="a photo, a video, a folder of frames or camera:0")
    only.add_argument("--occlusion", metavar="PHOTO", help="hide this photo patch by patch and watch a bundle's answer")
    only.add_argument("--features", metavar="PHOTO", help="show what the network has learnt, and sees in this photo")
    only.add_argument(
        "--learning-curve", action="store_true", help="show how techniques scale with the amount of data; takes digits"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PNG",
        help="the picture to write (default: RUN/curves.png or what the task calls it; CLIP-caption.png; "
        "PHOTO-occlusion.png; PHOTO-features.png; digits-learning-curve.png)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    pictures = _draw(args)
    for picture in pictures:
        args.out.text(str(picture))
    args.out.document({"ok": True, "pictures": [str(picture) for picture in pictures]})
    return 0


def _draw(args: argparse.Namespace) -> list[Path]:
    if args.learning_curve:
        from edgedl.tasks.digits.learning_curve import plot_learning_curve

        _refuse_all_but_digits(args.source)
        return plot_learning_curve(args.output)
    path = Path(args.source)
    if args.occlusion is not None:
        from edgedl.tasks.occlusion.plot import plot_occlusion

        _refuse_run(path)
        return [plot_occlusion(path, args.occlusion, args.output)]
    if args.features is not None:
        from edgedl.tasks.features.plot import plot_features

        _refuse_bundle(path)
        return [plot_features(args.source, args.features, args.output)]
    from edgedl.tasks import task

    # Only what was asked for, so that a task need not know every other task's options.
    options = {} if args.clip is None else {"clip": args.clip}
    return task(_task_of(path, clip=args.clip is not None)).plot(path, args.output, **options)


def _is_bundle(path: Path) -> bool:
    return path.is_file() or (path / "manifest.json").is_file()


def _refuse_all_but_digits(source: str) -> None:
    from runtime.errors import InputError

    if source != "digits":
        raise InputError(
            f"--learning-curve trains on the embedded digits and reads no run, found {source}: "
            "edgedl plot digits --learning-curve"
        )


def _refuse_run(path: Path) -> None:
    from runtime.errors import InputError

    if (path / "config.json").is_file():
        raise InputError(f"{path} is a run; --occlusion asks the graph of a bundle: export it first")


def _refuse_bundle(path: Path) -> None:
    from runtime.errors import InputError

    if _is_bundle(path):
        raise InputError(
            f"{path} is a bundle, whose graph hides what is inside; --features needs the run, --occlusion not"
        )


def _task_of(path: Path, *, clip: bool) -> str:
    """The task of a run or of a bundle.

    Raises:
        InputError: it is neither, or a bundle where a run is needed.
    """
    from edgedl.training.run import Run
    from runtime.bundle import Bundle
    from runtime.errors import InputError

    if not _is_bundle(path):
        return Run.open(path).task
    name = Bundle.open(path, check=False).manifest.task
    if not clip:
        raise InputError(
            f"{path} is a bundle and has no curves: plot the run that it came from, or add --clip CLIP or "
            "--occlusion PHOTO"
        )
    return name
