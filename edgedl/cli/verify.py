"""``edgedl verify``: replay the recorded answers on this machine."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgedl.cli import arguments

if TYPE_CHECKING:
    from runtime.bundle import Bundle


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
    parser.add_argument(
        "--explain", action="store_true", help="where the answers differ, name the first node that does"
    )


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
        graphs = dict.fromkeys((check.model, check.variant) for check in report.checks if not check.ok)
        if not graphs:
            args.out.text("nothing to explain: every output is as recorded")
        document["explanations"] = [_explain(args, bundle, *graph) for graph in graphs]
    args.out.document(document)
    return 0 if report else 1


def _explain(args: argparse.Namespace, bundle: Bundle, model: str, variant: str) -> dict[str, Any]:
    from exporters.explain import explain
    from runtime.errors import BundleError

    try:
        difference = explain(bundle, model, variant, args.device)
    except BundleError as error:  # no trace: the verdict stands all the same
        difference, found = None, str(error)
    else:
        found = str(difference) if difference else "every value inside the graph is as recorded"
    args.out.text(f"{model} {variant}: {found}")
    difference_document = asdict(difference) if difference else None
    return {"model": model, "variant": variant, "found": found, "difference": difference_document}
