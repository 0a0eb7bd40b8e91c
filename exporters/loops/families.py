"""The body of a loop, read off its iterations as they were traced one after the other.

A *family* is one value of the body at each of the steps where it was computed: the same operator, created at the same
place of the code. What its operator reads there is, in the order of its arguments,

- a constant, or one value from before the loop (a weight, what does not change),
- a number that depends on the step,
- the member of another family at this step,
- the member of a family some steps before (the state), and at first something else,
- one of these by the step, where branches of the body take turns.

So a step that differs (``if t == 0``, ``if t % 2``) has families of its own, with members at those steps only. They are
computed at all steps and chosen from by ``where``; those of the first and the last steps stay outside of the loop.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from exporters.loops import operators, vectorized
from exporters.loops.alike import UnlikeError, alike, difference, growth, is_constant
from exporters.loops.circles import circles
from exporters.loops.program import Program, Table, Value, aten, needed
from exporters.loops.record import Run

MOST_VARIANTS = 6
"""How many different values from before the loop may stand at one place of the body, step by step."""


@dataclass(eq=False, repr=False, slots=True)
class Family:
    """One value of a loop's body.

    Attributes:
        members: By step.
        target: The operator.
        operands: What it reads: constants, values, `Now` and `Before`.
        first: A member, whose arguments show how the operands are put together, and whose ``fake`` what comes out.
        low: The first step that it is computed at.
        high: The last one.
    """

    members: dict[int, Value]
    target: Any
    operands: list[Any] = field(default_factory=list)
    first: Any = None
    low: int = 0
    high: int = 0

    @property
    def steps(self) -> int:
        """How many steps it is computed at."""
        return self.high - self.low + 1

    def reads(self) -> Iterator[Family]:
        """The families that it depends on."""
        return (operand.family for operand in self.operands if isinstance(operand, Now | Before))


@dataclass(frozen=True, slots=True)
class Now:
    """The member of a family at the same step."""

    family: Family


@dataclass(frozen=True, slots=True)
class Before:
    """The member of a family at the step ``len(begin)`` before; at the first steps those of ``begin``."""

    family: Family
    begin: tuple[Any, ...]


class Loop:
    """The families of one run of a loop.

    Attributes:
        families: Those that depend on the step.
        parts: The same in groups that depend on each other in a circle.
        same: What a value is computed as that is the same at every step.
    """

    def __init__(self, program: Program, run: Run, edges: int) -> None:
        """Finds them.

        Args:
            program: In which the loops within this one are rolled up already.
            run: The loop.
            edges: Families of nothing but the first or last so many steps stay outside.

        Raises:
            UnlikeError: The steps have nothing in common that could be written down once.
        """
        self.program, self.run, self.steps = program, run, run.count
        self.order = needed(program)
        self.same: dict[Value, Value] = {}
        self.of: dict[Value, tuple[Family, int]] = {}
        self.families = self._gathered()
        for family in self.families:
            self._register(family)
        self._separate()
        self._leave_outside(edges)
        self.parts = circles(self.families, {family: list(self._raw_reads(family)) for family in self.families})
        self.part_of = {family: part for part in self.parts for family in part}
        self._chosen: dict[Any, Family] = {}
        self._choices: list[_Choice] = []
        for part in self.parts:
            steps = {step for family in part for step in family.members}
            # Without the first step where nothing needs it; without more a loop of one step would have less than none.
            low = int(min(steps) == 1 and len(steps) == max(steps))
            for family in part:
                family.low, family.high = low, self.steps - 1
        for family in list(self.families):
            family.operands = [self._operand(family, slot) for slot in range(len(family.first.leaves()))]
            pairs = zip(family.operands, family.first.leaves(), strict=True)
            if any(isinstance(operand, Now) and not isinstance(leaf, Value) for operand, leaf in pairs):
                width = family.first.fake.shape[family.first.args[1]] if family.target is aten.slice.Tensor else 0
                family.target = vectorized.Numbered(family.target, width)
        self.families += [family for choice in self._choices for family in self._write_choice(choice)]
        self.families += self._chosen.values()
        self.parts = circles(self.families, {family: list(family.reads()) for family in self.families})
        self.part_of = {family: part for part in self.parts for family in part}

    def _gathered(self) -> list[Family]:
        found: dict[Any, dict[int, Value]] = {}
        places: dict[Any, dict[Any, Value]] = {}
        for value in self.order:
            at = next((at for at, (run, _) in enumerate(value.path) if run is self.run), None)
            if at is None:
                continue
            step = value.path[at][1]
            inner = tuple((run.site, iteration) for run, iteration in value.path[at + 1 :])
            kind = value.kind()
            key: tuple[Any, ...] = (value.origin.point, inner, kind)
            variants = places.setdefault((value.origin.point, inner, value.target), {})
            variants.setdefault(kind, value)
            if len(variants) > min(MOST_VARIANTS, max(self.steps - 1, 3)):
                raise UnlikeError(growth(list(variants.values())))
            while step in found.setdefault(key, {}):  # changes in place are several operators of one place
                key = (*key, "again")
            found[key][step] = value
        return [self._made(members) for members in found.values() if members]

    def _made(self, members: dict[int, Value]) -> Family:
        first = members[min(members)]
        return Family(members, first.target, [], first)

    def _register(self, family: Family) -> None:
        self.of |= {value: (family, step) for step, value in family.members.items()}

    def _leaf(self, leaf: Any) -> Any:
        return self.same.get(leaf, leaf) if isinstance(leaf, Value) else leaf

    def _across(self, family: Family, slot: int) -> dict[int, Any]:
        """What one argument is at each step."""
        return {step: self._leaf(value.leaves()[slot]) for step, value in sorted(family.members.items())}

    def _separate(self) -> None:
        """Takes out what is the same at every step, and parts what reads other things from before the loop."""
        waiting = list(self.families)
        while waiting:
            family = waiting.pop(0)
            if family not in self.families:
                continue
            kinds: list[tuple[Any, ...]] = []
            by_kind: dict[tuple[Any, ...], dict[int, Value]] = {}
            leaves = {step: [self._leaf(leaf) for leaf in value.leaves()] for step, value in family.members.items()}
            slots = range(len(family.first.leaves()))
            # A place where only values from before the loop stand.
            outer = [
                slot
                for slot in slots
                if all(isinstance(row[slot], Value) and row[slot] not in self.of for row in leaves.values())
                and not all(is_constant(row[slot]) for row in leaves.values())
            ]
            fixed = [
                slot
                for slot in slots
                if not any(isinstance(row[slot], Value) for row in leaves.values())
                and not vectorized.takes_number(family.first, slot)
            ]
            for step, row in leaves.items():
                kind = tuple(row[slot] for slot in (*outer, *fixed))
                if kind not in by_kind:
                    kinds.append(kind)
                by_kind.setdefault(kind, {})[step] = family.members[step]
            if len(kinds) > 1:
                if len(kinds) > min(MOST_VARIANTS, max(self.steps - 1, 3)):
                    raise UnlikeError(difference(kinds, family.first))
                self.families.remove(family)
                parted = [self._made(by_kind[kind]) for kind in kinds]
                self.families += parted
                for one in parted:
                    self._register(one)
                waiting += parted
                continue
            rows = list(leaves.values())
            if all(alike(one, other) for one, other in itertools.pairwise(rows)) and not any(
                leaf in self.of for leaf in rows[0] if isinstance(leaf, Value)
            ):
                self.families.remove(family)
                for value in family.members.values():
                    del self.of[value]
                    self.same[value] = family.first
                waiting += [other for other in self.families if other not in waiting]

    def _leave_outside(self, edges: int) -> None:
        ends = {*range(edges), *range(self.steps - edges, self.steps)}
        for family in list(self.families):
            if len(family.members) <= edges < self.steps - edges and ends.issuperset(family.members):
                self.families.remove(family)
                for value in family.members.values():
                    del self.of[value]

    def _raw_reads(self, family: Family) -> Iterator[Family]:
        for value in family.members.values():
            for operand in value.operands():
                if self._leaf(operand) in self.of:
                    yield self.of[self._leaf(operand)][0]

    def _operand(self, family: Family, slot: int) -> Any:
        """What one argument of a family is.

        Raises:
            UnlikeError: None of what this module's docstring lists.
        """
        across = self._across(family, slot)
        leaves = list(across.values())
        if not any(isinstance(leaf, Value) for leaf in leaves):
            if all(alike([leaf], leaves[:1]) for leaf in leaves):
                return leaves[0]
            return self._number(family, across)
        if not all(isinstance(leaf, Value) for leaf in leaves):
            raise UnlikeError(f"{family.first} takes a value at some steps and a number at others")
        if all(leaf is leaves[0] for leaf in leaves) and leaves[0] not in self.of:
            return leaves[0]
        if all(is_constant(leaf) for leaf in leaves):
            return self._number(family, {s: self.program.constants[leaf.target.name] for s, leaf in across.items()})
        return self._moving(family, across)

    def _number(self, family: Family, across: dict[int, Any]) -> Now:
        """A number, or a small tensor of numbers, that depends on the step."""
        examples = list(across.values())
        rows = [across.get(step) for step in range(family.low, family.high + 1)]
        dtype: torch.dtype | None
        if isinstance(examples[0], torch.Tensor):
            if examples[0].numel() > operators.MOST_NUMBERS:
                raise UnlikeError(f"{family.first} reads a tensor of {examples[0].numel()} numbers that changes")
            flat = [None if row is None else row.reshape(-1).tolist() for row in rows]
            tables = tuple(
                Table(tuple(None if row is None else row[at] for row in flat)) for at in range(examples[0].numel())
            )
            fake, shape, dtype = examples[0], tuple(examples[0].shape), examples[0].dtype
        else:
            tables, shape = (Table(tuple(rows)),), ()
            dtype = torch.int64 if all(type(x) is int for x in examples) else None
            fake = torch.empty((), dtype=dtype)
        return Now(self._numbers(family.low, family.high, tables, shape, dtype, fake))

    def _numbers(self, low: int, high: int, tables: tuple[Table, ...], shape: Any, dtype: Any, fake: Any) -> Family:
        key = (low, high, tables, shape, dtype)
        if key not in self._chosen:
            first = Value(operators.numbers, (tables, shape, dtype), {}, fake)
            self._chosen[key] = Family({}, operators.numbers, list(first.leaves()), first, low, high)
        return self._chosen[key]

    def _moving(self, family: Family, across: dict[int, Value]) -> Any:
        """A value that is another one at each step."""
        back = 0 if any(leaf in self.of and self.of[leaf][1] == step for step, leaf in across.items()) else 1
        begin: Value | None = None
        sources: dict[int, Family | None] = {}
        """Where it gets its value at a step; None where it keeps the one it has."""
        for step, leaf in across.items():
            source, at = self.of.get(leaf, (None, -1))
            if source is None or at < family.low:
                at = family.low - 1
                if begin is not None and begin is not leaf:
                    return self._in_turns(family, across)
                begin = leaf
            for passed in range(at, step - back + 1):
                if passed < family.low:
                    continue
                given = source if passed == at else None
                if sources.setdefault(passed, given) is not given:
                    return self._in_turns(family, across)
        given_by = list(dict.fromkeys(sources.values()))
        if len(given_by) == 1 and given_by[0] is not None:
            source = given_by[0]
            if back == 1:
                return Before(source, (begin,))
            if begin is None:
                return Now(source)
        if not any(given_by):
            raise UnlikeError(f"{family.first} reads {begin} at one step and something else at others")
        chosen = self._choice(family, sources, begin)
        return Before(chosen, (begin,)) if back else Now(chosen)

    def _in_turns(self, family: Family, across: dict[int, Value]) -> Any:
        """The members of several families, each always as many steps before, by the step."""
        groups: dict[Any, dict[int, Value]] = {}
        for step, leaf in across.items():
            source, at = self.of.get(leaf, (None, 0))
            groups.setdefault((leaf, 0) if source is None else (source, step - at), {})[step] = leaf
        operands: dict[Any, dict[int, Value]] = {}
        for (source, distance), members in sorted(groups.items(), key=lambda item: -item[0][1]):
            if not isinstance(source, Family):
                if not any(members.items() <= {**taken}.items() for taken in operands.values()):
                    operands[source] = members
                continue
            # What comes from before the loop in its first steps is what the state begins with.
            begin = tuple(
                read if (read := across.get(step)) is not None and read not in self.of else None
                for step in range(family.low, family.low + distance)
            )
            taken = {step: across[step] for step, leaf in enumerate(begin, family.low) if leaf is not None}
            operands[Before(source, begin) if distance else Now(source)] = members | taken
        if len(operands) > MOST_VARIANTS:
            raise UnlikeError(f"{family.first} reads {across[max(across)]} of a step that is not always as far back")
        return self._where(family.low, family.high, operands)

    def _where(self, low: int, high: int, operands: dict[Any, dict[int, Value]]) -> Any:
        """One operand or another by the step."""
        (rest, _), *others = operands.items()
        for operand, members in others:
            inside = tuple(
                next((given is members for given in operands.values() if step in given), None)
                for step in range(low, high + 1)
            )
            numbers = self._condition(inside, low, high)
            key = (low, high, inside, operand, rest)
            if key not in self._chosen:
                example = next(iter(members.values()))
                first = Value(aten.where.self, (None, None, None), {}, example.fake, example.origin)
                written = [Now(numbers), operand, rest]
                self._chosen[key] = Family({}, aten.where.self, written, first, low, high)
            rest = Now(self._chosen[key])
        return rest

    def _choice(self, family: Family, sources: dict[int, Family | None], begin: Value | None) -> Family:
        """What is one value or another by the step, or stays what it was."""
        for choice in self._choices:
            agree = all(choice.sources.get(step, source) is source for step, source in sources.items())
            if agree and choice.family.low == family.low and (choice.begin is begin or None in (choice.begin, begin)):
                choice.sources |= sources
                choice.begin = choice.begin or begin
                break
        else:
            choice = _Choice(Family({}, aten.where.self, low=family.low, high=family.high), dict(sources), begin)
            self._choices.append(choice)
        return choice.family

    def _write_choice(self, choice: _Choice) -> Iterator[Family]:
        """The operands of a choice, and the families that it needs."""
        low, high = choice.family.low, choice.family.high
        given_by = [source for source in dict.fromkeys(choice.sources.values()) if source is not None]
        held = sorted(step for step, source in choice.sources.items() if source is None)
        if not held:
            rest: Any = Now(given_by.pop())
        elif held == list(range(low, low + len(held))) and choice.begin is not None:
            rest = choice.begin  # it is kept before it is ever set
        else:
            rest = Before(choice.family, (choice.begin,))
        for number, source in enumerate(given_by, 1):
            inside = tuple(
                choice.sources[step] is source if step in choice.sources else None for step in range(low, high + 1)
            )
            chosen = choice.family if number == len(given_by) else Family({}, aten.where.self, low=low, high=high)
            chosen.operands = [Now(self._condition(inside, low, high)), Now(source), rest]
            chosen.first = Value(aten.where.self, (None, None, None), {}, source.first.fake, source.first.origin)
            rest = Now(chosen)
            yield chosen

    def _condition(self, inside: tuple[bool | None, ...], low: int, high: int) -> Family:
        """Whether it is one of some steps."""
        return self._numbers(low, high, (Table(inside),), (), torch.bool, torch.empty((), dtype=torch.bool))


@dataclass(eq=False, slots=True)
class _Choice:
    """What is one value or another by the step.

    Attributes:
        family: Of the choice.
        sources: The family that gives it at a step; None where it stays what it was.
        begin: What it is before it is given.
    """

    family: Family
    sources: dict[int, Family | None]
    begin: Value | None
