"""``edgedl verify``: replay the recorded answers on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedl.cli import arguments, signing

if TYPE_CHECKING:
    from runtime.bundle import Bundle
    from runtime.compare import OutputCheck


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
    signing.trust(parser)
    parser.add_argument(
        "--explain", action="store_true", help="where the answers differ, name the first node that does"
    )
    parser.add_argument(
        "--reproduce", metavar="FOLDER", help="with --explain: write that node there, with its inputs and its answer"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from runtime.bundle import Bundle
    from runtime.verify import verify

    bundle = Bundle.open(args.bundle)
    signer = signing.trusted_signer(args, bundle)
    report = verify(bundle, device=args.device, threads=args.threads, variant=args.variant)
    args.out.text(str(report))
    wrong = [check for check in report.checks if not check.ok]
    verdict = (
        "the same answers" if report.ok else "not the same answers" if any(c.judged for c in wrong) else "not proven"
    )
    args.out.text(f"\n{verdict} on {report.device} ({report.provider}){_budgets(bundle, report.checks)}")
    document = {**report.to_json(), "ok": bool(report)}
    if signer:
        args.out.text(f"signed by {signer}")
        document["signer"] = asdict(signer)
    if args.explain:
        models = bundle.manifest.models
        # A variant with a budget gives other answers at every node: there is none to name.
        failed = [c for c in wrong if models[c.model].variants[c.variant].budget is None]
        graphs = dict.fromkeys((check.model, check.variant) for check in failed)
        if not graphs:
            held = "what differs is counted and not explained" if wrong else "every output is as recorded"
            args.out.text(f"nothing to explain: {held}")
        worst = {(check.model, check.variant): check for check in reversed(wrong)}
        document["explanations"] = [_explain(args, bundle, *graph, worst[graph]) for graph in graphs]
    args.out.document(document)
    return 0 if report else 1


def _budgets(bundle: Bundle, checks: Sequence[OutputCheck]) -> str:
    """What holds of variants that give other answers and are held to a budget."""
    graphs = dict.fromkeys((check.model, check.variant) for check in checks)
    told = ""
    for model, variant in graphs:
        if bundle.model(model).variants[variant].budget is not None:
            rows = [check for check in checks if (check.model, check.variant) == (model, variant)]
            counted = f"changes {'no more' if all(rows) else 'more'} decisions than was recorded"
            judged = any(check.judged for check in rows)
            told += f"; {model} {variant} {counted if judged else 'is not judged here'}"
    return told


def _explain(args: argparse.Namespace, bundle: Bundle, model: str, variant: str, worst: OutputCheck) -> dict[str, Any]:
    from runtime.errors import BundleError

    try:
        from exporters.explain import explain

        folder = Path(args.reproduce, *(() if model == bundle.manifest.name else (model,))) if args.reproduce else None
        difference = explain(bundle, model, variant, args.device, folder)
    except ImportError as error:
        difference = None
        found = (
            f"{worst.output} is furthest off on case {worst.worst_case!r}; which node is at fault is told where the "
            f"extra train is installed ({error.name or error} is missing)"
        )
    except BundleError as error:  # no trace: the verdict stands all the same
        difference, found = None, str(error)
    else:
        found = str(difference) if difference else "every value inside the graph is as recorded"
    args.out.text(f"{model} {variant}: {found}")
    difference_document = asdict(difference) if difference else None
    return {"model": model, "variant": variant, "found": found, "difference": difference_document}
