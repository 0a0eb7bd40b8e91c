"""``edgedl verify``: replay the recorded answers on this machine."""

from __future__ import annotations

import argparse

from edgedl.cli import arguments


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "verify",
        run,
        "replay the recorded answers on this machine",
        "One row per output: the worst absolute and relative error, what was allowed, the verdict.\n"
        "Needs numpy and onnxruntime only; --explain needs the extra `train`.",
    )
    arguments.bundle(parser)
    arguments.variant(parser)
    arguments.device(parser)
    parser.add_argument("--explain", action="store_true", help="name the first node whose output differs")


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from runtime.bundle import Bundle
    from runtime.verify import verify

    bundle = Bundle.open(args.bundle)
    report = verify(bundle, device=args.device, threads=args.threads, variant=args.variant)
    args.out.text(str(report))
    verdict = "the same answers" if report.ok else "not the same answers"
    args.out.text(f"\n{verdict} on {report.device} ({report.provider})")
    document = {**report.to_json(), "ok": bool(report)}
    if args.explain:
        from exporters.explain import explain

        explanation = explain(bundle, device=args.device, threads=args.threads, variant=args.variant)
        args.out.text(f"\n{explanation}")
        document["explanation"] = explanation.to_json()
    args.out.document(document)
    return 0 if report else 1
