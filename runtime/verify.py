"""Replays the recorded answers of a bundle on this machine: numpy and onnxruntime are all it needs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.engine import Engine
from runtime.errors import EdgedlError, InputError
from runtime.golden import GoldenCase
from runtime.manifest import ModelSpec, OutputParity

_EXACT = OutputParity(atol=0.0, rtol=0.0)


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """One output of one graph over all recorded cases.

    ``max_abs`` and ``max_rel`` are the worst errors; ``allowed`` is the error allowed where it came closest to it or
    went furthest over, in the recorded case ``worst_case``. ``decision_changes`` counts decisions that differ although
    the reference's margin is larger than the tolerance. ``note`` says what numbers cannot.
    """

    model: str
    variant: str
    output: str
    cases: int
    max_abs: float
    max_rel: float
    allowed: float
    ok: bool
    decision_changes: int = 0
    worst_case: str = ""
    note: str = ""


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
        rows = [{key: _finite(value) for key, value in asdict(check).items()} for check in self.checks]
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
    """Runs every recorded case and compares with the recorded answer: ``|a-b| <= atol + rtol*|b|``.

    NaN never passes, nor does another shape, nor an output without recorded cases.

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
    for model_name, variant_name in _graphs(bundle, variant):
        model = bundle.model(model_name)
        graph = bundle.graph(model_name, variant_name)
        with Engine(graph, spec=model, device=device, threads=threads, name=model_name) as engine:
            used, provider = engine.device, engine.provider
            checks += _check_graph(engine, model, bundle.golden(model_name), model_name, variant_name)
    return VerifyReport(bool(checks) and all(check.ok for check in checks), used, provider, tuple(checks))


def _graphs(bundle: Bundle, variant: str | None) -> Iterator[tuple[str, str]]:
    models = bundle.manifest.models
    if variant is not None and not any(variant in model.variants for model in models.values()):
        known = sorted({name for model in models.values() for name in model.variants})
        raise InputError(f"{bundle.path}: no model has a variant {variant!r}; there are {', '.join(known)}")
    for name, model in models.items():
        exact = [key for key, value in model.variants.items() if value.error is None] or list(model.variants)[:1]
        if variant is None:
            yield from ((name, key) for key in exact)
        else:
            yield name, variant if variant in model.variants else exact[0]


def _check_graph(
    engine: Engine, model: ModelSpec, cases: Sequence[GoldenCase], model_name: str, variant: str
) -> Iterator[OutputCheck]:
    tolerances: Mapping[str, OutputParity] = model.parity.outputs if model.parity else {}
    found = {
        tensor.name: OutputCheck(model_name, variant, tensor.name, 0, 0.0, 0.0, 0.0, ok=True)
        for tensor in model.outputs
    }
    for case in cases:
        try:
            answers = engine.run(case.inputs)
        except EdgedlError as error:
            answers, problem = {}, str(error)
        else:
            problem = "there is no recorded answer"
        for output, check in found.items():
            if output not in answers or output not in case.outputs:
                one = _failure(check, case.name, problem)
            else:
                tolerance = tolerances.get(output, _EXACT)
                one = _compare(check, case.name, answers[output], case.outputs[output], tolerance)
            found[output] = _merge(check, one)
    for check in found.values():
        yield check if check.cases else _failure(check, "", "the bundle holds no recorded answers for it")


def _compare(
    check: OutputCheck, case: str, answer: NDArray[Any], reference: NDArray[Any], tolerance: OutputParity
) -> OutputCheck:
    """Compares the answer to one case; the result is a row of its own with one case."""
    if answer.shape != reference.shape:
        return _failure(check, case, f"shape {list(answer.shape)}, recorded {list(reference.shape)}")
    if answer.dtype.kind in "OUS" or reference.dtype.kind in "OUS":
        same = bool(np.array_equal(answer.astype(str), reference.astype(str)))
        return replace(check, cases=1, worst_case=case) if same else _failure(check, case, "other text than recorded")
    if not answer.size:
        return replace(check, cases=1, worst_case=case)
    equal = answer == reference
    a, b = answer.astype(np.float64), reference.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        # Equal infinities are equal, though their difference is not a number.
        error = np.where(equal, 0.0, np.abs(a - b))
        relative = np.where(equal, 0.0, error / np.abs(b))
        limit = tolerance.atol + tolerance.rtol * np.abs(b)
        share = np.where(equal, 0.0, error / limit)
    if np.isnan(error).any() or np.isinf(error).any():
        return _failure(check, case, "not a finite number where one is recorded" if np.isfinite(b).all() else "NaN")
    worst = int(np.argmax(share))
    changes = _decision_changes(a, b, limit, tolerance.decision)
    return replace(
        check,
        cases=1,
        max_abs=float(error.max()),
        # The relative error of a recorded zero says nothing.
        max_rel=float(np.max(relative, where=b != 0, initial=0.0)),
        allowed=float(limit.ravel()[worst]),
        ok=bool((error <= limit).all()) and not changes,
        decision_changes=changes,
        worst_case=case,
        note=f"decisions that differ: {changes}" if changes else "",
    )


def _decision_changes(
    a: NDArray[np.float64], b: NDArray[np.float64], limit: NDArray[np.float64], decision: str | None
) -> int:
    """Decisions that differ where the reference is clear, its margin being larger than the tolerance."""
    if decision is None:
        return 0
    if decision == "exact":
        return int(np.sum(a != b))
    if decision == "round":
        margin = np.abs(np.abs(b - np.floor(b)) - 0.5)
        return int(np.sum((np.rint(a) != np.rint(b)) & (margin > limit)))
    if a.ndim == 0 or a.shape[-1] < 2:
        return 0  # one class leaves nothing to decide
    top = np.sort(b, axis=-1)
    margin, allowed = top[..., -1] - top[..., -2], limit.max(axis=-1)
    return int(np.sum((a.argmax(axis=-1) != b.argmax(axis=-1)) & (margin > allowed)))


def _failure(check: OutputCheck, case: str, note: str) -> OutputCheck:
    one = int(bool(case))
    return replace(check, cases=one, max_abs=math.inf, max_rel=math.inf, ok=False, worst_case=case, note=note)


def _merge(total: OutputCheck, one: OutputCheck) -> OutputCheck:
    """Adds one case; the row keeps the tolerance and the name of the case that fared worst."""
    worse = (one.ok, -_share(one)) < (total.ok, -_share(total)) or not total.cases
    kept = one if worse else total
    return replace(
        total,
        cases=total.cases + one.cases,
        max_abs=max(total.max_abs, one.max_abs),
        max_rel=max(total.max_rel, one.max_rel),
        allowed=kept.allowed,
        ok=total.ok and one.ok,
        decision_changes=total.decision_changes + one.decision_changes,
        worst_case=kept.worst_case,
        note=kept.note,
    )


def _share(check: OutputCheck) -> float:
    return check.max_abs / check.allowed if check.allowed else (math.inf if check.max_abs else 0.0)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row(check: OutputCheck) -> tuple[str, ...]:
    verdict = "ok" if check.ok else f"FAILED in case {check.worst_case!r}" if check.worst_case else "FAILED"
    if check.note:
        verdict += f": {check.note}"
    numbers = (f"{value:.2e}" for value in (check.max_abs, check.max_rel, check.allowed))
    return (check.model, check.variant, check.output, str(check.cases), *numbers, verdict)
