"""Truth at the door: whether an opened bundle answers on this machine as it was recorded, one case at a time.

`verify`, `load(check=True)` and the service call `prove_case`, so all of them judge as the gate at export did.
"""

from __future__ import annotations

import datetime
import logging
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from runtime.budget import Budget, Counted
from runtime.bundle import Bundle
from runtime.compare import EXACT, OutputCheck, compare, failure, merge
from runtime.decisions import count_recorded, decisions_of, is_judged_here
from runtime.engine import Engine
from runtime.errors import CheckFailedError, EdgedlError
from runtime.golden import GoldenCase
from runtime.manifest import ModelSpec
from runtime.place import Place, last_proof, told_unproven
from runtime.processor import processor_class
from runtime.proofs import HERE, Proof
from runtime.rows import rows_stand_alone, telling_case, telling_rows

logger = logging.getLogger("edgedl.door")


def prove_case(engine: Engine, case: GoldenCase, variant: str = "fp32") -> tuple[OutputCheck, ...]:
    """Runs one recorded case and compares each output with the recorded answer, see `runtime.compare`.

    Args:
        engine: The graph, opened with the bundle's signature and under the model's name.
        case: One of the model's recorded cases.
        variant: The form of the graph; it may have tolerances of its own.

    Returns:
        A verdict for each output. One without a recorded answer does not pass, and neither does a refused case.
    """
    parity = engine.spec.parity_of(variant) if variant in engine.spec.variants else engine.spec.parity
    try:
        answers = engine.run(case.inputs)
    except EdgedlError as error:
        answers, problem = {}, str(error)
    else:
        problem = "there is no recorded answer"
    checks = []
    for tensor in engine.spec.outputs:
        name = tensor.name
        tolerance = parity.outputs.get(name, EXACT) if parity else EXACT
        if name in answers and name in case.outputs:
            check = compare(name, answers[name], case.outputs[name], tolerance, case=case.name)
        else:
            check = failure(OutputCheck(name, cases=1, worst_case=case.name), problem)
        checks.append(replace(check, model=engine.name, variant=variant))
    return tuple(checks)


@dataclass(frozen=True, slots=True)
class Proven:
    """What was replayed so far.

    Attributes:
        cases: Recorded cases that were replayed.
        recorded: All recorded cases; 0 where nothing was recorded, and then nothing is proven.
        share: The worst error as a share of what is allowed; None before the first case.
        place: Where; None for a bundle without graphs.
        last: The last good proof beside the bundle, one made in such a place before all others; None without any.
        differs: What is another than in that proof: ``onnxruntime``, ``processor``. Where this is not empty, no proof
            speaks of this place.
        unjudged: Models whose variant has a budget that was not judged on this class of processor. Nothing that was
            recorded can say whether they are right here.
    """

    cases: int
    recorded: int
    share: float | None
    place: Place | None
    last: Proof | None
    differs: tuple[str, ...]
    unjudged: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = f"{self.cases} of {self.recorded} recorded cases" if self.recorded else "nothing recorded"
        if self.share is not None:
            told += f", at most {self.share:.2g} of the tolerance"
        if self.unjudged:
            told += f"; {', '.join(self.unjudged)} not judged on processors like this one"
        return told


class Door:
    """Replays the recorded cases of an opened bundle, first one of each model, then the others.

    A variant that declares an error of its own, and no tolerances, does not claim the recorded answers and is left
    out. Of a variant with a budget decisions are counted; where it was not judged on this class of processor it is left
    out, and said to be. A bundle without recorded cases has nothing that could differ. `first` may be called from
    several threads and `rest` from one.

    Args:
        bundle: The bundle.
        engines: Its engines by model.
        variant: Which form of the graphs they hold; models that lack it run in ``fp32``.

    Attributes:
        stackable: For each model whether requests may be stacked along the batch axis, see `judge_rows`.

    Raises:
        BundleError: The recorded cases are damaged.
    """

    def __init__(self, bundle: Bundle, engines: Mapping[str, Engine], variant: str | None = None) -> None:
        self._bundle = bundle
        self._engines = engines
        self._variants = {name: _held(engine.spec, variant) for name, engine in engines.items()}
        self._place = Place.of(engines)
        self._form = variant if variant is not None and variant in self._variants.values() else "fp32"
        self._last = last_proof(bundle, self._place, self._form) if engines else None
        self._checks: dict[tuple[str, str], OutputCheck] = {}
        self._changed: dict[tuple[str, int], Counted] = {}
        self._done: set[tuple[str, int]] = set()
        self._first: dict[str, tuple[int, GoldenCase]] = {}
        self._telling: dict[str, GoldenCase] = {}
        self._recorded = 0
        self._unjudged: list[str] = []
        self.stackable = dict.fromkeys(engines, False)
        for name, held in self._variants.items():
            golden = engines[name].spec.golden
            if golden is None or held is None:
                continue
            cases = bundle.golden(name)
            telling = telling_case(engines[name].spec, cases)
            if telling is not None:
                self._telling[name] = telling
            budget = self._budget(name)
            if budget is not None and not (is_judged_here(budget) and decisions_of(engines[name].spec)):
                self._unjudged.append(name)
                logger.warning(
                    "%s: the variant %s of %s was not judged on processors of the class %s; whether it answers right "
                    "here is not known: `edgedl quantize` judges it, fp32 is proven",
                    bundle.path, held, name, processor_class(),
                )  # fmt: skip
                continue
            self._recorded += golden.cases
            sizes = [sum(array.size for array in case.inputs.values()) for case in cases]
            if cases:
                place = sizes.index(min(sizes))
                self._first[name] = place, cases[place]

    @property
    def unproven(self) -> str | None:
        """A sentence where the proofs beside the bundle speak of other places only, see `runtime.place`."""
        return None if self._place is None else told_unproven(self._bundle, self._place, self._last)

    def notice(self) -> None:
        """Logs a warning where no proof speaks of this place and some speak of others."""
        if self.unproven is not None:
            logger.warning("%s", self.unproven)

    @property
    def proven_before(self) -> bool:
        """Whether a proof beside the bundle speaks of this place."""
        return self._place is not None and self._last is not None and not self._place.differs(self._last)

    def proof(self) -> Proof | None:
        """The proof of what was replayed here; None until all of it was, or where some of it cannot be judged here."""
        proven, place = self.proven, self._place
        if place is None or not proven.recorded or proven.cases < proven.recorded or proven.unjudged:
            return None
        errors = [check.max_abs for check in self._checks.values()]
        return Proof(
            digest=self._bundle.digest,
            target=HERE,
            onnxruntime=place.onnxruntime,
            processor=place.processor,
            variant=self._form,
            ok=True,  # a case that differs raises
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            max_abs=max(errors, default=None),
            share=proven.share,
            system=f"{platform.system()}, Python {platform.python_version()}",
            processor_class=place.processor_class,
            emulated=False,
            cases=proven.cases,
            recorded=proven.recorded,
            changed=sum(counted.changed for counted in self._changed.values()),
        )

    @property
    def proven(self) -> Proven:
        """What was replayed so far. Reading it costs nothing."""
        shares = [check.share for check in self._checks.values()]
        place, last = self._place, self._last
        differs = () if place is None or last is None else place.differs(last)
        worst = max(shares, default=None)
        return Proven(len(self._done), self._recorded, worst, place, last, differs, tuple(self._unjudged))

    def first(self) -> None:
        """Replays the smallest case of each model; those without recorded cases are left out.

        Raises:
            CheckFailedError: An answer differs: model, output, error and what was allowed.
        """
        for name, (place, case) in self._first.items():
            self._replay(name, place, case)

    def judge_rows(self) -> None:
        """Finds out which models may be asked several requests at once. Until then none is `stackable`."""
        for name, case in list(self._telling.items()):
            self.stackable[name] = self._stand_alone(name, case)
            self._telling.pop(name, None)

    def rest(self) -> Iterator[None]:
        """Replays one more case at each step, until all are done.

        Raises:
            CheckFailedError: An answer differs.
            BundleError: The files of the bundle are not there any more.
        """
        for name in self._first:
            for place, case in enumerate(self._bundle.golden(name)):
                if (name, place) in self._done:
                    continue
                self._replay(name, place, case)
                if self.stackable[name] and telling_rows(self._engines[name].spec, case):
                    self.stackable[name] = self._stand_alone(name, case)
                yield

    def _stand_alone(self, name: str, case: GoldenCase) -> bool:
        variant = self._variants[name] or "fp32"
        engine = self._engines[name]
        proven = self._budget(name) is not None or all(prove_case(engine, case, variant))
        return proven and rows_stand_alone(engine, case, variant)

    def _budget(self, name: str) -> Budget | None:
        form = self._engines[name].spec.variants.get(self._variants[name] or "fp32")
        return form.budget if form is not None else None

    def _count(self, name: str, place: int, case: GoldenCase, budget: Budget) -> None:
        """Counts the decisions of one case, and refuses as soon as more differ than may over all cases."""
        self._changed[name, place] = count_recorded(self._engines[name], [case])
        self._done.add((name, place))
        counts = [counted for (model, _), counted in list(self._changed.items()) if model == name]
        changed, seen = sum(one.changed for one in counts), sum(one.of for one in counts)
        here = processor_class()
        allowed = budget.recorded_changed[here].allowed
        if changed > allowed:
            manifest = self._bundle.manifest
            raise CheckFailedError(
                f"{manifest.name} {manifest.version} does not decide here as it was judged: model {name}, variant "
                f"{self._variants[name]}: {changed} of {seen} decisions differ so far, {allowed} may on {here}"
            )

    def _replay(self, name: str, place: int, case: GoldenCase) -> None:
        budget = self._budget(name)
        if budget is not None:
            self._count(name, place, case, budget)
            return
        checks = prove_case(self._engines[name], case, self._variants[name] or "fp32")
        wrong = next((check for check in checks if not check.ok), None)
        if wrong is not None:
            raise CheckFailedError(self._told(wrong))
        if (name, place) not in self._done:
            for check in checks:
                key = (name, check.output)
                self._checks[key] = merge((self._checks[key], check)) if key in self._checks else check
            self._done.add((name, place))

    def _told(self, check: OutputCheck) -> str:
        manifest, place = self._bundle.manifest, self._place
        numbers = f"error {check.max_abs:.2e}, allowed {check.allowed:.2e}"
        found = check.note if check.max_abs == float("inf") else ", ".join(filter(None, (numbers, check.note)))
        where = f" with ONNX Runtime {place.onnxruntime}, {place.provider}, on {place.processor}" if place else ""
        return (
            f"{manifest.name} {manifest.version} does not answer here as it was recorded: model {check.model}, output "
            f"{check.output}: {found} (case {check.worst_case!r}, variant {check.variant}){where}; `edgedl verify "
            "--explain` names the node"
        )


def _held(spec: ModelSpec, variant: str | None) -> str | None:
    """The variant that runs; None where it does not claim the recorded answers."""
    name = variant if variant is not None and variant in spec.variants else "fp32"
    form = spec.variants.get(name)
    return None if form is not None and form.error is not None and form.parity is None else name


def proven_json(proven: Proven) -> dict[str, Any]:
    """JSON-able values of what was proven."""
    place, last = proven.place, proven.last
    return {
        "cases": proven.cases,
        "recorded": proven.recorded,
        "share": None if proven.share is None else float(f"{proven.share:.3g}"),
        "onnxruntime": place.onnxruntime if place else None,
        "provider": place.provider if place else None,
        "processor": place.processor if place else None,
        "last_proof": None if last is None else {
            "target": last.target, "onnxruntime": last.onnxruntime, "processor": last.processor, "date": last.date,
        },
        "differs": proven.differs,
        "unjudged": proven.unjudged,
    }  # fmt: skip
