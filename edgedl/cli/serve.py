"""``edgedl serve``: a page and an HTTP service for bundles."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgedl.cli import arguments, signing
from edgedl.cli.failures import BUG, USAGE, UsageError

KEYS_VARIABLE = "EDGEDL_API_KEYS"
SETTINGS = (
    "max_bytes", "max_pixels", "max_images", "body_seconds", "wait_seconds", "queue", "together", "connections",
    "record", "record_most", "record_bytes",
)  # fmt: skip
"""Options that are handed on where they are given; the service has their defaults."""


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "serve",
        run,
        "a page and an HTTP service for one or more bundles",
        "Serves until it is interrupted. Other machines reach it only with --host 0.0.0.0; then ask for keys and use\n"
        "TLS, or let it be reached by those alone who may use it.",
    )
    parser.add_argument(
        "bundles",
        metavar="[NAME=]B",
        nargs="*",
        help="bundles: folders or files NAME.edge; each is served under its own name unless you give it another",
    )
    add_place(parser)
    add_access(parser)
    add_limits(parser)
    add_life_cycle(parser)
    add_recording(parser)
    arguments.device(parser, "half of what this process may use")
    parser.add_argument("--variant", metavar="V", help="the form of the graphs, e.g. int8 (default: fp32)")
    log = parser.add_argument_group("log")
    log.add_argument("--access-log", action="store_true", help="a line for each request on standard error")
    log.add_argument("--log-format", choices=("text", "json"), default="text", help="text or json (default: text)")


def add_place(parser: argparse.ArgumentParser) -> None:
    """Declares where it listens."""
    group = parser.add_argument_group("place")
    group.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    group.add_argument("--port", type=arguments.port, default=8000, help="the port to listen on (default: 8000)")
    group.add_argument("--socket", metavar="PATH", help="listen on a Unix socket in place of a port")
    group.add_argument("--tls-cert", metavar="FILE", help="speak https with this certificate, a PEM file")
    group.add_argument("--tls-key", metavar="FILE", help="the key of the certificate, a PEM file without a password")
    group.add_argument("--prefix", default="", metavar="PATH", help="what every path begins with, e.g. /edgedl")
    group.add_argument(
        "--proxy",
        action="append",
        metavar="ADDRESS",
        help="a proxy whose headers may say where the service stands: an address, a network, or unix for whoever "
        "connects to the socket; may be given more than once (default: the variable FORWARDED_ALLOW_IPS)",
    )
    group.add_argument(
        "--workers",
        type=arguments.positive,
        default=1,
        metavar="N",
        help="processes that answer, each with its own copy of the bundles, none of which may stream (default: 1)",
    )


def add_life_cycle(parser: argparse.ArgumentParser) -> None:
    """Declares how bundles come and go while it serves."""
    group = parser.add_argument_group("life cycle")
    group.add_argument(
        "--repository",
        metavar="FOLDER",
        help="serve all bundles NAME.edge of a folder; they may be loaded and unloaded by name over HTTP",
    )
    group.add_argument(
        "--watch",
        action="store_true",
        help="when a bundle's files are replaced, verify what lies there and swap it in without losing a request",
    )
    group.add_argument(
        "--reprove",
        action="store_true",
        help="where no proof was made with this ONNX Runtime on this class of processor, keep one once all recorded "
        "answers were replayed",
    )


def add_recording(parser: argparse.ArgumentParser) -> None:
    """Declares what of the inputs is kept."""
    group = parser.add_argument_group("recording")
    group.add_argument(
        "--record",
        metavar="DIR",
        help="keep a sample of the inputs with their answers; the page and /v1 say so",
    )
    whole = arguments.positive
    group.add_argument("--record-most", type=whole, metavar="N", help="inputs of each bundle (default: 1000)")
    group.add_argument("--record-bytes", type=whole, metavar="N", help="bytes of each bundle (default: 268435456)")


def add_access(parser: argparse.ArgumentParser) -> None:
    """Declares who may ask, and what is served."""
    group = parser.add_argument_group("access")
    group.add_argument(
        "--api-keys",
        metavar="FILE",
        help=f"ask for a key: lines NAME:SHA256, one for each key (default: the variable {KEYS_VARIABLE})",
    )
    group.add_argument("--new-api-key", metavar="NAME", help="make a key, print it and its line, and serve nothing")
    group.add_argument(
        "--cors",
        action="append",
        type=origin,
        default=[],
        metavar="ORIGIN",
        help="a site whose pages may ask, e.g. https://example.org, or * for all; may be given more than once",
    )
    signing.trust(parser)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Declares what one request, and all of them together, may cost."""
    group = parser.add_argument_group("limits")
    whole, seconds = arguments.positive, arguments.seconds
    group.add_argument("--max-bytes", type=whole, metavar="N", help="largest body (default: 33554432)")
    arguments.max_pixels(group)
    group.add_argument("--max-images", type=whole, metavar="N", help="most pictures in one request (default: 32)")
    group.add_argument("--body-seconds", type=seconds, metavar="S", help="time a body may take to arrive (default: 30)")
    group.add_argument("--wait-seconds", type=seconds, metavar="S", help="time to wait for a turn (default: 30)")
    group.add_argument("--queue", type=whole, metavar="N", help="requests that may wait for a bundle (default: 256)")
    group.add_argument("--together", type=whole, metavar="N", help="requests that one run answers (default: 16)")
    group.add_argument("--connections", type=whole, metavar="N", help="open at a time in a worker (default: 1000)")


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    if args.new_api_key is not None:
        return _make_key(args)
    if not args.bundles and args.repository is None:
        raise UsageError("no bundle to serve; give bundles, or a folder of them with --repository FOLDER")
    if (args.tls_cert is None) != (args.tls_key is None):
        raise UsageError("--tls-cert and --tls-key belong together; give both")
    if args.record is None and (args.record_most is not None or args.record_bytes is not None):
        raise UsageError("--record-most and --record-bytes bound what --record DIR keeps; there is no --record")
    from service.gunicorn import announcement, serve
    from service.server.listening import Tls

    def announce(url: str, names: Sequence[str]) -> None:
        """The line with the address is the result of this verb."""
        args.out.text(announcement(url, names))
        bundles = [{"name": name, "url": f"{url}/v1/{name}"} for name in names]
        args.out.document({"ok": True, "url": url, "bundles": bundles})
        args.out.flush()

    settings: dict[str, Any] = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    if args.trust is not None:
        from runtime.signatures import read_keys

        settings["trust"] = read_keys(args.trust)
    status = serve(
        [_named(word) for word in args.bundles],
        host=args.host,
        port=args.port,
        socket_path=args.socket,
        tls=None if args.tls_cert is None else Tls(args.tls_cert, args.tls_key),
        prefix=args.prefix,
        proxies=args.proxy,
        workers=args.workers,
        access_log=args.access_log,
        log_format=args.log_format,
        device=args.device,
        threads=args.threads,
        variant=args.variant,
        watch=args.watch,
        reprove=args.reprove,
        repository=args.repository,
        announce=announce,
        keys=_keys(args),
        cors_origins=args.cors,
        **settings,
    )
    if status in (USAGE, BUG):  # nothing was announced
        message = "the service did not start; standard error has the reason"
        error = {"type": "ServiceError", "message": message, "exit_status": status}
        args.out.document({"ok": False, "error": error})
    return status


def origin(text: str) -> str:
    """The origin of a site, or ``*``."""
    parts = urlsplit(text)
    if text != "*" and (parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an origin such as https://example.org, without a path")
    return text


def _keys(args: argparse.Namespace) -> Any:
    """The keys that requests have to show one of; None where none is asked for."""
    from service.keys import parse_keys, read_keys

    if args.api_keys is not None:
        return read_keys(args.api_keys)
    listed = os.environ.get(KEYS_VARIABLE)
    return None if listed is None else parse_keys(listed.replace(",", "\n").split(), f"the variable {KEYS_VARIABLE}")


def _make_key(args: argparse.Namespace) -> int:
    from service.keys import new_key

    key, line = new_key(args.new_api_key)
    args.out.text(f"key   {key}\nline  {line}")
    args.out.document({"ok": True, "name": args.new_api_key, "key": key, "line": line})
    return 0


def _named(word: str) -> str | tuple[str, str]:
    """``NAME=B`` as a pair; a bundle whose path holds the sign is taken as it is."""
    name, sign, path = word.partition("=")
    return word if not sign or "/" in name or Path(word).exists() else (name, path)
