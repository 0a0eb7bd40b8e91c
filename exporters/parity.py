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
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ParityError
from exporters.execute import LEVELS, open_graph, run_case
from exporters.mutants import Mutant
from exporters.reference import Arrays, max_difference
from exporters.spec import Case, Decision, Output
from runtime.manifest import CRITERION, OutputParity, Parity

NOISE_MARGIN = 30.0
MUTANT_MARGIN = 10.0
REFERENCE = "torch float64"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What an output may be off by, and why.

    Attributes:
        atol: The absolute tolerance; 0 for outputs that must be equal.
        noise: Float32 noise; None for outputs that must be equal.
        mutant: Effect of the weakest mutant that this output catches; None if no mutant moves it.
        layer: The weight that this mutant rounds, with the format.
        caught: How many mutants exceed the tolerance.
        seen: How many mutants move the output at all.
        vacuous: Why the tolerance proves nothing; None if it does.
    """

    atol: float
    noise: float | None = None
    mutant: float | None = None
    layer: str | None = None
    caught: int = 0
    seen: int = 0
    vacuous: str | None = None

    @property
    def margin(self) -> float | None:
        """How many tolerances the weakest caught mutant amounts to; 10 is asked for."""
        return self.mutant / self.atol if self.mutant is not None and self.atol else None


@dataclass(frozen=True, slots=True)
class OutputRow:
    """The verdict on one output over the whole sweep."""

    output: str
    tolerance: Tolerance
    max_abs: float
    worst_case: str
    decision: Decision | None
    decision_changes: int

    @property
    def ok(self) -> bool:
        """Within the tolerance, and every decision that float64 can tell is the same."""
        return self.max_abs <= self.tolerance.atol and self.decision_changes == 0


@dataclass(frozen=True, slots=True)
class ParityReport:
    """All that the gate found. True if the graph may be shipped."""

    rows: tuple[OutputRow, ...]
    cases: int
    failures: tuple[str, ...] = ()
    operators: Mapping[str, int] = field(default_factory=dict)
    opset: int = 0
    ir_version: int = 0
    flushed: int = 0
    flush_effect: float = 0.0
    mutants: tuple[Mutant, ...] = ()
    notes: tuple[str, ...] = ()
    untrained: bool = False

    def __bool__(self) -> bool:
        return not self.failures and all(row.ok for row in self.rows) and (self.untrained or not self.vacuous)

    @property
    def vacuous(self) -> tuple[str, ...]:
        """Why the tolerance of an output proves nothing, one sentence for each."""
        return tuple(row.tolerance.vacuous for row in self.rows if row.tolerance.vacuous)

    def parity(self) -> Parity:
        """The manifest's form."""
        return Parity(
            criterion=CRITERION,
            reference=REFERENCE,
            outputs={
                row.output: OutputParity(
                    atol=row.tolerance.atol,
                    rtol=0.0,
                    max_abs=row.max_abs,
                    noise=row.tolerance.noise,
                    mutant=row.tolerance.mutant,
                    decision=row.decision,
                )
                for row in self.rows
            },
        )

    def __str__(self) -> str:
        verdict = "passed" if self else "FAILED"
        lines = [f"parity {verdict}: {self.cases} cases against {REFERENCE}, the graph {' and '.join(LEVELS)}"]
        width = max([len(row.output) for row in self.rows[:16]] + [6])
        lines.append(
            f"  {'output':{width}}  {'worst':>8}  {'allowed':>8}  {'noise':>8}  {'mutant':>8}  weakest mutant caught"
        )
        for row in self.rows[:16]:
            told = row.tolerance
            numbers = "  ".join(_number(value) for value in (row.max_abs, told.atol, told.noise, told.mutant))
            changed = "" if row.decision is None else f"  {row.decision}: {row.decision_changes} changed"
            mark = "" if row.ok else f"  <- at {row.worst_case}"
            share = f"  catches {told.caught}/{told.seen}" if told.seen else ""
            lines.append(f"  {row.output:{width}}  {numbers}  {told.layer or '-'}{share}{changed}{mark}")
        lines += [f"  … and {len(self.rows) - 16} more outputs"] * (len(self.rows) > 16)
        lines += [f"  failed: {failure}" for failure in self.failures[:8]]
        lines += [f"  … and {len(self.failures) - 8} more failures"] * (len(self.failures) > 8)
        lines += [f"  vacuous{' (allowed: untrained)' * self.untrained}: {text}" for text in self.vacuous[:4]]
        counts = Counter(self.operators)
        shown = ", ".join(f"{name} {count}" for name, count in counts.most_common(12))
        lines.append(f"  graph: opset {self.opset}, IR {self.ir_version}, {counts.total()} nodes: {shown}")
        if self.flushed:
            effect = f"{self.flush_effect:.1e}"
            lines.append(f"  denormal weights set to zero: {self.flushed}; moves the answers by at most {effect}")
        lines += [f"  note: {note}" for note in self.notes[:8]]
        return "\n".join(lines)


def derive_tolerances(
    outputs: Sequence[Output], noise: Mapping[str, float], mutants: Sequence[Mutant]
) -> dict[str, Tolerance]:
    """A two-sided tolerance for each output, as the module's docstring says.

    Args:
        outputs: As declared; those that are not in ``noise`` must be equal.
        noise: Of each float output.
        mutants: With their effects on the float outputs; empty for a module without weights, whose tolerances then
            have no upper side.
    """
    live = [mutant for mutant in mutants if any(mutant.effects.values())]
    atol = {name: _tolerance(name, noise[name], live) for name in noise}
    lost = [mutant for mutant in live if not any(mutant.effects[name] > atol[name] for name in noise)]
    tolerances: dict[str, Tolerance] = {}
    for output in outputs:
        name = output.name
        if name not in noise:
            tolerances[name] = Tolerance(0.0)
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
            atol=atol[name],
            noise=noise[name],
            mutant=effect if effect is not None and math.isfinite(effect) else None,
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
) -> tuple[tuple[OutputRow, ...], tuple[str, ...]]:
    """Runs the graph over the sweep, as written and optimised, and compares with the float64 truth.

    Returns:
        A row per output, and one sentence for each case that could not be run.

    Raises:
        GuardError: ONNX Runtime does not load the graph.
    """
    names = [output.name for output in outputs]
    worst = dict.fromkeys(names, (0.0, ""))
    changes = dict.fromkeys(names, 0)
    failures: list[str] = []
    for level in LEVELS:
        session = open_graph(graph, level)
        for case, expected in zip(cases, truth, strict=True):
            try:
                answers = run_case(session, case, names)
            except ParityError as error:
                failures.append(f"{error} ({level})")
                continue
            for output in outputs:
                answer, exact = answers[output.name], expected[output.name]
                difference = max_difference(answer, exact)
                if answer.shape != exact.shape:
                    failures.append(
                        f"case {case.name!r}: {output.name} has shape {list(answer.shape)}, torch has "
                        f"{list(exact.shape)} ({level})"
                    )
                changes[output.name] += count_changes(_decision(output), answer, exact, tolerances[output.name].atol)
                if difference > worst[output.name][0]:
                    worst[output.name] = (difference, f"case {case.name!r} ({level})")
    rows = tuple(OutputRow(o.name, tolerances[o.name], *worst[o.name], _decision(o), changes[o.name]) for o in outputs)
    return rows, tuple(failures)


def count_changes(decision: Decision | None, answer: NDArray[Any], truth: NDArray[Any], atol: float) -> int:
    """How many decisions differ although the float64 margin is larger than the tolerance.

    The margin of ``argmax`` (over the last axis) is the gap between the two largest values, that of ``round`` the
    distance to the next half; ``exact`` knows none.
    """
    if answer.shape != truth.shape or not truth.size or decision is None:
        return 0
    if decision == "exact":
        return int(np.count_nonzero(answer != truth))
    if decision == "round":
        clear = np.abs(truth - np.floor(truth) - 0.5) > atol
        return int(np.count_nonzero(clear & (np.rint(answer) != np.rint(truth))))
    if truth.shape[-1] < 2:
        return 0
    top = np.partition(truth, -2, axis=-1)
    clear = top[..., -1] - top[..., -2] > atol
    return int(np.count_nonzero(clear & (answer.argmax(-1) != truth.argmax(-1))))


def _decision(output: Output) -> Decision | None:
    return output.decision or (None if np.dtype(output.dtype).kind == "f" else "exact")


def _number(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.1e}"
