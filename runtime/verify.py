"""Replays the recorded answers of a bundle on this machine: numpy and onnxruntime are all it needs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from runtime.bundle import Bundle
from runtime.compare import OutputCheck, failure, merge
from runtime.decisions import check_budget
from runtime.door import prove_case
from runtime.engine import Engine
from runtime.errors import InputError
from runtime.golden import GoldenCase


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The verdict, true when every output of every graph stays within what was measured at export."""

    ok: bool
    device: str
    provider: str
    checks: tuple[OutputCheck, ...]

    def __bool__(self) -> bool:
        return self.ok

    def to_json(self) -> dict[str, Any]:
        """JSON-able values; an error that is no number (NaN, or a wrong shape) becomes null."""
        rows = [
            {"model": check.model, "variant": check.variant}
            | {key: _finite(value) for key, value in asdict(check).items()}
            for check in self.checks
        ]
        return {"ok": self.ok, "device": self.device, "provider": self.provider, "checks": rows}

    def __str__(self) -> str:
        head = ("model", "variant", "output", "cases", "max abs", "max rel", "allowed", "")
        rows = [head, *(_row(check) for check in self.checks)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in lines)


def verify(
    bundle: Bundle | str | os.PathLike[str],
    *,
    device: str = "cpu",
    threads: int | None = None,
    variant: str | None = None,
) -> VerifyReport:
    """Runs every recorded case and compares the answers with the recorded ones, see `runtime.compare`.

    An output without recorded answers does not pass. Of a variant with a budget decisions are counted, see
    `runtime.decisions`.

    Args:
        bundle: the bundle or its path.
        device: where to run, strictly.
        threads: threads for one call.
        variant: the one variant to check; models that lack it are checked in their first. None checks every variant
            that claims the tolerance of the parity gate, that is all without a declared ``error``.

    Raises:
        BundleError: the bundle cannot be trusted.
        DeviceError: the device cannot be had.
        InputError: no model has this variant.
    """
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(bundle)
    checks: list[OutputCheck] = []
    provider = used = ""
    for model_name, variant_name in graphs_of(bundle, variant):
        model = bundle.model(model_name)
        graph = bundle.graph(model_name, variant_name)
        with Engine(graph, spec=model, device=device, threads=threads, name=model_name) as engine:
            used, provider = engine.device, engine.provider
            checks += check_graph(engine, bundle.golden(model_name), variant_name, asked=variant is not None)
    return VerifyReport(bool(checks) and all(check.ok for check in checks), used, provider, tuple(checks))


def graphs_of(bundle: Bundle, variant: str | None = None) -> Iterator[tuple[str, str]]:
    """The models and variants that `verify` runs, see there.

    Raises:
        InputError: no model has this variant.
    """
    models = bundle.manifest.models
    if variant is not None and not any(variant in model.variants for model in models.values()):
        known = sorted({name for model in models.values() for name in model.variants})
        raise InputError(f"{bundle.path}: no model has a variant {variant!r}; there are {', '.join(known)}")
    for name, model in models.items():
        exact = [key for key, value in model.variants.items() if value.error is None] or list(model.variants)[:1]
        if variant is None:
            yield from ((name, key) for key in exact)
        else:
            yield name, model.form(variant)


def check_graph(
    engine: Engine, cases: Sequence[GoldenCase], variant: str, *, asked: bool, elsewhere: str | None = None
) -> tuple[OutputCheck, ...]:
    """Replays recorded cases on an engine and gives a verdict for each output.

    Args:
        engine: The graph, opened with the bundle's signature and under the model's name.
        cases: Recorded cases of the model.
        variant: Which form of the graph it is.
        asked: Whether this variant was asked for by name, see `runtime.decisions.check_budget`.
        elsewhere: The class of the processor that answers, where it is not this one.
    """
    form = engine.spec.variants.get(variant)
    budget = form.budget if form else None
    if budget is not None and cases:
        return check_budget(engine, cases, variant, budget, asked=asked, elsewhere=elsewhere)
    checks: dict[str, list[OutputCheck]] = {tensor.name: [] for tensor in engine.spec.outputs}
    for case in cases:
        for check in prove_case(engine, case, variant):
            checks[check.output].append(check)
    verdicts = []
    for output, found in checks.items():
        none = failure(OutputCheck(output), "the bundle holds no recorded answers for it")
        verdicts.append(merge(found) if found else replace(none, model=engine.name, variant=variant))
    return tuple(verdicts)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row(check: OutputCheck) -> tuple[str, ...]:
    verdict = "ok" if check.ok else f"FAILED in case {check.worst_case!r}" if check.worst_case else "FAILED"
    if not check.judged:
        verdict = "not judged"
    if check.note:
        verdict += f": {check.note}"
    numbers = ("-" if math.isnan(value) else f"{value:.2e}" for value in (check.max_abs, check.max_rel, check.allowed))
    return (check.model, check.variant, check.output, str(check.cases), *numbers, verdict)
