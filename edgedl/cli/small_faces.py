"""``edgedl predict`` with a bundle that finds faces: how small, and whether the photo may lie on its side."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.pipelines.base import Pipeline

OPTIONS = ("smallest", "turned")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares how faces are looked for."""
    group = parser.add_argument_group("faces", "of an age bundle")
    group.add_argument(
        "--smallest",
        type=float,
        metavar="SHARE",
        help="look for faces as small as this share of the longest side, 0.01 to 1; 0: look once (default: the "
        "bundle's, where the first look finds no face, or small ones)",
    )
    group.add_argument(
        "--turned",
        action="store_const",
        const=True,
        help="the photo may lie on its side or stand on its head: look at it in all four positions",
    )


def given_options(args: argparse.Namespace, pipeline: Pipeline) -> dict[str, Any]:
    """The options of `add_arguments` that were given.

    Raises:
        InputError: the bundle has no such option.
    """
    from runtime.errors import InputError

    given = {name: value for name in OPTIONS if (value := getattr(args, name)) is not None}
    if missing := [f"--{name}" for name in given if name not in pipeline.options]:
        raise InputError(f"{', '.join(missing)}: a bundle of the task {pipeline.task!r} finds no faces")
    return given
