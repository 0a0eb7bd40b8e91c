"""The cases of a proof with torch's answers to them: which count, which are left out, and what sizes torch takes.

A generated case is a guess. It is left out where torch itself raises, and where torch answers NaN; the report says so.
It is never left out because the answer contradicts the declaration. A case that the user gave is never left out.
"""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from exporters.errors import GuardError, TooFewSizesError
from exporters.guards import check_cases
from exporters.reference import Arrays
from exporters.size_guards import SizeGuard
from exporters.source import Source, TorchRefusalError, has_nan
from exporters.spec import Case, Input
from exporters.sweep import (
    FURTHER_GUESSES,
    MIN_GOLDEN,
    OTHER_SIZES,
    case_at,
    default_sizes,
    extreme_cases,
    generate_cases,
    within,
)
from runtime.manifest import DimensionSpec
from runtime.memory import give_back

SECONDS = 30.0
"""Most time for torch's answers at further sizes, those that guards and ranges name."""

BYTES = 2 << 30
"""Most memory of one case, its largest array taken for what every layer makes of it."""

LAYERS = 20

ATTEMPTS = 3
"""How often the values of a generated case are drawn, each time milder, before NaN is taken for torch's answer."""


ROUGH = 0.03
"""The share of an answer by which float32 is off only where its rounding decides something."""


@dataclass(frozen=True, slots=True)
class Held:
    """A case with torch's answers in float32 and in float64.

    Attributes:
        case: The case.
        single: In float32.
        truth: In float64.
        tied: The operator that chose among equal values.
        near: Further answers that are as good as those in float32, see `_near`.
    """

    case: Case
    single: Arrays
    truth: Arrays
    tied: str | None = None
    near: tuple[Arrays, ...] = ()


@dataclass(slots=True)
class Gathered:
    """All cases of a proof.

    Attributes:
        held: The cases that tolerances are measured on.
        extremes: Cases with large and tiny values; each is held to its own float32 noise.
        taken: For each dimension the sizes that torch answered, the others being usual.
        refused: For each dimension the sizes at which torch raised, with its words.
        usual: Of each dimension the size that most generated cases have.
        notes: What was left out.
        real: Whether the user gave cases.
    """

    held: list[Held] = field(default_factory=list)
    extremes: list[Held] = field(default_factory=list)
    taken: dict[str, set[int]] = field(default_factory=dict)
    refused: dict[str, dict[int, str]] = field(default_factory=dict)
    usual: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    real: bool = False

    @property
    def cases(self) -> list[Case]:
        """The cases that tolerances are measured on."""
        return [one.case for one in self.held]

    @property
    def single(self) -> list[Arrays]:
        """Their answers in float32."""
        return [one.single for one in self.held]

    @property
    def truth(self) -> list[Arrays]:
        """Their answers in float64."""
        return [one.truth for one in self.held]


def first_cases(
    source: Source,
    cases: Sequence[Case] | None,
    sizes: Mapping[str, Sequence[int]] | None,
    dimensions: Mapping[str, DimensionSpec],
    seed: int,
) -> Gathered:
    """The user's cases and generated ones, with the answers of the source.

    Args:
        source: Where the answers come from.
        cases: The user's.
        sizes: To sweep each dimension over; None guesses.
        dimensions: The ranges that were declared.
        seed: Of generated values.

    Raises:
        GuardError: see `gather` and `exporters.guards.check_cases`.
    """
    inputs = source.signature.inputs
    refusal: GuardError | None = None
    # Sizes that nobody named are a guess. A network that halves its input takes other ones.
    for guess in (OTHER_SIZES, *FURTHER_GUESSES) if cases is None and sizes is None else (OTHER_SIZES,):
        generated: tuple[Case, ...] = ()
        if cases is None or sizes or len(cases) < MIN_GOLDEN:
            swept = default_sizes(inputs, sizes or {}, guess)
            generated = generate_cases(inputs, {n: within(s, dimensions.get(n)) for n, s in swept.items()}, seed)
        check_cases(inputs, [*(cases or ()), *generated])
        try:
            found = gather(source, cases or (), generated, sizes is None, seed)
            check_cases(inputs, found.cases)
        except GuardError as error:
            refusal = refusal or error
            if not isinstance(error, TorchRefusalError | TooFewSizesError):
                raise
            continue
        return found
    raise refusal or GuardError("there are no cases")


def gather(source: Source, given: Sequence[Case], generated: Sequence[Case], guessed: bool, seed: int) -> Gathered:
    """Asks torch for its answers to the cases that were given and to generated ones.

    Args:
        source: The module.
        given: The user's cases.
        generated: Cases that were drawn.
        guessed: Whether torch may refuse a generated case; not where the user named the sizes.
        seed: Of redrawn values.

    Raises:
        GuardError: torch refuses a case of the user's, an answer contradicts the declaration, or is NaN undeclared.
    """
    found = Gathered(real=bool(given))
    bound = [source.signature.sizes(case) for case in generated]
    for name in bound[0] if bound else ():
        found.usual[name] = Counter(sizes[name] for sizes in bound).most_common(1)[0][0]
    for case in given:
        found.held.append(_checked(source, case))
        for name, size in source.signature.sizes(case).items():
            found.taken.setdefault(name, set()).add(size)
    for case in generated:
        _try(source, case, found, guessed, seed)
    if not found.held:
        reasons = [words for sizes in found.refused.values() for words in sizes.values()]
        reason = (reasons or found.notes or ["there are none"])[0]
        raise TorchRefusalError(f"{source.name} answers none of the cases: {reason}")
    return found


def extend(
    source: Source, found: Gathered, sizes: Mapping[str, Iterable[int]], base: Mapping[str, int], seed: int
) -> None:
    """Adds a case for each further size of a dimension, the others being as in ``base``, as far as the budget goes."""
    began = time.monotonic()
    known = {name: found.taken.get(name, set()) | set(found.refused.get(name, {})) for name in sizes}
    for name, wanted in sizes.items():
        for size in sorted(set(wanted) - known[name]):
            bound = {**base, name: size}
            if _bytes(source.signature.inputs, bound) > BYTES or time.monotonic() - began > SECONDS:
                found.notes.append(f"not tried for its cost: {name}={size}")
                continue
            _try(source, case_at(source.signature.inputs, bound, seed), found, True, seed, along=name)


def add_extremes(source: Source, found: Gathered, base: Mapping[str, int], seed: int) -> None:
    """Adds cases of large and tiny values, where inputs have no limits of their own."""
    for case in extreme_cases(source.signature.inputs, base, seed):
        try:
            one = _held(source, case)
            one = replace(one, near=_near(source, case))
        except TorchRefusalError:
            continue
        finite = (np.isfinite(a).any() or not a.size for a in one.truth.values() if a.dtype.kind == "f")
        if one.tied is None and all(finite):
            found.extremes.append(one)


def ranges(
    found: Gathered, declared: Mapping[str, DimensionSpec], guards: Sequence[SizeGuard], base: Mapping[str, int]
) -> dict[str, DimensionSpec]:
    """The sizes of each dimension for which the proof stands: as declared, narrowed where torch itself raises.

    Raises:
        GuardError: torch raises at a size inside of a range that was declared, or at sizes that follow no rule.
    """
    narrowed = dict(declared)
    for name, refused in found.refused.items():
        taken = found.taken.get(name, set())
        inside = [size for size in refused if name in declared and size in declared[name]]
        if inside:
            raise GuardError(f"{name} is declared as {declared[name]}, but at {name}={inside[0]} {refused[inside[0]]}")
        outside = [size for size in refused if size > 0]
        if name in declared or not outside:
            continue
        middle = base.get(name, 1)
        low = max((size for size in outside if size < middle), default=0) + 1
        high = min((size for size in outside if size > middle), default=None)
        limits = DimensionSpec(min=low, max=None if high is None else high - 1)
        lost = [size for size in taken if size > 0 and size not in limits]
        if lost:
            multiple = int(np.gcd.reduce([size for size in taken if size > 0]))
            limits = DimensionSpec(min=multiple, multiple=multiple)
            if multiple == 1 or any(size in limits for size in outside):
                raise GuardError(
                    f"torch takes {name}={', '.join(map(str, sorted(taken)))} and refuses "
                    f"{', '.join(map(str, sorted(outside)))} ({refused[outside[0]]}); declare the sizes that it takes"
                )
        narrowed[name] = limits
        told = "; ".join(str(guard) for guard in guards if name in guard.names)[:200]
        found.notes.append(f"{name} is {limits}: torch raises elsewhere{f' ({told})' if told else ''}")
    return narrowed


def rounding_decides(found: Gathered) -> str | None:
    """The case in which torch in float32 is far from torch in float64, in one sentence."""
    for one in found.held:
        for name, exact in one.truth.items():
            single = one.single[name]
            if exact.dtype.kind != "f" or not exact.size:
                continue
            away = np.abs(np.nan_to_num(single.astype(np.float64) - exact))
            if away.max() > ROUGH * np.abs(np.nan_to_num(exact, posinf=0.0, neginf=0.0)).max():
                place = int(away.argmax())
                return (
                    f"{name}, case {one.case.name!r}: torch itself answers {single.flat[place]:.6g} in float32 and "
                    f"{exact.flat[place]:.6g} in float64, so float32's rounding decides there (a whole number made of "
                    "a quotient, an index, a comparison, a state that doubles each error) and no graph can be held "
                    "to it. Compute such numbers of whole numbers, with // and %, or leave out such inputs (limits=)"
                )
    return None


def _try(source: Source, case: Case, found: Gathered, guessed: bool, seed: int, along: str | None = None) -> None:
    sizes = source.signature.sizes(case)
    other = [name for name, size in sizes.items() if size != found.usual.get(name, size)]
    names = [along] if along else other if len(other) == 1 else []
    for attempt in range(ATTEMPTS):
        try:
            one = _held(source, case)
        except TorchRefusalError as error:
            if not guessed:
                raise
            found.notes.append(f"left out, {source.name} refuses it: {case.name}")
            for name in names:
                found.refused.setdefault(name, {})[sizes[name]] = str(error).partition(": ")[2]
            return
        first = has_nan(one.truth) or has_nan(one.single)
        nan = [output.name for output in source.signature.outputs if not output.nan and output.name == first]
        if not nan and (reason := _undecided(one) or _tied(one)) is None:
            found.held.append(one)
            for name in names:
                found.taken.setdefault(name, set()).add(sizes[name])
            return
        reason = f"{source.name} answers NaN in {nan[0]}" if nan else reason
        if attempt + 1 < ATTEMPTS:
            case = case_at(source.signature.inputs, sizes, seed + attempt + 1, name=case.name, mild=attempt + 1)
    found.notes.append(f"left out, {reason}: {case.name}")


def _checked(source: Source, case: Case) -> Held:
    """A case of the user's.

    Raises:
        GuardError: its answer is NaN, or hangs on float32's rounding.
    """
    one = _held(source, case)
    for output in source.signature.outputs:
        if not output.nan and output.name == (has_nan(one.truth) or has_nan(one.single)):
            raise GuardError(
                f"case {case.name!r}: {source.name} itself answers NaN in {output.name}; declare Output(..., nan=True) "
                "if that is meant, or leave the case out"
            )
    reason = _undecided(one)
    if reason is not None:
        raise GuardError(f"case {case.name!r}: {reason}, so it proves nothing: change it or leave it out")
    return one


def _undecided(one: Held) -> str | None:
    for name, exact in one.truth.items():
        single = one.single[name]
        if single.shape != exact.shape or (exact.dtype.kind != "f" and not np.array_equal(single, exact)):
            return f"torch float32 and torch float64 decide differently about {name}: it lies on the edge of a decision"
    return None


def _tied(one: Held) -> str | None:
    return one.tied and f"{one.tied} chooses among equal values, and torch does not say which"


def _held(source: Source, case: Case) -> Held:
    single = source.answers(case, torch.float32)
    give_back()  # values of another size would hardly fit into the pieces that these leave
    truth = source.answers(case, torch.float64)
    give_back()
    return Held(case, single, truth, source.tied)


def _near(source: Source, case: Case) -> tuple[Arrays, ...]:
    """What float32 may answer to a case as well, though torch's own rounding has not met it there.

    One unit in the last place of the inputs does not change what float32 can promise: a soft-max of logits of 10,000
    moves by 1e-4 for it. Nor does a rounding that forward itself asks for by a narrower cast.
    """
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))

    def moved(array: NDArray[Any]) -> NDArray[Any]:
        if array.dtype != np.float32:
            return array
        ends = np.where(rng.random(array.shape) < 0.5, -np.inf, np.inf).astype(np.float32)
        return np.asarray(np.nextafter(array, ends))

    near = source.answers(Case(case.name, {name: moved(array) for name, array in case.inputs.items()}), torch.float64)
    unrounded = source.unrounded(case)
    return (near,) if unrounded is None else (near, unrounded)


def _bytes(inputs: Sequence[Input], sizes: Mapping[str, int]) -> int:
    """A guess at the memory of one call."""
    largest = max(
        int(np.prod([sizes[size] if isinstance(size, str) else size for size in tensor.shape], dtype=np.int64))
        for tensor in inputs
    )
    return 8 * LAYERS * largest
