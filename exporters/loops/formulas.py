"""Numbers that depend on the step of a loop and on the lengths, found from those that were traced.

A Python number in the body (``x[:, t - 1]``, ``h * t / T``, ``math.sin(0.1 * t)``, whether ``t % 2``) is in the trace
as what it was at each step, for each traced length. It must be one of the few forms below for all of them at once, or
the loop is refused. Steps are counted from 0, lengths are those of the axes, in their order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

EXACT, SINGLE = 1e-11, 3e-7
"""Relative; what is computed from a formula may round otherwise than what Python computed, or torch in float32."""

_INVERSES: dict[str, tuple[Callable[[Any], Any], Callable[[Tensor], Tensor]]] = {
    "": (lambda v: v, lambda v: v),
    "1/": (lambda v: 1 / v, torch.reciprocal),
    "sqrt": (np.square, torch.sqrt),
    "1/sqrt": (lambda v: 1 / np.square(v), torch.rsqrt),
    "exp": (np.log, torch.exp),
    "log": (np.exp, torch.log),
    "square": (np.sqrt, torch.square),
    "tanh": (np.arctanh, torch.tanh),
    "sigmoid": (lambda v: -np.log(1 / v - 1), torch.sigmoid),
}
"""How a number is made linear in step and lengths, and how it comes from that."""

_POWERS = {"": 1, "1/": -1, "sqrt": 0.5, "1/sqrt": -0.5, "square": 2}
"""Those that a number of the lengths alone may have."""


@dataclass(frozen=True, slots=True)
class Formula:
    """A number by step and lengths.

    Attributes:
        form: What is done with the linear part.
        slope: By the step.
        offset: For all steps.
        slopes: By each length.
        extra: Numbers of the form.
        curve: By the square of the step.
    """

    form: str
    slope: Any
    offset: Any
    slopes: tuple[Any, ...]
    extra: tuple[Any, ...] = ()
    curve: Any = 0

    def at(self, step: Any, steps: Any, lengths: Sequence[Any]) -> Any:
        """The number at a step, or at a tensor of steps (int64), of a loop of so many steps."""
        offset = self.offset
        for slope, length in zip(self.slopes, lengths, strict=True):
            offset = offset + slope * length if slope else offset
        offset = offset + self.curve * step * step if self.curve else offset
        if self.form == "divided":
            return (self.slope * step + offset) // self.extra[0]
        if self.form == "modulo":
            return (self.slope * step + offset) % self.extra[0]
        if self.form == "product":
            one, shift, other, factor = self.extra
            return (lengths[one] + shift) * lengths[other] * factor
        if self.form == "until":
            return step < offset
        if self.form == "from":
            return step >= offset
        if self.form == "until the last":
            return step < steps - offset
        if self.form == "the last":
            return step >= steps - offset
        if self.form == "every":
            turn, found = step % self.extra[0], torch.zeros_like(step, dtype=torch.bool)
            for rest in self.extra[1:]:
                found = found | (turn == rest)
            return found
        if self.form == "only":
            return step == offset
        if self.form == "but":
            return step != offset
        if self.form in ("at least", "at most"):
            bound = self.extra[0] + sum(n * length for n, length in zip(self.extra[1:], lengths, strict=True) if n)
            linear = self.slope * step + offset
            if isinstance(step, Tensor):
                choose = torch.maximum if self.form == "at least" else torch.minimum
                return choose(linear, torch.zeros_like(step) + bound)
            pick: Any = torch.sym_max if self.form == "at least" else torch.sym_min
            return pick(linear, bound)
        if self.form in ("and at least", "and at most"):
            clip: Any = torch.sym_max if self.form == "and at least" else torch.sym_min
            return self.slope * step + clip(offset, self.extra[0])
        return self._float(step, offset, lengths)

    def _float(self, step: Any, offset: Any, lengths: Sequence[Any]) -> Any:
        if self.form == "linear":
            return self.slope * step + offset
        if not isinstance(step, Tensor):
            return self._alone(offset, lengths)
        given = step.to(torch.float64)
        name, over, _ = self.form.partition(" over ")
        if name == "wave":
            amplitude, phase, middle = self.extra
            return amplitude * torch.sin(self.slope * given + phase) + middle
        linear = self.slope * given + offset
        if over:
            axis, shift = self.extra
            linear = linear / _positive(lengths[axis] + shift)
        return _INVERSES[name][1](linear)

    def _alone(self, linear: Any, lengths: Sequence[Any]) -> Any:
        """A number of the lengths alone, as Python or torch's symbolic shapes compute it."""
        name, over, _ = self.form.partition(" over ")
        if over:
            axis, shift = self.extra
            linear = linear / _positive(lengths[axis] + shift)
        return linear if _POWERS[name] == 1 else linear ** _POWERS[name]


def find(tables: Sequence[Sequence[Any]], lengths: Sequence[Sequence[int]], exact: float = EXACT) -> Formula | None:
    """The formula for numbers at the steps of several traces; None if there is none.

    Args:
        tables: For each trace the number at each step, None where it does not matter.
        lengths: For each trace the length of each axis.
        exact: How far a float may be off, relative to 1 or to itself.
    """
    rows = [
        (step, len(table), tuple(sizes), number)
        for table, sizes in zip(tables, lengths, strict=True)
        for step, number in enumerate(table)
        if number is not None
    ]
    numbers = [row[3] for row in rows]
    if all(type(number) is bool for number in numbers):
        found: Iterator[Formula | None] = _conditions(rows)
    elif all(type(number) is int for number in numbers):
        found = _whole(rows)
    else:
        found = itertools.chain(_real(rows, exact), _waves(tables, lengths, exact))
    alone = all(row[0] == 0 for row in rows)
    return next(
        (
            formula
            for formula in found
            if formula is not None and not (alone and _is_of_steps(formula)) and _holds(formula, rows, exact)
        ),
        None,
    )


def _positive(length: Any) -> Any:
    """What ``t / max(T - 1, 1)`` divides by; without the maximum a single step is an error of Python."""
    largest: Any = torch.sym_max
    return largest(length, 1)


def _is_of_steps(formula: Formula) -> bool:
    """Whether it can be computed for a step only."""
    power = formula.form.partition(" over ")[0]
    return power in _INVERSES and power not in _POWERS


def _holds(formula: Formula, rows: Sequence[Any], exact: float) -> bool:
    for step, steps, lengths, number in rows:
        given = formula.at(torch.tensor(step), steps, lengths)
        value = given.item() if isinstance(given, Tensor) else given
        if isinstance(number, float):
            if not math.isclose(value, number, rel_tol=exact, abs_tol=exact):
                return False
        elif value != number:
            return False
    return True


def _linear(
    rows: Sequence[Any], values: Sequence[Any], whole: bool = False, exact: float = EXACT, axes: int = 1
) -> tuple[Any, Any, tuple[Any, ...], Any] | None:
    """(slope, offset, slopes, curve) of numbers that are linear in the step and as few lengths as will do.

    There are at most `axes` lengths. Where one does not do, the square of the step is taken as well.
    """
    target = np.array(values, np.float64)
    if not np.isfinite(target).all():
        return None
    lengths = range(len(rows[0][2]))
    for curved, count in ((False, 0), (False, 1), (True, 0), (False, 2)):
        for chosen in itertools.combinations(lengths, count) if count <= axes else ():
            columns = [
                (row[0], 1, *(row[2][axis] for axis in chosen), *((row[0] ** 2,) if curved else ())) for row in rows
            ]
            matrix = np.array(columns, np.float64)
            solution, *_ = np.linalg.lstsq(matrix, target, rcond=1e-12)
            if not np.allclose(matrix @ solution, target, rtol=100 * exact, atol=100 * exact):
                continue
            slope, offset, *some = (_plain(number, 100 * exact) for number in solution)
            if whole and not all(type(number) is int for number in (slope, offset, *some)):
                continue
            curve = some.pop() if curved else 0
            slopes = dict(zip(chosen, some, strict=True))
            return slope, offset, tuple(slopes.get(axis, 0) for axis in lengths), curve
    return None


def _plain(number: float, exact: float = 1e-9) -> Any:
    """A number without the noise of solving for it."""
    near = Fraction(number).limit_denominator(1000)
    if abs(float(near) - number) < exact:
        return int(near) if near.denominator == 1 else float(near)
    return float(number)


def _whole(rows: Sequence[Any]) -> Iterator[Formula | None]:
    values = [row[3] for row in rows]
    yield _formula("linear", _linear(rows, values, whole=True))
    yield from _products(rows, values)
    yield from _divided(rows)
    yield _formula("linear", _linear(rows, values, whole=True, axes=2))  # three traces hardly contradict three unknowns
    yield from _bounded(rows, values)
    yield from _clipped(rows)


def _divided(rows: Sequence[Any]) -> Iterator[Formula | None]:
    for divisor, coefficients in itertools.product(range(2, 9), _small(len(rows[0][2]))):
        slope, *slopes = coefficients
        for offset in range(-divisor, divisor):
            yield Formula("divided", slope, offset, tuple(slopes), (divisor,))
            yield Formula("modulo", slope, offset, tuple(slopes), (divisor,))


def _bounded(rows: Sequence[Any], values: Sequence[Any]) -> Iterator[Formula | None]:
    axes = range(len(rows[0][2]))
    if all(row[0] == 0 for row in rows):
        return
    for form, bound in (("at least", min(values)), ("at most", max(values))):
        inner = [row for row in rows if row[3] != bound]
        if len(inner) > 1:
            yield _formula(form, _linear(inner, [row[3] for row in inner], whole=True), (bound, *(0 for _ in axes)))
    for axis, shift in itertools.product(axes, range(-3, 4)):  # a bound that moves with a length: min(t + 2, T - 1)
        inner = [row for row in rows if row[3] != row[2][axis] + shift]
        if 1 < len(inner) < len(rows):
            extra = (shift, *(int(other == axis) for other in axes))
            yield _formula("at most", _linear(inner, [row[3] for row in inner], whole=True), extra)


def _clipped(rows: Sequence[Any]) -> Iterator[Formula | None]:
    """The step and a clipped length, as of the last ten steps or of the first ten: ``t + max(T - 10, 0)``.

    Few traces tell little here. Time is tried before the batch, which most often comes first.
    """
    axes = range(len(rows[0][2]))
    for axis, slope in itertools.product(reversed(axes), (0, 1, -1)):
        rest = [row[3] - slope * row[0] for row in rows]
        slopes = tuple(int(other == axis) for other in axes)
        for shift in sorted({number - row[2][axis] for number, row in zip(rest, rows, strict=True)}):
            for form, bound in (("and at least", min(rest)), ("and at most", max(rest))):
                yield Formula(form, slope, shift, slopes, (bound,))


def _products(rows: Sequence[Any], values: Sequence[Any]) -> Iterator[Formula | None]:
    """(length + shift) · length · factor, as of a flattened batch."""
    none = tuple(0 for _ in rows[0][2])
    for (one, other), shift in itertools.product(itertools.permutations(range(len(none)), 2), range(-2, 3)):
        (_, _, lengths, _), value = rows[0], values[0]
        factor, rest = divmod(value, ((lengths[one] + shift) * lengths[other]) or 1)
        if factor and not rest:
            yield Formula("product", 0, 0, none, (one, shift, other, factor))


def _small(axes: int) -> Iterator[tuple[int, ...]]:
    for place in range(axes + 1):
        yield tuple(int(at == place) for at in range(axes + 1))


def _conditions(rows: Sequence[Any]) -> Iterator[Formula]:
    none = tuple(0 for _ in rows[0][2])
    for count, form in itertools.product(range(9), ("until", "from", "until the last", "the last", "only", "but")):
        yield Formula(form, 0, count, none)
    most = max(([row[3] for row in rows if row[1] == steps] for steps in {row[1] for row in rows}), key=len)
    if min(most.count(True), most.count(False)) < 2:
        return  # what happens once is not every so often
    for period in range(2, 1 + max(row[1] for row in rows) // 2):
        turns: dict[int, set[bool]] = {}
        for step, _, _, number in rows:
            turns.setdefault(step % period, set()).add(number)
        if all(len(found) == 1 for found in turns.values()):
            yield Formula(
                "every", 0, 0, none, (period, *sorted(turn for turn, found in turns.items() if True in found))
            )


def _real(rows: Sequence[Any], exact: float) -> Iterator[Formula | None]:
    values = np.array([row[3] for row in rows], np.float64)
    with np.errstate(all="ignore"):
        for name, (inverse, _) in _INVERSES.items():
            changed = inverse(values)
            yield _formula(name, _linear(rows, changed, exact=exact))
            for axis, shift in itertools.product(range(len(rows[0][2])), (0, -1, 1)):
                scaled = changed * np.array([row[2][axis] + shift for row in rows])
                yield _formula(f"{name} over ", _linear(rows, scaled, exact=exact), (axis, shift))


def _waves(tables: Sequence[Sequence[Any]], lengths: Sequence[Sequence[int]], exact: float) -> Iterator[Formula | None]:
    """Amplitude · sin(slope · step + phase), in which the lengths are not."""
    table = np.array(max((t for t in tables if None not in t), key=len, default=()), np.float64)
    if len(table) < 5:
        return
    for middle in (0.0, 0.5, 1.0):
        moved = table - middle
        inner = moved[1:-1]
        if not (np.abs(inner) > 1e-9).any():
            continue
        at = int(np.argmax(np.abs(inner)))
        cosine = (moved[at] + moved[at + 2]) / (2 * moved[at + 1])
        if abs(cosine) >= 1:
            continue
        slope = _plain(math.acos(cosine), 1000 * exact)
        steps = np.arange(len(table))
        (sine, cos), *_ = np.linalg.lstsq(
            np.stack([np.sin(slope * steps), np.cos(slope * steps)], 1), moved, rcond=None
        )
        none = tuple(0 for _ in lengths[0])
        amplitude, phase = float(np.hypot(sine, cos)), math.atan2(cos, sine)
        for quarter in (-1, 0, 1, 2):  # a sine or cosine, if it is near one
            if abs(phase - quarter * math.pi / 2) < 1000 * exact:
                phase = quarter * math.pi / 2
        yield Formula("wave", slope, 0, none, (_plain(amplitude, 1000 * exact), phase, middle))


def _formula(form: str, linear: Any, extra: tuple[Any, ...] = ()) -> Formula | None:
    if linear is None:
        return None
    slope, offset, slopes, curve = linear
    return Formula(form, slope, offset, slopes, extra, curve)
