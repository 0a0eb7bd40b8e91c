"""int8 for the models of a bundle, within a budget of the task's metric: search, judge, write or refuse."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporters.quantize.candidates import Candidates
from exporters.quantize.inputs import Feed, each_row, recorded_calls, single_rows
from exporters.quantize.judge import AnyJudge
from exporters.quantize.judging import Judgement, budget_of, judge_emulated, judge_here
from exporters.quantize.search import Attempt, Found, Search
from exporters.quantize.variants import CHANGE, INT8, with_variants
from runtime.bundle import Bundle
from runtime.decisions import decisions_of
from runtime.errors import InputError
from runtime.pipelines import pipeline_class
from runtime.rewriting import check_writable, write_rewritten

log = logging.getLogger(__name__)

UNDECIDED = "no output has a decision to count, so nothing could judge it elsewhere"

_ROWS = 8
"""Inputs with batch 1 that are timed and that rank the layers."""


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """What was tried and what came of it.

    Attributes:
        judge: Metric and data.
        allowed: The budget.
        attempts: All candidates, in the order in which they were tried.
        judgements: Of what was chosen, the first of this machine. Empty where nothing was chosen.
        written: The bundle with the variant; None where it was refused.
        models: Those that have the variant now.
        reason: Why nothing was written; empty otherwise.
    """

    judge: AnyJudge
    allowed: float
    attempts: tuple[Attempt, ...]
    judgements: tuple[Judgement, ...] = ()
    written: Bundle | None = None
    models: tuple[str, ...] = ()
    reason: str = ""


def quantize_bundle(
    bundle: Bundle,
    judge: AnyJudge,
    allowed: float,
    *,
    output: str | os.PathLike[str] | None = None,
    models: Sequence[str] = (),
    also: Sequence[str] = (),
    threads: int = 1,
) -> QuantizeReport:
    """Looks for a variant ``int8`` of each model that is faster here and costs no more than is allowed.

    Args:
        bundle: That is judged and gets the variant.
        judge: The task's metric and the data.
        allowed: By how much the metric may get worse, in its own unit.
        output: Where the result is written; None writes in place of the bundle.
        models: Those that are tried; none given tries all.
        also: Further classes of processor that the budget must hold on, see `exporters.quantize.emulation`.
        threads: Of the timing.

    Raises:
        InputError: there is no such model, or a part of the data feeds a model nothing.
        BundleError: the result cannot be written.
        DeviceError: a class of processor cannot be had here.
    """
    path = bundle.path if output is None else output
    check_writable(bundle, path, CHANGE)
    composed = pipeline_class(bundle.manifest.task).composed
    names = [name for name in bundle.manifest.models if (name in models if models else name not in composed)]
    for name in models:
        bundle.model(name)
        if name in composed:
            raise InputError(f"{name} is composed of the other models; int8 is looked for in those")
    with judge.open(bundle, None) as pipeline:
        base = judge.measure(pipeline, "choose", None)
    log.info("%s of %s on the part that chooses: %.4g in float32", judge.metric, bundle.manifest.name, base)
    if judge.is_vacuous(base, allowed):
        reason = (
            f"the budget is vacuous: {judge.metric} is {base:.4g} in float32, so nothing could lose more than "
            f"{allowed:g}; train the network, or allow less"
        )
        return QuantizeReport(judge, allowed, (), reason=reason)
    calls, _ = recorded_calls(judge, bundle, "calibrate", names)
    found = {
        name: _search(bundle, judge, allowed, base, name, [call.feed for call in calls[name]], threads)
        for name in names
    }
    attempts = tuple(attempt for one in found.values() for attempt in one.attempts)
    graphs = _together(bundle, judge, allowed, base, found)
    if not graphs:
        return QuantizeReport(judge, allowed, attempts, reason=_why(attempts))
    judgements = [judge_here(judge, bundle, graphs, allowed)]
    others = [kind for kind in dict.fromkeys(also) if kind != judgements[0].processor]
    judgements += [judge_emulated(judge, bundle, graphs, allowed, kind) for kind in others if judgements[0].within]
    missed = [one.processor for one in judgements if not one.within]
    if missed:
        reason = f"the budget is missed on the data that judges, on {', '.join(missed)}"
        return QuantizeReport(judge, allowed, attempts, tuple(judgements), reason=reason)
    budgets = {name: budget_of(judge, judgements, name, allowed) for name in graphs}
    written = write_rewritten(bundle, with_variants(bundle, graphs, budgets), path, CHANGE)
    return QuantizeReport(judge, allowed, attempts, tuple(judgements), written, tuple(graphs))


def _search(
    bundle: Bundle, judge: AnyJudge, allowed: float, base: float, name: str, feeds: Sequence[Feed], threads: int
) -> Found:
    rows = single_rows(bundle.model(name), feeds, _ROWS)
    obstacle = UNDECIDED if not decisions_of(bundle.model(name)) else "" if rows else "the data does not reach it"
    if obstacle:
        log.warning("%s stays in float32: %s", name, obstacle)
        return Found((Attempt(name, "-", "", 0, verdict=obstacle),))

    def measure(graph: bytes) -> tuple[float, float]:
        with judge.open(with_variants(bundle, {name: graph}), INT8) as pipeline:
            value = judge.measure(pipeline, "choose", None)
        return value, judge.drop(base, value)

    candidates = Candidates(bundle.graph(name), each_row(bundle.model(name), feeds))
    return Search(name, candidates, rows, measure, allowed, threads).run()


def _together(
    bundle: Bundle, judge: AnyJudge, allowed: float, base: float, found: Mapping[str, Found]
) -> dict[str, bytes]:
    """The graphs that are within the budget together; the one that costs the most is left out until they are."""
    graphs = {name: one.graph for name, one in found.items() if one.graph is not None}
    drops = {name: one.taken.drop or 0.0 for name, one in found.items() if one.taken is not None}
    while len(graphs) > 1:
        with judge.open(with_variants(bundle, graphs), INT8) as pipeline:
            drop = judge.drop(base, judge.measure(pipeline, "choose", None))
        if drop <= allowed:
            break
        worst = max(graphs, key=drops.__getitem__)
        log.info("together they miss the budget (%.4g); %s stays in float32", drop, worst)
        del graphs[worst]
    return graphs


def _why(attempts: Sequence[Attempt]) -> str:
    """The reason in one sentence: what stood in the way of each model last."""
    models = dict.fromkeys(attempt.model for attempt in attempts)
    reasons = {name: _reason([a for a in attempts if a.model == name]) for name in models}
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())


def _reason(attempts: Sequence[Attempt]) -> str:
    judged = [attempt.drop for attempt in attempts if attempt.drop is not None]
    if judged:
        return f"the faster candidates miss the budget, the best by a drop of {min(judged):.4g}"
    timed = [attempt.speed.median for attempt in attempts if attempt.speed is not None]
    if timed:
        return f"no candidate is faster here, the best is {max(timed):.2f} times as fast as float32"
    return attempts[-1].verdict
