"""The judgement: a chosen variant on data that chose nothing, for each class of processor that is asked for."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from exporters.quantize.emulation import EmulatedSession
from exporters.quantize.inputs import Call, Recorder, recorded_calls
from exporters.quantize.judge import AnyJudge
from exporters.quantize.variants import INT8, with_variants
from runtime.budget import Budget, Counted
from runtime.bundle import Bundle
from runtime.decisions import count_decisions, count_recorded
from runtime.engine import Engine, Session
from runtime.processor import processor_class

log = logging.getLogger(__name__)

EMULATED = 300
"""Samples of the part that judges which are run under emulation: it takes some fifty times as long."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found on one class of processor.

    Attributes:
        processor: The class, see `runtime.processor`.
        emulated: Whether it was emulated here.
        n: Samples.
        fp32: The metric of the first variant on them.
        value: That of the int8 variant.
        drop: By how much it is worse.
        within: Whether that is within the budget.
        decisions: For each model with an int8 variant the decisions that differ from float32's on the same inputs.
        recorded: For each such model the decisions on recorded cases that differ from the recorded ones.
    """

    processor: str
    emulated: bool
    n: int
    fp32: float
    value: float
    drop: float
    within: bool
    decisions: Mapping[str, Counted]
    recorded: Mapping[str, Counted]


def judge_here(judge: AnyJudge, bundle: Bundle, graphs: Mapping[str, bytes], allowed: float) -> Judgement:
    """Judges on this machine."""
    calls, before = recorded_calls(judge, bundle, "judge", list(graphs))
    with judge.open(with_variants(bundle, graphs), INT8) as pipeline:
        after = judge.measure(pipeline, "judge", None)
    counts: dict[str, Counted] = {}
    recorded: dict[str, Counted] = {}
    for name, graph in graphs.items():
        with _engine(bundle, name, graph) as engine:
            counts[name] = _differing(engine, calls[name])
            recorded[name] = count_recorded(engine, bundle.golden(name))
    return _judgement(judge, processor_class(), False, judge.sizes["judge"], before, after, allowed, counts, recorded)


def judge_emulated(
    judge: AnyJudge, bundle: Bundle, graphs: Mapping[str, bytes], allowed: float, kind: str, most: int = EMULATED
) -> Judgement:
    """Judges on another class of processor: the models in int8 are emulated, all the rest runs here.

    Raises:
        DeviceError: the class cannot be had here.
    """
    with judge.open(bundle, None) as pipeline:
        before = judge.measure(pipeline, "judge", most)
    n = min(most, judge.sizes["judge"])
    kept: dict[str, list[Call]] = {name: [] for name in graphs}
    counts: dict[str, Counted] = {}
    recorded: dict[str, Counted] = {}
    with _emulated(bundle, graphs, kind) as sessions:
        with judge.open(with_variants(bundle, graphs), INT8) as pipeline:
            for name, session in sessions.items():
                pipeline.engines[name].through(_instead(Recorder(session, kept[name])))
            after = judge.measure(pipeline, "judge", most)
        for name, graph in graphs.items():
            with _engine(bundle, name, bundle.graph(name)) as exact:
                counts[name] = _differing(exact, kept[name])
            with _engine(bundle, name, graph) as engine:
                engine.through(_instead(sessions[name]))
                recorded[name] = count_recorded(engine, bundle.golden(name))
    return _judgement(judge, kind, True, n, before, after, allowed, counts, recorded)


def budget_of(judge: AnyJudge, judgements: Sequence[Judgement], model: str, allowed: float) -> Budget:
    """What the manifest says of a model's variant; the first judgement is that of this machine."""
    here = judgements[0]
    return Budget(
        metric=judge.metric,
        fp32=here.fp32,
        value=here.value,
        allowed=allowed,
        decisions_changed={j.processor: _share(j.decisions[model]) for j in judgements if j.decisions[model].of},
        recorded_changed={j.processor: j.recorded[model] for j in judgements},
        n=here.n,
        dataset=judge.dataset,
        unit=judge.unit,
    )


def _judgement(
    judge: AnyJudge,
    processor: str,
    emulated: bool,
    n: int,
    before: float,
    after: float,
    allowed: float,
    decisions: Mapping[str, Counted],
    recorded: Mapping[str, Counted],
) -> Judgement:
    drop = judge.drop(before, after)
    return Judgement(processor, emulated, n, before, after, drop, drop <= allowed, decisions, recorded)


def _differing(engine: Engine, calls: Sequence[Call]) -> Counted:
    """Decisions of an engine that differ from those of the calls that another one has answered."""
    names = [tensor.name for tensor in engine.spec.outputs]
    answers = [dict(zip(names, engine.session.run(names, call.feed), strict=True)) for call in calls]
    return count_decisions(engine.spec, answers, [call.answers for call in calls])


def _engine(bundle: Bundle, name: str, graph: bytes) -> Engine:
    return Engine(graph, spec=bundle.model(name), threads=1, name=name)


@contextlib.contextmanager
def _emulated(bundle: Bundle, graphs: Mapping[str, bytes], kind: str) -> Iterator[dict[str, EmulatedSession]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(EmulatedSession(graph, kind)) for name, graph in graphs.items()}


def _instead(session: Session) -> Callable[[Session], Session]:
    """What `Engine.through` takes to run another session."""
    return lambda _: session


def _share(counted: Counted) -> float:
    return counted.changed / counted.of
