"""``edgedl quantize``: int8 within a budget of the task's metric."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgedl.cli import arguments
from edgedl.cli.output import number, table

if TYPE_CHECKING:
    from exporters.quantize.judging import Judgement
    from exporters.quantize.quantize import QuantizeReport

CLASSES = ("avx2", "arm", "arm-dot")


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "quantize",
        run,
        "add a variant in int8 that is faster here and within a budget",
        "Each model of the bundle is tried. A candidate is taken only if it is faster on this machine and the task's\n"
        "metric gets worse by no more than --max-drop. Three parts of the data that share no sample calibrate, choose\n"
        "and judge. float32 stays the default; --variant int8 chooses the variant. Needs the extra `train`.",
    )
    arguments.bundle(parser)
    parser.add_argument(
        "--max-drop",
        type=_drop,
        required=True,
        metavar="X",
        help="by how much the task's metric may get worse, in its own unit: years of MAE for age, a fraction for "
        "accuracy (0.01 is one in a hundred), nats per character for chars",
    )
    parser.add_argument(
        "--data", metavar="PATH", help="a folder or zip in the data set's own format (default: the embedded data)"
    )
    parser.add_argument("--format", metavar="F", help="of --data, where it cannot be told from its contents")
    parser.add_argument(
        "--samples",
        type=arguments.positive,
        metavar="N",
        help="most samples that judge (default: the task's, 2000 of age)",
    )
    parser.add_argument(
        "--model", action="append", default=[], metavar="M", help="try this model only; may be given several times"
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        choices=CLASSES,
        help="a class of processor that the budget must hold on, too, under emulation; may be given several times",
    )
    parser.add_argument("-o", "--output", metavar="B", help="write the result here (default: in place)")
    parser.add_argument(
        "--threads", type=arguments.positive, default=1, metavar="N", help="threads of what is timed (default: 1)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from edgedl.tasks import task, task_names
    from runtime.bundle import Bundle
    from runtime.errors import InputError

    if args.format and not args.data:
        raise InputError("--format says how --data is to be read; there is no --data")
    bundle = Bundle.open(args.bundle)
    name = bundle.manifest.task
    if name not in task_names():
        raise InputError(
            f"{args.bundle}: the task {name!r} has no metric that edgedl knows, so nothing can say what int8 costs; "
            f"quantize takes bundles of {', '.join(task_names())}"
        )
    judge = task(name).judge(args.data, args.format, args.samples)
    from exporters.quantize.quantize import quantize_bundle

    report = quantize_bundle(
        bundle, judge, args.max_drop, output=args.output, models=args.model, also=args.also, threads=args.threads
    )
    args.out.text(_told(report))
    args.out.document(_document(report))
    return 0 if report.written else 1


def _drop(text: str) -> float:
    """A budget: a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value


def _told(report: QuantizeReport) -> str:
    judge = report.judge
    sizes = ", ".join(f"{count} {part}" for part, count in judge.sizes.items())
    header = ("model", "form", "calibration", "int8", "float32", "times as fast", judge.metric, "drop", "")
    rows = [
        (
            one.model,
            one.form,
            one.calibration or "-",
            one.layers,
            len(one.reverted),
            str(one.speed) if one.speed else None,
            one.value,
            one.drop,
            one.verdict,
        )
        for one in report.attempts
    ]
    parts = [f"{judge.dataset}: {sizes}; {judge.metric} in {judge.unit}, {number(report.allowed)} allowed"]
    parts.append(table(header, rows))
    if report.judgements:
        judged = ("judged on", "n", f"{judge.metric} fp32", "int8", "drop", "decisions changed", "recorded cases", "")
        parts.append(table(judged, [_judged(one) for one in report.judgements]))
    if report.written:
        parts.append(
            f"{report.written.path}: variant int8 of {', '.join(report.models)}, digest {report.written.digest}"
        )
    else:
        parts.append(f"refused, nothing is written: {report.reason}")
    return "\n\n".join(parts)


def _judged(one: Judgement) -> tuple[Any, ...]:
    return (
        one.processor + (" (emulated)" if one.emulated else ""),
        one.n,
        one.fp32,
        one.value,
        one.drop,
        _counts(one.decisions),
        _counts(one.recorded),
        "within the budget" if one.within else "misses the budget",
    )


def _counts(counted: Any) -> str:
    return ", ".join(f"{name} {one.changed} of {one.of}" for name, one in counted.items())


def _document(report: QuantizeReport) -> dict[str, Any]:
    from runtime.machine import describe_machine
    from runtime.processor import processor_class

    judge = report.judge
    return {
        "ok": report.written is not None,
        "dataset": judge.dataset,
        "metric": judge.metric,
        "unit": judge.unit,
        "allowed": report.allowed,
        "parts": dict(judge.sizes),
        "attempts": [asdict(attempt) for attempt in report.attempts],
        "judgements": [asdict(judgement) for judgement in report.judgements],
        "written": str(report.written.path) if report.written else None,
        "digest": report.written.digest if report.written else None,
        "models": list(report.models),
        "reason": report.reason,
        "processor": processor_class(),
        "machine": describe_machine(),
    }
