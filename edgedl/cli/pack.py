"""``edgedl pack``: a bundle as one file, or as a page that runs it in a browser."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edgedl.cli import arguments, signing
from edgedl.cli.output import size

if TYPE_CHECKING:
    from runtime.bundle import Bundle


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "pack",
        run,
        "make one file of a bundle, or a page that runs it in a browser",
        "The file is an uncompressed zip; everything that reads a bundle takes either form. Signatures and proofs stay "
        "with it. With --web a folder of static files is written instead: a page that runs the bundle in the visitor's "
        "browser and uploads nothing.",
    )
    arguments.bundle(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="the file to write (default: NAME-VERSION.edge)")
    parser.add_argument(
        "--web",
        metavar="DIR",
        help="write a page into this folder, which any server of static files can serve; needs npm, which fetches ONNX "
        "Runtime Web once, and the extra `serve`",
    )
    parser.add_argument(
        "--sign",
        metavar="KEY",
        help="sign it with this secret key of minisign, which `minisign -G` makes (needs the extra `sign`); a password "
        "is asked for, or read from standard input",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from runtime.bundle import Bundle, pack
    from runtime.errors import InputError

    bundle = Bundle.open(args.bundle)
    if args.web is not None:
        if args.output is not None or args.sign is not None:
            raise InputError("--web writes a folder and no file to sign; leave out --output and --sign")
        return _page(args, bundle)
    signatures, signer = {}, None
    if args.sign is not None:
        from runtime.signatures import read_secret_key, sign

        key = read_secret_key(args.sign, signing.password)
        signatures, signer = sign(bundle, key), key.public.name
    path = args.output or f"{bundle.manifest.name}-{bundle.manifest.version}.edge"
    packed = pack(bundle, path, signatures=signatures)
    length = packed.path.stat().st_size
    args.out.text(f"{packed.path}: {size(length)}" + (f", signed by the key {signer}" if signer else ""))
    args.out.document({"ok": True, "bundle": str(packed.path), "bytes": length, "signed_by": signer})
    return 0


def _page(args: argparse.Namespace, bundle: Bundle) -> int:
    from edgedl.deploy.web.build import build_page

    page = build_page(bundle, args.web)
    args.out.text(f"{page.folder}: a page of {page.files} files, {size(page.bytes)}")
    args.out.document({"ok": True, "web": str(page.folder), "files": page.files, "bytes": page.bytes})
    return 0
