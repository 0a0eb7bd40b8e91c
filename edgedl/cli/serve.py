"""``edgedl serve``: a page and an HTTP service for bundles."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from edgedl.cli import arguments, signing
from edgedl.cli.failures import BUG, USAGE, UsageError


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "serve",
        run,
        "a page and an HTTP service for one or more bundles",
        "Serves until it is interrupted. Other machines reach it only with --host 0.0.0.0; there is no log-in, so let\n"
        "it be reached by those alone who may use it.",
    )
    parser.add_argument(
        "bundles",
        metavar="[NAME=]B",
        nargs="*",
        help="bundles: folders or files NAME.edge; each is served under its own name unless you give it another",
    )
    parser.add_argument(
        "--repository",
        metavar="FOLDER",
        help="serve all bundles NAME.edge of a folder; they may be loaded and unloaded by name over HTTP",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="when a bundle's files are replaced, verify what lies there and swap it in without losing a request",
    )
    parser.add_argument(
        "--workers",
        type=arguments.positive,
        default=1,
        metavar="N",
        help="processes that answer, each with its own copy of the bundles, which may not stream (default: 1)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=arguments.port, default=8000, help="the port to listen on (default: 8000)")
    signing.trust(parser)
    arguments.max_pixels(parser)
    arguments.device(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from service.gunicorn import announcement, serve

    if not args.bundles and args.repository is None:
        raise UsageError("no bundle to serve; give bundles, or a folder of them with --repository FOLDER")

    def announce(url: str, names: Sequence[str]) -> None:
        """The line with the address is the result of this verb."""
        args.out.text(announcement(url, names))
        bundles = [{"name": name, "url": f"{url}/v1/{name}"} for name in names]
        args.out.document({"ok": True, "url": url, "bundles": bundles})
        args.out.flush()

    limits = {} if args.max_pixels is None else {"max_pixels": args.max_pixels}
    trust = None
    if args.trust is not None:
        from runtime.signatures import read_keys

        trust = read_keys(args.trust)
    status = serve(
        [_named(word) for word in args.bundles],
        host=args.host,
        port=args.port,
        device=args.device,
        threads=args.threads,
        watch=args.watch,
        repository=args.repository,
        workers=args.workers,
        announce=announce,
        trust=trust,
        **limits,
    )
    if status in (USAGE, BUG):  # nothing was announced
        message = "the service did not start; standard error has the reason"
        error = {"type": "ServiceError", "message": message, "exit_status": status}
        args.out.document({"ok": False, "error": error})
    return status


def _named(word: str) -> str | tuple[str, str]:
    """``NAME=B`` as a pair; a bundle whose path holds the sign is taken as it is."""
    name, sign, path = word.partition("=")
    return word if not sign or "/" in name or Path(word).exists() else (name, path)
