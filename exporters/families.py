"""Finds the loops in a program in which they are written out: what is the same at each of their steps.

Of a loop ``for t in range(T)`` that was traced with T = N steps, the program holds N copies of its body. A *family* is
one value of the body at each of its steps: N computations by one operator from the same constants, whose operands are,
at every step alike,

- one and the same value (a weight, what stood before the loop),
- the member of another family at this step: of ``x[:, t]`` or of what the body has just computed,
- the member of a family at the step before (the state), and at the first step some value from before the loop.

Families are sought from above: from what collects a value of every step (``torch.stack(outputs)``), and from what
crosses over from one step to the next. Which step a value belongs to is the last element of the input that it depends
on. What a family is has been checked for each of the N steps; only what nothing needs may be missing at the last ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from exporters.traces import NotRolledError, Program, Value, aten, needed, same_kind, size_of


@dataclass(eq=False, repr=False, slots=True)
class Family:
    """One value of a loop's body at each step.

    Attributes:
        members: By step; None at the last steps where nothing needs them.
        operands: What its operator reads, in the order of its arguments: constants, values, `Now` and `Before`.
    """

    members: list[Value | None]
    operands: list[Any] = field(default_factory=list)

    @property
    def first(self) -> Value:
        """Its member at the first step, whose arguments show how the operands are put together."""
        assert self.members[0] is not None  # noqa: S101 - narrows the type
        return self.members[0]

    def reads(self) -> Iterable[Family]:
        """The families that it depends on."""
        return (operand.family for operand in self.operands if isinstance(operand, Now | Before))


@dataclass(frozen=True, slots=True)
class Now:
    """The member of a family at the same step."""

    family: Family


@dataclass(frozen=True, slots=True)
class Before:
    """The member of a family at the step before; ``begin`` at the first."""

    family: Family
    begin: Value


class _UnlikeError(NotRolledError):
    """Steps are not alike."""


class Search:
    """The families of one program whose steps go through the input from its beginning, or ``backwards``."""

    def __init__(self, program: Program, steps: int, backwards: bool) -> None:
        self.program, self.steps, self.backwards = program, steps, backwards
        self.found: dict[tuple[Value, ...], Family] = {}
        self.collections: dict[Value, tuple[Family, bool]] = {}
        """What collects a family, and whether from its last step to its first."""
        self.reasons: list[str] = []
        self.order = needed(program)
        self.levels: dict[Value, int] = {}
        """The last step that a value depends on; -1 if none."""
        elements = self._elements()
        for value in self.order:
            self.levels[value] = max((self.levels[operand] for operand in value.operands()), default=-1)
            if self.levels[value] >= 0:
                self._read.discard(value)  # an element of something within the loop
            elif value in elements:
                self.levels[value] = elements[value]
            if self._collects(value):
                self.levels[value] = -1
        self._crossing()
        self._complete()

    def members(self) -> dict[Value, tuple[Family, int]]:
        """The family and the step of each value that has one."""
        return {
            member: (family, step)
            for family in self.found.values()
            for step, member in enumerate(family.members)
            if member is not None
        }

    def is_read(self, family: Family) -> bool:
        """Whether it is nothing but the elements of a value."""
        return family.first in self._read

    def _elements(self) -> dict[Value, int]:
        """The step of each element of a value that is as long as the loop and read as a whole."""
        reads: dict[tuple[Value, int], dict[int, Value]] = {}
        for value in self.order:
            if value.target is aten.select.int and size_of(value.args[0], value.args[1]) == self.steps:
                reads.setdefault((value.args[0], value.args[1]), {})[value.args[2]] = value
        whole = [by_index for by_index in reads.values() if set(by_index) == set(range(self.steps))]
        self._read = {value for by_index in whole for value in by_index.values()}
        turn = self.steps - 1
        return {value: turn - at if self.backwards else at for part in whole for at, value in part.items()}

    def _collects(self, value: Value) -> bool:
        """Whether a value puts together a family; if so, it is noted as one of the collections."""
        items = value.args[0] if value.target in (aten.stack.default, aten.cat.default) else self._summands(value)
        if len(items) != self.steps or not all(isinstance(item, Value) for item in items):
            return False
        levels = [self.levels[item] for item in items]
        forwards = levels == sorted(levels)
        if sorted(levels) != list(range(self.steps)) or not (forwards or levels == sorted(levels, reverse=True)):
            return False
        family = self._try(items if forwards else items[::-1])
        if family is None:
            return False
        self.collections[value] = family, not forwards
        return True

    def _summands(self, value: Value) -> list[Any]:
        """What ``sum(outputs)`` adds, one after the other."""
        items: list[Any] = []
        while (
            self.levels[value] == self.steps - 1 - len(items) and value.target is aten.add.Tensor and not value.kwargs
        ):
            value, last = value.args
            items.append(last)
            if not isinstance(value, Value) or not isinstance(last, Value):
                return []
        return [value, *reversed(items)]

    def _crossing(self) -> None:
        """Seeks families among what carries something over into the last step, first come first matched."""
        last = self.steps - 1
        by_kind: dict[tuple[Any, ...], list[list[Value]]] = {}
        for value in self.order:
            level = self.levels[value]
            if level >= 0 and value not in self._read:
                kinds = by_kind.setdefault(value.kind(), [[] for _ in range(self.steps)])
                kinds[level].append(value)
        for kind in by_kind.values():
            crossing = [
                [value for value in values if level == 0 or self._crosses(value, level)]
                for level, values in enumerate(kind)
            ]
            for number, _ in enumerate(crossing[last]):
                middle = [values[number] for values in crossing[1:] if number < len(values)]
                known = self.members()
                if len(middle) < last or middle[-1] in known:
                    continue
                candidates = sorted(crossing[0], key=lambda value: crossing[0].index(value) != number)
                reasons: list[str] = []
                for candidate in candidates:
                    before = len(self.reasons)
                    if self._try([candidate, *middle]) is not None:
                        reasons = []
                        break
                    reasons += self.reasons[before:]
                    del self.reasons[before:]
                self.reasons += reasons[:1]

    def _crosses(self, value: Value, level: int) -> bool:
        return any(self.levels[operand] == level - 1 and operand not in self._read for operand in value.operands())

    def _try(self, members: Sequence[Value]) -> Family | None:
        """The family of these members with all that it depends on, or None, and why is noted."""
        before = {key: (list(family.members), list(family.operands)) for key, family in self.found.items()}
        try:
            family = self._family(tuple(members))
            self._complete()
        except _UnlikeError as error:
            self.reasons.append(str(error))
            for key in self.found.keys() - before.keys():
                del self.found[key]
            for key, (kept, operands) in before.items():
                self.found[key].members, self.found[key].operands = kept, operands
            return None
        return family

    def _family(self, members: tuple[Value, ...]) -> Family:
        """The family of these members of the first steps, at least two; a state is one step behind what reads it."""
        if len(members) < 2:
            raise _UnlikeError(f"{members[0]} is carried over too many steps")
        family = self.found.get(members[:2])
        if family is None:
            family = self.found[members[:2]] = Family([None] * self.steps)
        both = [pair for pair in zip(family.members, members, strict=False) if pair[0] is not None]
        if any(one is not other for one, other in both):
            raise _UnlikeError(f"{members[len(both) - 1]} is computed in two ways, alike in the first steps only")
        if len(both) == len(members):
            return family
        family.members[: len(members)] = members
        if members[0] in self._read:
            if not all(self._is_element(value, members[0], step) for step, value in enumerate(members)):
                raise _UnlikeError("the loop reads its input in another order than one element a step")
            return family
        operands = self._operands(members)
        if family.operands and operands != family.operands:
            raise _UnlikeError(f"{members[-1]} of the last steps is computed from other values")
        family.operands = operands
        return family

    def _is_element(self, value: Value, first: Value, step: int) -> bool:
        return value in self._read and value.args[:2] == first.args[:2] and self.levels[value] == step

    def _operands(self, members: tuple[Value, ...]) -> list[Any]:
        first = members[0]
        if len({member.kind() for member in members}) > 1:
            raise _UnlikeError(_difference(members))
        if not isinstance(first.fake, torch.Tensor | tuple | list):
            raise _UnlikeError(f"{first} gives a number, not a tensor, at each step")
        return [self._operand(across) for across in zip(*(member.leaves() for member in members), strict=True)]

    def _operand(self, across: tuple[Any, ...]) -> Any:
        """What one argument is at each step."""
        if not isinstance(across[0], Value) or all(value is across[0] for value in across):
            return across[0]
        levels = [self.levels[value] for value in across]
        if levels == list(range(len(across))):
            return Now(self._family(across))
        if levels[1:] == list(range(len(across) - 1)):
            if not same_kind(*across[:2]):
                raise _UnlikeError(
                    f"{across[1]} is carried from step to step as {_shape(across[1])}, and begins as "
                    f"{_shape(across[0])}: expand what it begins with"
                )
            # From the last step nothing is carried on.
            return Before(self._family(across[1:]), across[0])
        if max(levels) < 0:
            step = next(step for step, value in enumerate(across) if value is not across[-1])
            raise _UnlikeError(f"step {step} reads {across[step]} where the last one reads {across[-1]}")
        if all(value in self._read for value in across):
            raise _UnlikeError("the loop reads its input in another order than one element a step")
        raise _UnlikeError(f"{across[-1]} reaches a step that is not the one before")

    def _complete(self) -> None:
        """Finds members that came in through the state, which ends a step before; what nothing needs is not there."""
        changed = True
        while changed:
            changed = False
            for family in self.found.values():
                if None in family.members and (found := self._next(family)) is not None:
                    family.members[family.members.index(None)], changed = found, True

    def _next(self, family: Family) -> Value | None:
        """The member of the first step whose member is not known, if there is one."""
        step, first = family.members.index(None), family.first
        leaves = [
            operand.family.members[step]
            if isinstance(operand, Now)
            else operand.family.members[step - 1]
            if isinstance(operand, Before)
            else operand
            for operand in family.operands
        ]
        if self.is_read(family):
            leaves = [*first.args[:2], self.steps - 1 - step if self.backwards else step]
        elif any(leaf is None and operand is not None for leaf, operand in zip(leaves, family.operands, strict=True)):
            return None
        args, kwargs = first.arguments(leaves)
        value = self.program.find(first.target, args, kwargs)
        return value if value in self.levels else None


def _difference(members: Sequence[Value]) -> str:
    """How members that are not of one kind differ."""
    if len({member.target for member in members}) > 1:
        step = next(step for step, member in enumerate(members) if member.target is not members[-1].target)
        return f"step {step} computes {members[step]} where other steps compute {members[-1]}"
    for across in zip(*(member.leaves() for member in members), strict=False):
        constants = [leaf for leaf in across if not isinstance(leaf, Value)]
        if len(set(map(str, constants))) > 1:
            return f"a number in {members[0]} differs from step to step ({', '.join(map(str, constants[:3]))} …)"
    return f"{members[0]} takes other arguments at some steps"


def _shape(value: Value) -> str:
    return str(list(value.fake.shape)) if isinstance(value.fake, torch.Tensor) else "several tensors"
