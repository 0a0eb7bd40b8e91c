"""The proof on a target: recorded inputs go there, and the answers are judged here as `verify` judges them."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from exporters.targets.arithmetic import Term, probe, terms, with_terms
from exporters.targets.base import CallTimes, RemoteSession, Target, TargetError, TargetMachine
from exporters.targets.cases import telling_cases
from runtime.bundle import Bundle
from runtime.compare import OutputCheck, failure
from runtime.engine import Engine
from runtime.errors import BundleError
from runtime.feeds import feeds, main_model
from runtime.manifest import ModelSpec
from runtime.proofs import Proof
from runtime.verify import VerifyReport, check_graph, graphs_of

CALLS = 20
"""Calls that are timed on a target that is not emulated."""


@dataclass(frozen=True, slots=True)
class ProveReport:
    """What a target answered.

    Attributes:
        target: Its name.
        emulated: Whether its processor is emulated.
        machine: What stands behind it.
        ok: Whether every output of every graph is as recorded.
        checks: The verdicts, as `verify` gives them.
        proofs: One for each variant that was judged, for ``proofs.json``.
        estimated: Operators that the target only estimates, with their relative error, see `arithmetic`.
        notes: Outputs that failed, and whose tolerance could not be widened for that.
    """

    target: str
    emulated: bool
    machine: TargetMachine
    ok: bool
    checks: tuple[OutputCheck, ...]
    proofs: tuple[Proof, ...]
    estimated: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.ok

    def to_json(self) -> dict[str, Any]:
        """JSON-able values, with the rows of `VerifyReport`."""
        return {
            "ok": self.ok,
            "target": self.target,
            "emulated": self.emulated,
            "onnxruntime": self.machine.onnxruntime,
            "processor": self.machine.processor,
            "processor_class": self.machine.processor_class,
            "system": self.machine.system,
            "estimated": dict(self.estimated),
            "notes": list(self.notes),
            "checks": self._rows.to_json()["checks"],
        }

    def __str__(self) -> str:
        machine = self.machine
        where = f"{self.target}: ONNX Runtime {machine.onnxruntime}, {machine.processor}, {machine.system}"
        lines = [f"{where}{', under emulation' if self.emulated else ''}"]
        if self.estimated:
            told = ", ".join(f"{name} by {error:.1e}" for name, error in self.estimated.items())
            lines.append(f"operators that are off there: {told}")
        return "\n".join([*lines, str(self._rows), *self.notes])

    @property
    def _rows(self) -> VerifyReport:
        return VerifyReport(self.ok, self.target, "", self.checks)


def prove(bundle: Bundle, target: Target, variant: str | None = None, *, every_case: bool = False) -> ProveReport:
    """Replays the recorded cases of a bundle on a target.

    Args:
        bundle: The bundle.
        target: Where; it is open.
        variant: The one variant to prove; None proves those that `verify` checks.
        every_case: Whether all cases are replayed under emulation, too, and not those only that add something.

    Raises:
        TargetError: the target was lost.
        BundleError: the bundle is damaged.
        InputError: no model has this variant.
    """
    machine = target.machine()
    checks: list[OutputCheck] = []
    cases: dict[str, int] = {}
    times: dict[str, CallTimes | None] = {}
    main = main_model(bundle)
    errors = _estimated(target)
    widened: dict[str, float] = {}
    unheld: list[tuple[str, str, Term]] = []
    for model, form in graphs_of(bundle, variant):
        spec = bundle.model(model)
        recorded = bundle.golden(model)
        chosen = recorded
        if target.emulated and not every_case and spec.variants[form].budget is None:
            chosen = telling_cases(spec, recorded)
        graph = bundle.graph(model, form)
        if errors and spec.variants[form].budget is None:
            found = terms(graph, spec, form, chosen, errors)
            unheld += [(model, form, term) for term in found if term.size and not term.holds]
            held = [term for term in found if term.size and term.holds]
            spec = with_terms(spec, form, held)
            widened[form] = max([widened.get(form, 0.0), *(term.size / (term.allowed + term.size) for term in held)])
        try:
            session = target.session(graph)
        except TargetError as error:
            _check_not_lost(target)
            checks += _refused(spec, model, form, f"the graph does not load: {error}")
            continue
        with session, Engine(graph, spec=spec, threads=1, name=model) as engine:
            engine.through(_instead(session))
            checks += check_graph(engine, chosen, form, asked=variant is not None, elsewhere=machine.processor_class)
            _check_not_lost(target)
            if model == main and not target.emulated:
                times[form] = _times(bundle, model, session)
        cases[form] = cases.get(form, 0) + len(chosen)
    proofs = _proofs(bundle, target, machine, checks, cases, times, widened)
    ok = bool(checks) and all(checks)
    failed = {(check.model, check.variant, check.output) for check in checks if not check.ok}
    notes = [_told(model, term) for model, form, term in unheld if (model, form, term.output) in failed]
    return ProveReport(target.name, target.emulated, machine, ok, tuple(checks), proofs, errors, tuple(notes))


def _estimated(target: Target) -> dict[str, float]:
    """What the target's operators are off by; nothing where onnx is not installed, and then no term is added."""
    try:
        return probe(target)
    except ImportError:
        return {}


def _told(model: str, term: Term) -> str:
    return (
        f"{model}, {term.output}: the target's arithmetic moves it by up to {term.size:.2e}, too near to the weakest "
        f"mutant ({term.mutant:.2e}) to be allowed"
    )


def _check_not_lost(target: Target) -> None:
    lost = target.lost()
    if lost:
        raise TargetError(lost)


def _instead(session: RemoteSession) -> Any:
    """What `Engine.through` takes to run another session."""
    return lambda _: session


def _refused(spec: ModelSpec, model: str, variant: str, why: str) -> list[OutputCheck]:
    return [failure(OutputCheck(one.name, model=model, variant=variant), why) for one in spec.outputs]


def _times(bundle: Bundle, model: str, session: RemoteSession) -> CallTimes | None:
    """How long calls at batch 1 take there; None where nothing was recorded to call with, or the call fails."""
    try:
        return session.times(feeds(bundle, model)[1], CALLS)
    except (BundleError, TargetError):
        return None


def _proofs(
    bundle: Bundle,
    target: Target,
    machine: TargetMachine,
    checks: Sequence[OutputCheck],
    cases: Mapping[str, int],
    times: Mapping[str, CallTimes | None],
    widened: Mapping[str, float],
) -> tuple[Proof, ...]:
    """A proof for each variant of which something was judged."""
    found = []
    for variant in dict.fromkeys(check.variant for check in checks):
        rows = [check for check in checks if check.variant == variant]
        judged = [check for check in rows if check.judged]
        if not judged:
            continue  # nothing was recorded that could judge: no proof
        timed = times.get(variant)
        proof = Proof(
            digest=bundle.digest,
            target=target.name,
            onnxruntime=machine.onnxruntime,
            processor=machine.processor,
            variant=variant,
            ok=all(rows),
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            max_abs=_finite(max(check.max_abs for check in rows)),
            share=_finite(max(_share(check) for check in judged)),
            system=machine.system,
            processor_class=machine.processor_class,
            emulated=target.emulated,
            cases=cases.get(variant, 0),
            recorded=sum(len(bundle.golden(model)) for model in dict.fromkeys(check.model for check in rows)),
            changed=sum(check.decision_changes for check in rows),
            arithmetic=_finite(widened[variant]) if widened.get(variant) else None,
        )
        found.append(_timed(proof, timed) if timed else proof)
    return tuple(found)


def _share(check: OutputCheck) -> float:
    return 0.0 if math.isnan(check.allowed) else check.share


def _timed(proof: Proof, times: CallTimes) -> Proof:
    p50, p95 = (round(float(value) * 1e3, 3) for value in np.percentile(times.calls, [50, 95]))
    memory = None if times.memory_mb is None else round(times.memory_mb, 1)
    return replace(proof, first_s=round(times.first, 4), p50_ms=p50, p95_ms=p95, memory_mb=memory)


def _finite(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
