"""``edgedl prove``: replay the recorded answers on targets, and keep the proofs with the bundle."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgedl.cli import arguments
from edgedl.cli.matrix import missing_proofs, release_document, told_release

if TYPE_CHECKING:
    from exporters.targets.base import Target
    from exporters.targets.prove import ProveReport
    from runtime.bundle import Bundle

USUAL = ("arm64/cortex-a53", "arm64/cortex-a72", "arm64/cortex-a76", "armhf", "node", "browser", "onnxruntime==1.21.1")
"""What ``--all`` proves on where the manifest asks for nothing; the release is the oldest that the runtime admits."""

SIDE_BY_SIDE = 2


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "prove",
        run,
        "replay the recorded answers on a target, and keep the proof with the bundle",
        "A target runs the graphs with the ONNX Runtime that lives there; this machine compares, as `verify` does.\n"
        "Targets set themselves up in the cache. The proof is written into proofs.json beside the manifest.\n"
        "Where answers differ, the first node that does is named, if the extra `train` is installed.",
    )
    arguments.bundle(parser)
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="T",
        help="arm64, arm64/cortex-a53, arm64/cortex-a72, arm64/cortex-a76, armhf, x86_64/haswell (emulated); "
        "onnxruntime==X (another release here); node, browser (here); ssh://USER@HOST; may be given several "
        "times, two run side by side",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="every target that the manifest asks for, and say whether the bundle may be released; without such a "
        f"demand: {', '.join(USUAL)}",
    )
    arguments.variant(parser)
    parser.add_argument("--python", default="python3", metavar="PATH", help="the interpreter of a host over ssh")
    parser.add_argument("--ssh-config", metavar="FILE", help="a configuration of ssh in the place of yours")
    parser.add_argument(
        "--every-case",
        action="store_true",
        help="replay all recorded cases under emulation, too, and not those only that add something",
    )


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a target: a report, or why it could not be had; and what explains answers that differ."""

    target: str
    report: ProveReport | None
    problem: str = ""
    explanations: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.report is None:
            return f"{self.target}: not proven: {self.problem}"
        return "\n".join([str(self.report), *self.explanations])

    def to_json(self) -> dict[str, Any]:
        if self.report is None:
            return {"ok": False, "target": self.target, "problem": self.problem}
        return {**self.report.to_json(), "explanations": list(self.explanations)}


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from concurrent.futures import ThreadPoolExecutor

    from edgedl.cli.failures import UsageError
    from exporters.targets.base import TargetError
    from exporters.targets.known import find_target
    from runtime.bundle import Bundle, record_proof

    if not args.target and not args.all:
        raise UsageError("say where: --target T, or --all")
    bundle = Bundle.open(args.bundle)
    release = bundle.manifest.release
    demanded = (release.targets if release else USUAL) if args.all else ()
    named = [find_target(name, python=args.python, ssh_config=args.ssh_config) for name in (*args.target, *demanded)]
    targets = {target.name: target for target in named}
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        outcomes = list(pool.map(lambda target: _prove(args, bundle, target), targets.values()))
    reports = [outcome.report for outcome in outcomes if outcome.report is not None]
    proofs = [proof for report in reports for proof in report.proofs]
    if proofs:
        bundle = record_proof(args.bundle, *proofs)
    if len(outcomes) == 1 and not reports:
        raise TargetError(outcomes[0].problem)
    ok = _show(args, bundle, outcomes, len(proofs))
    args.out.document(
        {
            "ok": ok,
            "digest": bundle.digest,
            "targets": [outcome.to_json() for outcome in outcomes],
            "proofs": [asdict(proof) for proof in proofs],
            "release": release_document(bundle),
        }
    )
    absent = any(outcome.report is None for outcome in outcomes)
    return 0 if ok else 2 if absent and all(reports) else 1


def _show(args: argparse.Namespace, bundle: Bundle, outcomes: Sequence[_Outcome], proofs: int) -> bool:
    """Tells people what was found, and gives the verdict."""
    args.out.text("\n\n".join(map(str, outcomes)))
    same = [outcome for outcome in outcomes if outcome.report]
    failed = [outcome for outcome in outcomes if outcome.report is not None and not outcome.report]
    told = [f"the same answers on {len(same)} of {len(outcomes)} targets" if len(outcomes) > 1 else ""]
    if len(outcomes) == 1:
        told = ["not the same answers" if failed else "the same answers"]
    told.append(f"{proofs} {'proof is' if proofs == 1 else 'proofs are'} in proofs.json")
    args.out.text(f"\n{'; '.join(told)}")
    if args.all and told_release(bundle):
        args.out.text(told_release(bundle))
    return len(same) == len(outcomes) and not (args.all and missing_proofs(bundle))


def _prove(args: argparse.Namespace, bundle: Bundle, target: Target) -> _Outcome:
    from exporters.targets.base import TargetError
    from exporters.targets.prove import prove

    try:
        with target:
            report = prove(bundle, target, args.variant, every_case=args.every_case)
            return _Outcome(target.name, report, explanations=_explained(bundle, target, report))
    except TargetError as error:
        return _Outcome(target.name, None, str(error))


def _explained(bundle: Bundle, target: Target, report: ProveReport) -> tuple[str, ...]:
    """The first node that differs, of each graph whose answers do."""
    from exporters.targets.base import TargetError
    from runtime.errors import BundleError

    models = bundle.manifest.models
    # A variant with a budget gives other answers at every node: there is none to name.
    wrong = [c for c in report.checks if not c.ok and models[c.model].variants[c.variant].budget is None]
    told = []
    for model, variant in dict.fromkeys((check.model, check.variant) for check in wrong):
        try:
            from exporters.explain import explain

            found = explain(bundle, model, variant, opened=target.session)
        except ImportError as error:
            said = f"which node is at fault is told where the extra train is installed ({error.name} is missing)"
        except (BundleError, TargetError) as error:
            said = str(error)
        else:
            said = str(found) if found else "every value inside the graph is as recorded"
        told.append(f"{model} {variant}: {said}")
    return tuple(told)
