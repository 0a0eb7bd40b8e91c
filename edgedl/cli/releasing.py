"""What a bundle has to be proven on before it is released: the options of `export` and `pull` that say so."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.bundle import Bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--require`` and ``--require-share``."""
    group = parser.add_argument_group("release")
    group.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="T",
        help="a target that the bundle has to be proven on before it may be released, e.g. arm64; may be repeated",
    )
    group.add_argument(
        "--require-share",
        type=_share,
        default=1.0,
        metavar="X",
        help="how much of a tolerance an error may take there, above 0 and at most 1 (default: 1)",
    )


def demanded(args: argparse.Namespace, bundle: Bundle) -> Bundle:
    """The bundle with what the options ask for in its manifest.

    Raises:
        TargetError: there is no such target.
        BundleError: the bundle cannot be written.
    """
    if not args.require:
        return bundle
    from exporters.targets.known import find_target
    from runtime.bundle import write_bundle
    from runtime.release import Release

    for name in args.require:
        find_target(name)
    release = Release(tuple(dict.fromkeys(args.require)), args.require_share)
    files = {name: bundle.read(name) for name in bundle.files}
    return write_bundle(bundle.path, replace(bundle.manifest, release=release), files)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and at most 1")
    return value
