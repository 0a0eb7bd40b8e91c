"""``edgedl serve``: a page and an HTTP service for bundles."""

from __future__ import annotations

import argparse
import contextlib

from edgedl.cli import arguments


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
    parser.add_argument("bundles", metavar="B", nargs="+", help="bundles: folders or files NAME.edge")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=arguments.port, default=8000, help="the port to listen on (default: 8000)")
    arguments.max_pixels(parser)
    arguments.device(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from service.gunicorn import serve

    # The line with the address is the result of this verb.
    limits = {} if args.max_pixels is None else {"max_pixels": args.max_pixels}
    with contextlib.redirect_stdout(args.out.stream):
        return serve(args.bundles, host=args.host, port=args.port, device=args.device, threads=args.threads, **limits)
