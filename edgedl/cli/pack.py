"""``edgedl pack``: a bundle as one file, as a page that runs it in a browser, or with all that it needs."""

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
        "make one file of a bundle, a page that runs it in a browser, or a folder with all that it needs",
        "The file is an uncompressed zip; everything that reads a bundle takes either form. Signatures and proofs stay "
        "with it. With --web a folder of static files is written instead: a page that runs the bundle in the visitor's "
        "browser and uploads nothing. With --wheelhouse a folder for a site without a network is written: the bundle, "
        "the packages that it needs there, and a bill of materials.",
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
        "--wheelhouse",
        metavar="DIR",
        help="write the bundle and all packages that it needs into this folder, with an SBOM; pip fetches the packages",
    )
    parser.add_argument(
        "--platform",
        metavar="P",
        help="with --wheelhouse: MACHINE-PYTHON-GLIBC of the device, e.g. aarch64-3.11-2.36 (default: this machine)",
    )
    parser.add_argument(
        "--extras", metavar="E", help="with --wheelhouse: those of edgedl that the device needs (default: cpu,serve)"
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
    if args.wheelhouse is not None:
        if args.output is not None or args.sign is not None:
            raise InputError("--wheelhouse writes a folder and no file to sign; sign the bundle first, then pack it")
        return _wheelhouse(args, bundle)
    if args.platform is not None or args.extras is not None:
        raise InputError("--platform and --extras belong to --wheelhouse; give it a folder")
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


def _wheelhouse(args: argparse.Namespace, bundle: Bundle) -> int:
    import platform
    import sys
    from pathlib import Path

    from edgedl.deploy.carry import write_wheelhouse
    from edgedl.deploy.wheelhouse import EXTRAS, Platform, fetch_wheels

    own = {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "machine": platform.machine(),
        "system": sys.platform,
        "libc": platform.libc_ver(),
    }
    target = Platform.of(own, "this machine") if args.platform is None else Platform.parse(args.platform)
    wheels = fetch_wheels(target, args.extras or EXTRAS)
    length = write_wheelhouse(bundle, wheels, Path(args.wheelhouse))
    args.out.text(f"{args.wheelhouse}: {bundle.manifest.name} and {len(wheels)} packages for {target}, {size(length)}")
    packages = [{"name": wheel.name, "version": wheel.version, "sha256": wheel.sha256} for wheel in wheels]
    document = {"ok": True, "wheelhouse": args.wheelhouse, "platform": str(target), "packages": packages}
    args.out.document({**document, "bytes": length})
    return 0
