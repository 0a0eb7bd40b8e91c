"""The comparison: one answer against its reference, under a tolerance and a decision.

The gate at export and ``verify`` on a device call the same function, so what one accepts the other accepts.

An element is right where ``|a - b| <= atol + rtol * |b|``, computed in float64, or where the two are equal. Equal
infinities are equal. NaN is never right, unless the output was declared to give it: then NaN equals NaN. Whole numbers,
truth values and texts are equal or not; a tolerance does not apply to them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.manifest import OutputParity

EXACT = OutputParity(atol=0.0, rtol=0.0)
"""The tolerance of an output for which none was measured."""


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """The verdict on one output, over one case or several.

    Attributes:
        output: Its name.
        cases: How many cases were compared.
        max_abs: The largest absolute error; infinite for another shape, another kind of values or NaN.
        max_rel: The largest error relative to the reference, where that is neither 0 nor infinite.
        allowed: The error allowed at the element that came closest to its limit or went furthest over it.
        ok: Whether every element is right and no decision changed.
        decision_changes: Decisions that differ although the margin of the reference is larger than the tolerance.
        worst_case: The case that came closest to its limit or went furthest over it.
        note: What the numbers cannot say.
        model: The model of the bundle, where there is one.
        variant: The variant of the model, where there is one.
        judged: Whether `ok` is a verdict; not so where nothing was recorded that could judge, see `runtime.decisions`.
    """

    output: str
    cases: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    allowed: float = 0.0
    ok: bool = True
    decision_changes: int = 0
    worst_case: str = ""
    note: str = ""
    model: str = ""
    variant: str = ""
    judged: bool = True

    def __bool__(self) -> bool:
        return self.ok

    @property
    def share(self) -> float:
        """The error as a share of what is allowed, where it comes closest to it or goes furthest over it."""
        return self.max_abs / self.allowed if self.allowed else (math.inf if self.max_abs else 0.0)


def compare(
    output: str, answer: NDArray[Any], reference: NDArray[Any], tolerance: OutputParity = EXACT, *, case: str = ""
) -> OutputCheck:
    """Compares one answer with its reference.

    Args:
        output: The output's name.
        answer: What the graph gave.
        reference: What it should have given, of the same shape; float answers usually have a float64 reference.
        tolerance: How far an element may be off, and which decision has to be the same.
        case: The name of the case.
    """
    check = OutputCheck(output, cases=1, worst_case=case)
    if answer.shape != reference.shape:
        return failure(check, f"shape {list(answer.shape)}, the reference has {list(reference.shape)}")
    if _is_text(answer) or _is_text(reference):
        if _is_text(answer) != _is_text(reference):
            return failure(check, f"{answer.dtype} where the reference is {reference.dtype}")
        return check if np.array_equal(_texts(answer), _texts(reference)) else failure(check, "another text")
    if not reference.size:
        return check
    error = _errors(answer, reference, nan=tolerance.nan)
    wrong = ~np.isfinite(error)
    if wrong.any():
        return failure(check, _difference(answer, reference, wrong))
    truth = np.abs(reference.astype(np.float64))
    measured = np.isfinite(truth)
    limit = np.full(truth.shape, tolerance.atol)
    if reference.dtype.kind == "f":
        limit += tolerance.rtol * np.where(measured, truth, 0.0)
    else:
        limit[...] = 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(error > 0, error / limit, 0.0)
        relative = np.where(measured & (truth > 0), error / truth, 0.0)
    changes = _changed_decisions(answer, reference, limit, tolerance.decision)
    return replace(
        check,
        max_abs=float(error.max()),
        max_rel=float(relative.max()),
        allowed=float(limit.flat[int(np.argmax(share))]),
        ok=bool((error <= limit).all()) and not changes,
        decision_changes=changes,
        note=f"decisions that differ: {changes}" if changes else "",
    )


def failure(check: OutputCheck, note: str) -> OutputCheck:
    """A check that failed for a reason that is no number."""
    return replace(check, max_abs=math.inf, max_rel=math.inf, ok=False, note=note)


def merge(checks: Iterable[OutputCheck]) -> OutputCheck:
    """One verdict on an output over all cases; tolerance, case and note are those of the case that fared worst.

    Raises:
        ValueError: there are no checks.
    """
    checks = tuple(checks)
    if not checks:
        raise ValueError("no checks to merge")
    worst = max(checks, key=lambda check: (not check.ok, check.share))
    return replace(
        worst,
        cases=sum(check.cases for check in checks),
        max_abs=max(check.max_abs for check in checks),
        max_rel=max(check.max_rel for check in checks),
        ok=all(check.ok for check in checks),
        decision_changes=sum(check.decision_changes for check in checks),
    )


def distance(answer: NDArray[Any], reference: NDArray[Any]) -> float:
    """The largest absolute error of an answer; infinite for another shape or where `compare` finds no number."""
    return compare("", answer, reference).max_abs


def _errors(answer: NDArray[Any], reference: NDArray[Any], *, nan: bool) -> NDArray[np.float64]:
    """The absolute error of each element; NaN or infinite where the two are no numbers to compare."""
    with np.errstate(invalid="ignore", over="ignore"):
        equal = answer == reference
        if nan and answer.dtype.kind == "f" and reference.dtype.kind == "f":
            equal |= np.isnan(answer) & np.isnan(reference)
        error = np.abs(answer.astype(np.float64) - reference.astype(np.float64))
    if reference.dtype.kind != "f":
        error = np.maximum(error, 1.0)  # whole numbers beyond 2**53 may be neighbours that float64 cannot tell apart
    return np.where(equal, 0.0, error)


def _difference(answer: NDArray[Any], reference: NDArray[Any], wrong: NDArray[np.bool_]) -> str:
    """What the first element that is no number to compare holds."""
    place = int(np.argmax(wrong))
    found, expected = answer.flat[place], reference.flat[place]
    if np.isnan(expected) and np.isnan(found):
        return "both are NaN, and the output was not declared to give NaN"
    return f"{found:g} where the reference is {expected:g}".replace("nan", "NaN")


def _changed_decisions(
    answer: NDArray[Any], reference: NDArray[Any], limit: NDArray[np.float64], decision: str | None
) -> int:
    """How many decisions differ although the reference's margin is larger than the tolerance.

    The margin of ``argmax`` (over the last axis) is the gap between the two largest values, that of ``round`` the
    distance to the next half; ``exact`` knows none.
    """
    if decision is None:
        return 0
    if decision == "exact":
        differs = answer != reference
        if reference.dtype.kind == "f":
            differs &= ~(np.isnan(answer) & np.isnan(reference))  # declared, or the check has failed before
        return int(np.count_nonzero(differs))
    with np.errstate(invalid="ignore"):  # a margin between infinities is NaN, and NaN is larger than nothing
        if decision == "round":
            clear = np.abs(reference - np.floor(reference) - 0.5) > limit
            return int(np.count_nonzero(clear & (np.rint(answer) != np.rint(reference))))
        if reference.ndim == 0 or reference.shape[-1] < 2:
            return 0  # one class leaves nothing to decide
        top = np.partition(reference.astype(np.float64), -2, axis=-1)
        clear = top[..., -1] - top[..., -2] > limit.max(axis=-1)
    return int(np.count_nonzero(clear & (answer.argmax(-1) != reference.argmax(-1))))


def _is_text(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "OUS"


def _texts(array: NDArray[Any]) -> NDArray[Any]:
    return np.array([value.decode() if isinstance(value, bytes) else str(value) for value in array.flat], object)
