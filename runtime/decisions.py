"""Decisions of a variant that gives other answers: counted against recorded ones, and held to what was recorded.

A variant with a budget is not compared by tolerances. What its users see are decisions: the likeliest class, the
rounded year, the tokens. How many of them may differ was recorded for each class of processor when the variant was
judged there. On another class the count is reported and judges nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.budget import Budget, Counted
from runtime.compare import OutputCheck, distance, failure
from runtime.engine import Engine
from runtime.errors import EdgedlError
from runtime.golden import GoldenCase
from runtime.manifest import ModelSpec
from runtime.processor import processor_class

Arrays = Mapping[str, NDArray[Any]]


def decisions_of(spec: ModelSpec) -> dict[str, str]:
    """The outputs of a model that decide something, and how: ``argmax``, ``round`` or ``exact``."""
    outputs = spec.parity.outputs if spec.parity else {}
    return {name: parity.decision for name, parity in outputs.items() if parity.decision is not None}


def changed_decisions(answer: NDArray[Any], reference: NDArray[Any], decision: str) -> Counted:
    """How many decisions of an answer differ from its reference's; of another shape, all.

    No margin is asked for: a decision that was a near thing counts like every other.
    """
    decided, expected = (_decided(array, decision) for array in (answer, reference))
    if decided.shape != expected.shape:
        size = max(decided.size, expected.size)
        return Counted(size, size)
    return Counted(int(np.count_nonzero(decided != expected)), int(expected.size))


def count_decisions(spec: ModelSpec, answers: Sequence[Arrays], references: Sequence[Arrays]) -> Counted:
    """How many of a model's decisions differ over several calls."""
    found = [
        changed_decisions(answer[name], reference[name], decision)
        for answer, reference in zip(answers, references, strict=True)
        for name, decision in decisions_of(spec).items()
    ]
    return Counted(sum(one.changed for one in found), sum(one.of for one in found))


def count_recorded(engine: Engine, cases: Sequence[GoldenCase]) -> Counted:
    """How many of a model's decisions on recorded cases differ from the recorded ones.

    Raises:
        InputError: a case is refused.
    """
    return count_decisions(engine.spec, [engine.run(case.inputs) for case in cases], [case.outputs for case in cases])


def check_budget(
    engine: Engine,
    cases: Sequence[GoldenCase],
    variant: str,
    budget: Budget,
    *,
    asked: bool,
    elsewhere: str | None = None,
) -> tuple[OutputCheck, ...]:
    """Replays the recorded cases with a variant that has a budget.

    Args:
        engine: The variant's graph, opened with the bundle's signature and under the model's name.
        cases: The recorded cases of the model.
        variant: Its name.
        budget: Its budget.
        asked: Whether this variant was asked for by name. Then what cannot be judged here does not pass.
        elsewhere: The class of the processor that answers, where it is not this one. If nothing was counted on such a
            processor, as many decisions may differ as may where most of them did: there the budget was held, too.

    Returns:
        A row for each output. Those that decide something bear the model's verdict; of the others the error is told.
    """
    decisions = decisions_of(engine.spec)
    rows = {
        tensor.name: OutputCheck(
            tensor.name, len(cases), allowed=math.nan, model=engine.name, variant=variant, judged=False
        )
        for tensor in engine.spec.outputs
    }
    counts = dict.fromkeys(decisions, Counted(0, 0))
    for case in cases:
        try:
            answers = engine.run(case.inputs)
        except EdgedlError as error:
            return tuple(failure(replace(row, worst_case=case.name), str(error)) for row in rows.values())
        for name, row in rows.items():
            if name not in case.outputs:
                continue
            rows[name] = _worse(row, answers[name], case)
            if name in decisions:
                one = changed_decisions(answers[name], case.outputs[name], decisions[name])
                counts[name] = Counted(counts[name].changed + one.changed, counts[name].of + one.of)
    found = Counted(sum(one.changed for one in counts.values()), sum(one.of for one in counts.values()))
    verdict, judged, note = _verdict(found, budget, elsewhere)
    told = decisions or rows  # where nothing decides, every row says so
    return tuple(
        replace(
            row,
            ok=row.ok and (name not in told or (verdict if judged else not asked)),
            judged=not row.ok or (judged and name in decisions),
            decision_changes=counts[name].changed if name in counts else 0,
            note=row.note or (note if name in told else "no decision is read from it"),
        )
        for name, row in rows.items()
    )


def is_judged_here(budget: Budget) -> bool:
    """Whether a variant was judged on a processor of this class, so that it can be held to what was recorded."""
    return processor_class() in budget.recorded_changed


def _verdict(found: Counted, budget: Budget, elsewhere: str | None) -> tuple[bool, bool, str]:
    """Whether the count is within what was recorded, whether anything was recorded for this class, and the words."""
    kind = elsewhere or processor_class()
    counted = budget.recorded_changed
    if elsewhere is not None and kind not in counted and counted:
        kind = max(counted, key=lambda one: counted[one].changed)
    recorded = counted.get(kind)
    told = f"{found.changed} of {found.of} decisions differ"
    if recorded is None or not found.of:
        why = f"none were counted on {kind}" if found.of else "the model declares no decision"
        return False, False, f"{told}; {why}, so it is not judged here"
    return found.changed <= recorded.allowed, True, f"{told}, {recorded.allowed} may on {kind}"


def _worse(row: OutputCheck, answer: NDArray[Any], case: GoldenCase) -> OutputCheck:
    """The row with the error of one more answer; a number that is none where the reference has one fails it."""
    reference = case.outputs[row.output]
    if answer.shape != reference.shape or answer.dtype.kind not in "f":
        return row
    if (np.isfinite(reference) & ~np.isfinite(answer)).any():
        return failure(replace(row, worst_case=case.name), "an answer is not finite where the recorded one is")
    error = distance(answer, reference)
    if not row.ok or error <= row.max_abs:
        return row
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.nanmax(np.where(reference != 0, np.abs(answer - reference) / np.abs(reference), 0.0))
    return replace(row, max_abs=error, max_rel=max(row.max_rel, float(relative)), worst_case=case.name)


def _decided(array: NDArray[Any], decision: str) -> NDArray[Any]:
    if decision == "argmax":
        return array.argmax(-1) if array.ndim and array.shape[-1] else np.zeros(array.shape[:-1], np.int64)
    return np.rint(array) if decision == "round" else array
