"""``edgedl bench B --tune``: which threads, settings and variant are the fastest on this device.

Each setting is tried in turns with the best that was found before it, one setting after the other. It is taken if it is
faster by more than the spread of the measurement and gives the recorded answers. Nothing is changed: the result is the
options to give.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from runtime.bundle import Bundle
from runtime.compare import OutputCheck
from runtime.decisions import check_budget
from runtime.door import prove_case
from runtime.engine import Engine
from runtime.errors import EdgedlError
from runtime.feeds import Feed, feeds, main_model
from runtime.session import CHOICES, SessionSettings, joined, split_device
from runtime.threads import thread_budget
from runtime.turns import Ratio, Times, in_turns, ratio

LEAST_GAIN = 0.98
"""What takes more than this share of the time of the best before it is not worth an option."""

CASES = 4
"""Recorded cases of each model that a way is held against."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a bundle: what ``--device``, ``--threads`` and ``--variant`` say."""

    device: str
    threads: int
    variant: str

    def __str__(self) -> str:
        return f"--device {self.device} --threads {self.threads} --variant {self.variant}"


@dataclass(frozen=True, slots=True)
class Trial:
    """One way that was tried.

    Attributes:
        way: What was tried.
        p50_ms: Median of one run of every model, one row each.
        cpu_ms: The same in processor time of all threads.
        ratio: Its time as a share of that of the best way before it; None for the first.
        taken: Whether it became the best.
        note: Why it was not tried to the end.
    """

    way: Way
    p50_ms: float | None = None
    cpu_ms: float | None = None
    ratio: Ratio | None = None
    taken: bool = False
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-able values."""
        return {
            "device": self.way.device,
            "threads": self.way.threads,
            "variant": self.way.variant,
            "p50_ms": self.p50_ms,
            "cpu_ms": self.cpu_ms,
            "ratio": None if self.ratio is None else self.ratio.to_json(),
            "taken": self.taken,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was tried, the options that one gets without asking, the best ones, and how these compare."""

    trials: tuple[Trial, ...]
    default: Way
    best: Way
    ratio: Ratio

    def to_json(self) -> dict[str, Any]:
        """JSON-able values."""
        best = {"device": self.best.device, "threads": self.best.threads, "variant": self.best.variant}
        return {
            "best": best,
            "is_default": self.best == self.default,
            "ratio": self.ratio.to_json(),
            "trials": [trial.to_json() for trial in self.trials],
        }


def tune(
    bundle: Bundle | str | os.PathLike[str], *, device: str = "cpu", threads: int | None = None, seconds: float = 1.0
) -> Tuned:
    """Tries variants, threads and the settings of `runtime.session`, one after the other.

    What is timed is one run of every model of the bundle with its first recorded case, one row.

    Args:
        bundle: The bundle or its path.
        device: The device to tune for; settings after its name are where the search begins.
        threads: The number of threads that is set already; None tries several.
        seconds: How long each step is measured.

    Raises:
        BundleError: the bundle cannot be trusted, or holds no recorded case to run.
        DeviceError: the device cannot be had.
    """
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(bundle)
    budget = thread_budget()
    first = bundle.model(main_model(bundle)).form(None)
    default = best = Way(device, budget.chosen if threads is None else threads, first)
    trials: list[Trial] = []
    for step in _steps(bundle, threads is None, budget.affinity):
        others = [way for way in step(best) if way != best]
        if not others:
            continue
        found = _measure(bundle, [best, *others], seconds)
        if not trials:
            trials.append(found[best])
        fastest = best
        for way in others:
            trial = found[way]
            share = trial.ratio
            if share is not None and share.high < LEAST_GAIN:
                leader = found[fastest].ratio
                if fastest == best or (leader is not None and share.median < leader.median):
                    fastest = way
        trials += [replace(found[way], taken=way == fastest) for way in others]
        best = fastest
    whole = Ratio(1.0, 1.0, 1.0)
    if best != default:
        final = _measure(bundle, [default, best], seconds)[best].ratio
        whole = final or whole
    return Tuned(tuple(trials), default, best, whole)


Step = Callable[[Way], list[Way]]


def _steps(bundle: Bundle, threads: bool, processors: int) -> Iterator[Step]:
    """The settings in the order in which they matter."""
    variants = list(dict.fromkeys(name for model in bundle.manifest.models.values() for name in model.variants))
    yield lambda best: [replace(best, variant=name) for name in variants]
    if threads:
        counts = sorted({1, processors, *(2**power for power in range(1, processors.bit_length()))})
        yield lambda best: [replace(best, threads=count) for count in counts if count <= processors]
    for setting, values in CHOICES.items():
        yield lambda best, setting=setting, values=values: [  # type: ignore[misc]  # bound now, not at the call
            replace(best, device=_with(best.device, setting, value)) for value in values
        ]


def _with(device: str, setting: str, value: str) -> str:
    name, settings = split_device(device)
    return joined(name, SessionSettings(**{**dict(settings.items()), setting: value}))


def _measure(bundle: Bundle, ways: list[Way], seconds: float) -> dict[Way, Trial]:
    """Opens every way and times them in turns; ratios are to the first."""
    inputs: Mapping[str, Feed] = {name: feeds(bundle, name)[1] for name in bundle.manifest.models}
    calls: dict[str, Callable[[], object]] = {}
    trials = {way: Trial(way) for way in ways}
    with ExitStack() as stack:
        for way in ways:
            try:
                engines = {name: stack.enter_context(_engine(bundle, name, way)) for name in inputs}
                wrong = _wrong(bundle, engines, way)
            except EdgedlError as error:
                if way == ways[0]:
                    raise
                trials[way] = Trial(way, note=str(error))
                continue
            if wrong is not None and way != ways[0]:
                trials[way] = Trial(way, note=f"not the recorded answers: {wrong.model}.{wrong.output}")
                continue
            calls[str(way)] = _one_run(engines, inputs)
        times = in_turns(calls, seconds)
    first = times[str(ways[0])]
    for way, trial in trials.items():
        if not trial.note:
            trials[way] = _trial(way, times[str(way)], None if way == ways[0] else first)
    return trials


def _engine(bundle: Bundle, name: str, way: Way) -> Engine:
    spec = bundle.model(name)
    graph = bundle.graph(name, spec.form(way.variant))
    return Engine(graph, spec=spec, device=way.device, threads=way.threads, name=name)


def _one_run(engines: Mapping[str, Engine], inputs: Mapping[str, Feed]) -> Callable[[], None]:
    pairs = [(engine, inputs[name]) for name, engine in engines.items()]

    def run() -> None:
        for engine, feed in pairs:
            engine.run(feed)

    return run


def _wrong(bundle: Bundle, engines: Mapping[str, Engine], way: Way) -> OutputCheck | None:
    """The first recorded answer that this way does not give."""
    for name, engine in engines.items():
        variant = bundle.model(name).form(way.variant)
        form = bundle.model(name).variants[variant]
        if form.error is not None:
            continue  # it claims other answers than the recorded ones
        if form.budget is not None:
            rows = check_budget(engine, bundle.golden(name), variant, form.budget, asked=True)
            wrong = next((row for row in rows if not row), None)
            if wrong is not None:
                return wrong
            continue
        for case in bundle.golden(name)[:CASES]:
            for check in prove_case(engine, case, variant):
                if not check:
                    return check
    return None


def _trial(way: Way, times: Times, first: Times | None) -> Trial:
    share = None if first is None else ratio(times.wall, first.wall)
    return Trial(way, times.p50_ms, times.cpu_ms, share)
