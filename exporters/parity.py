"""The parity gate: tolerances that are measured from both sides, and the comparison with torch in float64.

From below, a tolerance is at least 30 times the float32 noise: other processors were seen up to 17 times it. From
above, it is to be at most a tenth of the effect of the weakest mutant (see `exporters.mutants`), and lies in the
geometric middle of the two.

In a deep network with shortcuts a single layer's rounding can fade to less than 300 times the noise (the public face
detector: 89 convolutions, the faintest moves a score by 40 times its noise). There the tolerance stays at 30 times
the noise, and the margin, how many tolerances the weakest mutant amounts to, is reported. The gate is vacuous, and
says so, where a mutant exceeds no output's tolerance, or where an output catches less than
half of the mutants that move it. (It need not catch all: the scores of a detector hardly see the layer that
places the boxes, but the boxes do.)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ParityError
from exporters.execute import LEVELS, open_graph, run_case
from exporters.gather import Held
from exporters.mutants import Mutant
from exporters.reference import Arrays
from exporters.spec import Case, Output
from runtime.compare import OutputCheck, compare, failure, merge
from runtime.manifest import CRITERION, OutputParity, Parity

NOISE_MARGIN = 30.0
MUTANT_MARGIN = 10.0
REFERENCE = "torch float64"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What an output may be off by, and why.

    Attributes:
        rule: What the manifest will say; ``atol`` is 0 for outputs that must be equal, ``noise`` the float32 noise,
            ``mutant`` the effect of the weakest mutant that this output catches.
        layer: The weight that this mutant rounds, with the format.
        caught: How many mutants exceed the tolerance.
        seen: How many mutants move the output at all.
        vacuous: Why the tolerance proves nothing; None if it does.
    """

    rule: OutputParity
    layer: str | None = None
    caught: int = 0
    seen: int = 0
    vacuous: str | None = None

    @property
    def margin(self) -> float | None:
        """How many tolerances the weakest caught mutant amounts to; 10 is asked for."""
        rule = self.rule
        return rule.mutant / rule.atol if rule.mutant is not None and rule.atol else None


@dataclass(frozen=True, slots=True)
class ParityReport:
    """All that the gate found. True if the graph may be shipped."""

    checks: tuple[OutputCheck, ...]
    tolerances: Mapping[str, Tolerance]
    cases: int
    failures: tuple[str, ...] = ()
    operators: Mapping[str, int] = field(default_factory=dict)
    opset: int = 0
    ir_version: int = 0
    flushed: int = 0
    mutants: tuple[Mutant, ...] = ()
    notes: tuple[str, ...] = ()
    untrained: bool = False
    reference: str = REFERENCE

    def __bool__(self) -> bool:
        return not self.failures and all(self.checks) and (self.untrained or not self.vacuous)

    @property
    def vacuous(self) -> tuple[str, ...]:
        """Why the tolerance of an output proves nothing, one sentence for each."""
        return tuple(tolerance.vacuous for tolerance in self.tolerances.values() if tolerance.vacuous)

    def parity(self) -> Parity:
        """The manifest's form."""
        rules = {check.output: (self.tolerances[check.output].rule, check) for check in self.checks}
        return Parity(
            criterion=CRITERION,
            reference=self.reference,
            outputs={output: replace(rule, max_abs=check.max_abs) for output, (rule, check) in rules.items()},
        )

    def __str__(self) -> str:
        verdict = "passed" if self else "FAILED"
        lines = [f"parity {verdict}: {self.cases} cases against {self.reference}, the graph {' and '.join(LEVELS)}"]
        width = max([len(check.output) for check in self.checks[:16]] + [6])
        lines.append(
            f"  {'output':{width}}  {'worst':>8}  {'allowed':>8}  {'noise':>8}  {'mutant':>8}  weakest mutant caught"
        )
        for check in self.checks[:16]:
            told = self.tolerances[check.output]
            rule = told.rule
            numbers = "  ".join(_number(value) for value in (check.max_abs, rule.atol, rule.noise, rule.mutant))
            changed = "" if rule.decision is None else f"  {rule.decision}: {check.decision_changes} changed"
            mark = "" if check.ok else f"  <- {_where(check)}"
            share = f"  catches {told.caught}/{told.seen}" if told.seen else ""
            lines.append(f"  {check.output:{width}}  {numbers}  {told.layer or '-'}{share}{changed}{mark}")
        lines += [f"  … and {len(self.checks) - 16} more outputs"] * (len(self.checks) > 16)
        lines += [f"  failed: {failure}" for failure in self.failures[:8]]
        lines += [f"  … and {len(self.failures) - 8} more failures"] * (len(self.failures) > 8)
        lines += [f"  vacuous{' (allowed: untrained)' * self.untrained}: {text}" for text in self.vacuous[:4]]
        counts = Counter(self.operators)
        shown = ", ".join(f"{name} {count}" for name, count in counts.most_common(12))
        lines.append(f"  graph: opset {self.opset}, IR {self.ir_version}, {counts.total()} nodes: {shown}")
        if self.flushed:
            lines.append(f"  denormal weights set to zero: {self.flushed}; every answer stays within its tolerance")
        lines += [f"  note: {note}" for note in self.notes[:8]]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison of a graph with the truth found.

    Attributes:
        checks: One per output.
        failures: One sentence for each case that could not be run or is off at an extreme.
        off: The cases of which some answer is wrong.
    """

    checks: tuple[OutputCheck, ...]
    failures: tuple[str, ...]
    off: tuple[Case, ...]

    def __bool__(self) -> bool:
        return not self.off


def derive_tolerances(
    outputs: Sequence[Output],
    noise: Mapping[str, float],
    mutants: Sequence[Mutant],
    rtol: Mapping[str, float] | None = None,
) -> dict[str, Tolerance]:
    """A two-sided tolerance for each output, as the module's docstring says.

    Args:
        outputs: As declared; those that are not in ``noise`` must be equal.
        noise: Of each float output.
        mutants: With their effects on the float outputs; empty for a module without weights, whose tolerances then
            have no upper side.
        rtol: Of outputs whose tolerance grows with each number.
    """
    live = [mutant for mutant in mutants if any(mutant.effects.values())]
    atol = {name: _tolerance(name, noise[name], live) for name in noise}
    lost = [mutant for mutant in live if not any(mutant.effects[name] > atol[name] for name in noise)]
    tolerances: dict[str, Tolerance] = {}
    for output in outputs:
        name = output.name
        if name not in noise:
            tolerances[name] = Tolerance(OutputParity(0.0, 0.0, decision=_decision(output), nan=output.nan))
            continue
        seen = [mutant for mutant in live if mutant.effects[name] > 0]
        caught = [mutant for mutant in seen if mutant.effects[name] > atol[name]]
        weakest = min(caught or seen, key=lambda mutant: mutant.effects[name], default=None)
        reason = None
        if mutants and not live:
            reason = "no weight rounded to half precision changes any answer"
        elif 2 * len(caught) < len(seen):
            reason = (
                f"{name} catches {len(caught)} of {len(seen)} weights rounded to half precision; its tolerance, "
                f"{NOISE_MARGIN:.0f} times the noise, is {atol[name]:.1e}"
            )
        elif any(mutant.effects[name] > 0 for mutant in lost):
            worst = min(lost, key=lambda mutant: mutant.effects[name])
            reason = (
                f"no output catches {worst.layer} rounded to {worst.format}: it moves {name} by "
                f"{worst.effects[name]:.1e}, allowed is {atol[name]:.1e}; a case that excites this layer would help"
            )
        effect = weakest.effects[name] if weakest else None
        tolerances[name] = Tolerance(
            OutputParity(
                atol=atol[name],
                rtol=(rtol or {}).get(name, 0.0),
                noise=noise[name],
                mutant=effect if effect is not None and math.isfinite(effect) else None,
                decision=_decision(output),
                nan=output.nan,
            ),
            layer=f"{weakest.layer} ({weakest.format})" + ("" if caught else ", missed") if weakest else None,
            caught=len(caught),
            seen=len(seen),
            vacuous=reason,
        )
    return tolerances


def _tolerance(output: str, noise: float, mutants: Sequence[Mutant]) -> float:
    low = NOISE_MARGIN * noise
    effects = [mutant.effects[output] for mutant in mutants if mutant.effects[output] > 0]
    high = min(effects, default=low) / MUTANT_MARGIN
    if high < low:
        return low
    # An effect without bound (a shape that changes, NaN) sets no upper side.
    return math.sqrt(low * min(high, 100 * low))


def hold(
    graph: bytes,
    outputs: Sequence[Output],
    cases: Sequence[Case],
    truth: Sequence[Arrays],
    tolerances: Mapping[str, Tolerance],
) -> Verdict:
    """Runs the graph over the sweep, as written and optimised, and compares with the float64 truth.

    Raises:
        GuardError: ONNX Runtime does not load the graph.
    """
    names = [output.name for output in outputs]
    found: dict[str, list[OutputCheck]] = {name: [] for name in names}
    failures: list[str] = []
    off: list[Case] = []
    for level in LEVELS:
        session = open_graph(graph, level)
        for case, expected in zip(cases, truth, strict=True):
            try:
                answers = run_case(session, case, names)
            except ParityError as error:
                failures.append(f"{error} ({level})")
                off.append(case)
                continue
            for name in names:
                check = compare(name, answers[name], expected[name], tolerances[name].rule, case=case.name)
                found[name].append(replace(check, variant=level))
                off += [] if check else [case]
        del session  # it keeps the memory of its largest case, and the next one needs as much
    # A case that could not be run is told in `failures`; an output of no case at all has nothing to show for itself.
    checks = tuple(
        merge(found[name]) if found[name] else failure(OutputCheck(name), "no case could be run") for name in names
    )
    return Verdict(tuple(replace(check, cases=len(cases)) for check in checks), tuple(failures), _once(off))


def hold_extremes(
    graph: bytes, outputs: Sequence[Output], extremes: Sequence[Held], noise: Mapping[str, float]
) -> Verdict:
    """Holds the graph at large and tiny values to what torch in float32 keeps of float64 there.

    An element is right within 30 times the noise of its own case, or where it is what torch answers in float32. The
    noise is what torch in float32, or another answer that is as good, differs from float64 by. What float32 cannot
    hold, and what float64 cannot tell, is left out.

    Returns:
        No checks, and one sentence for each output and case that is off.
    """
    names = [output.name for output in outputs]
    failures: list[str] = []
    off: list[Case] = []
    for level in LEVELS if extremes else ():
        session = open_graph(graph, level)
        for one in extremes:
            try:
                answers = run_case(session, one.case, names)
            except ParityError as error:
                failures.append(f"{error} ({level})")
                off.append(one.case)
                continue
            for name in noise:
                worst = _off(answers[name], one.single[name], one.truth[name], [near[name] for near in one.near])
                if worst is not None:
                    failures.append(f"case {one.case.name!r}: {name} is {worst} ({level})")
                    off.append(one.case)
        del session
    return Verdict((), tuple(failures), _once(off))


def _once(cases: Sequence[Case]) -> tuple[Case, ...]:
    return tuple({case.name: case for case in cases}.values())


def _off(
    answer: NDArray[Any], single: NDArray[Any], exact: NDArray[Any], near: Sequence[NDArray[Any]] = ()
) -> str | None:
    """The element that is furthest off, in words; None where all are right."""
    if answer.shape != exact.shape:
        return f"of the shape {list(answer.shape)} where torch has {list(exact.shape)}"
    a, s, e = (array.astype(np.float64) for array in (answer, single, exact))
    with np.errstate(invalid="ignore", over="ignore"):
        told = np.isfinite(s) & np.isfinite(e)
        size = np.abs(e[told]).max(initial=0.0)
        noise = max(np.abs(s - e)[told].max(initial=0.0), float(np.spacing(np.float32(size))))
        for other in near:
            if other.shape == exact.shape:
                distance = np.abs(other.astype(np.float64) - e)[told]
                noise = max(noise, distance[np.isfinite(distance)].max(initial=0.0))
        allowed = NOISE_MARGIN * noise
        error = np.where(told, np.abs(a - e), 0.0)
        wrong = told & ~(error <= allowed)
        # Infinities that float64 itself has are to be there, too.
        wrong |= np.isinf(e) & np.isinf(s) & (a != e)
    if not wrong.any():
        return None
    place = int(np.argmax(np.where(wrong, np.nan_to_num(error, nan=np.inf), -1.0)))
    return f"{a.flat[place]:g} where torch answers {e.flat[place]:g} (allowed {allowed:.1e})"


def _decision(output: Output) -> str | None:
    return output.decision or (None if np.dtype(output.dtype).kind == "f" else "exact")


def _where(check: OutputCheck) -> str:
    """The case and the form of the graph that fared worst, and what the numbers do not say."""
    return f"case {check.worst_case!r} ({check.variant})" + (f": {check.note}" if check.note else "")


def _number(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.1e}"
