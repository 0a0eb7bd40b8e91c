"""Finds the loops in a program in which they are written out, and rolls them up.

Of a loop ``for t in range(T)`` that was traced with T = N steps, the program holds N copies of its body. A *family* is
one value of the body at each of its steps: N computations by one operator from the same constants, whose operands are,
at every step alike,

- one and the same value (a weight, what stood before the loop),
- the member of another family at this step: of ``x[:, t]`` or of what the body has just computed,
- the member of a family at the step before (the state), and at the first step some value from before the loop.

Families are sought from above: from what collects a value of every step (``torch.stack(outputs)``), and from what
crosses over from one step to the next. Which step a value belongs to is the last element of the input that it depends
on. What a family is has been checked for each of the N steps, so a program that is rolled up is, at N, the one that was
traced. That other lengths give the same one, `exporters.loops` holds.

A body falls into parts that depend on each other in a circle: each becomes a ``Scan``, or a recurrent layer if it is
just a cell. What is in no circle needs no loop and is computed for all steps at once.
"""

from __future__ import annotations

import graphlib
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree

from exporters import loop_operators
from exporters.loop_operators import Slot
from exporters.traces import NotRolledError, Program, Value, aten, needed, size_of

CELLS = {
    aten.gru_cell.default: "gru",
    aten.lstm_cell.default: "lstm",
    aten.rnn_tanh_cell.default: "tanh",
    aten.rnn_relu_cell.default: "relu",
}
"""The cells of torch, whose arguments are (x, state, weights …)."""


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


def rolled_up(program: Program, steps: int) -> tuple[Program, list[str]]:
    """A program in which loops of so many steps are rolled up, and why other repetitions were not."""
    reasons: list[str] = []
    backwards, idle = False, 0
    while idle < 2:
        search = _Search(program, steps, backwards)
        reasons += search.reasons
        backwards, idle = not backwards, idle + 1
        if search.found:
            smaller = _Writer(search).written()
            if len(needed(smaller)) < len(search.order):
                program, idle = smaller, 0
    return program, list(dict.fromkeys(reasons))


class _Search:
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
        if value.target not in (aten.stack.default, aten.cat.default):
            return False
        items = value.args[0]
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

    def _crossing(self) -> None:
        """Seeks families among what carries something over into the last step, first come first matched."""
        last = self.steps - 1
        by_kind: dict[tuple[Any, ...], list[list[Value]]] = {}
        for value in self.order:
            level = self.levels[value]
            if level >= 0 and value not in self._read:
                kinds = by_kind.setdefault(_kind(value), [[] for _ in range(self.steps)])
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
                reasons = []
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
            raise _UnlikeError(f"{_name(members[0])} is carried over too many steps")
        family = self.found.get(members[:2])
        if family is None:
            family = self.found[members[:2]] = Family([None] * self.steps)
        both = [pair for pair in zip(family.members, members, strict=False) if pair[0] is not None]
        if any(one is not other for one, other in both):
            raise _UnlikeError(
                f"{_name(members[len(both) - 1])} is computed in two ways, alike in the first steps only"
            )
        if len(both) == len(members):
            return family
        family.members[: len(members)] = members
        if members[0] in self._read:
            if not all(self._is_element(value, members[0], step) for step, value in enumerate(members)):
                raise _UnlikeError("the loop reads its input in another order than one element a step")
            return family
        operands = self._operands(members)
        if family.operands and operands != family.operands:
            raise _UnlikeError(f"{_name(members[-1])} of the last steps is computed from other values")
        family.operands = operands
        return family

    def _is_element(self, value: Value, first: Value, step: int) -> bool:
        return value in self._read and value.args[:2] == first.args[:2] and self.levels[value] == step

    def _operands(self, members: tuple[Value, ...]) -> list[Any]:
        first = members[0]
        if len({_kind(member) for member in members}) > 1:
            raise _UnlikeError(_difference(members))
        if not isinstance(first.fake, torch.Tensor | tuple | list):
            raise _UnlikeError(f"{_name(first)} gives a number, not a tensor, at each step")
        return [self._operand(across) for across in zip(*(member.leaves() for member in members), strict=True)]

    def _operand(self, across: tuple[Any, ...]) -> Any:
        """What one argument is at each step."""
        if not isinstance(across[0], Value) or all(value is across[0] for value in across):
            return across[0]
        levels = [self.levels[value] for value in across]
        if levels == list(range(len(across))):
            return Now(self._family(across))
        if levels[1:] == list(range(len(across) - 1)):
            if not _same_kind(*across[:2]):
                raise _UnlikeError(
                    f"{_name(across[1])} is carried from step to step as {_shape(across[1])}, and begins as "
                    f"{_shape(across[0])}: expand what it begins with"
                )
            # From the last step nothing is carried on.
            return Before(self._family(across[1:]), across[0])
        if all(value in self._read for value in across):
            raise _UnlikeError("the loop reads its input in another order than one element a step")
        raise _UnlikeError(f"{_name(across[-1])} reaches a step that is not the one before")

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
        args, kwargs = _pytree.tree_unflatten(leaves, _structure(first))
        value = self.program.find(first.target, args, kwargs)
        return value if value in self.levels else None


class _Writer:
    """Writes a program anew with the families of a search rolled up."""

    def __init__(self, search: _Search) -> None:
        self.search = search
        self.members = search.members()
        self.parts = _circles([family for family in search.found.values() if not search.is_read(family)])
        self.part_of = {family: part for part in self.parts for family in part}
        self.asked = self._asked()
        self.series: dict[Family, Value] = {}
        self.final: dict[Family, Value] = {}

    def written(self) -> Program:
        """The program with loops instead of their steps."""
        needs: dict[Any, list[Any]] = {}
        for value in self.search.order:
            needs[value] = [self._source(operand) for operand in self._read_by(value)]
        for part in map(tuple, self.parts):
            needs[part] = [
                source for family in part for operand in family.operands for source in self._sources_of(operand, part)
            ]
        for family in self.search.found.values():
            if self.search.is_read(family):
                needs[family] = [self._source(family.first.args[0])]
        try:
            order = list(graphlib.TopologicalSorter(needs).static_order())
        except graphlib.CycleError as error:
            raise NotRolledError("a step needs what the loop gives at its end") from error
        old, new = self.search.program, Program(self.search.program.structure, self.search.program.constants)
        seen: dict[Value, Any] = {}

        def rename(tree: Any) -> Any:
            return _pytree.tree_map(lambda leaf: seen[leaf] if isinstance(leaf, Value) else leaf, tree)

        for entry in order:
            if isinstance(entry, tuple):
                self._write_part(new, entry, rename)
            elif isinstance(entry, Family):
                base, dim, _ = entry.first.args
                self.series[entry] = new.call(loop_operators.series, rename(base), dim, self.search.backwards)
            elif entry in self.search.collections:
                seen[entry] = self._write_collection(new, entry)
            elif self._is_inside(entry):
                seen[entry] = self._write_member(new, entry) if entry in self.single else None
            else:
                seen[entry] = new.add(entry.target, rename(entry.args), rename(dict(entry.kwargs)), entry.fake)
        new.outputs = rename(old.outputs)
        return new

    def _asked(self) -> set[Family]:
        """The families of which more is read from outside of their part than the state after the last step."""
        asked = {family for family, _ in self.search.collections.values()}
        for part in self.parts:
            for family in part:
                asked.update(set(family.reads()) - set(part))
        carried = {
            operand.family for part in self.parts for f in part for operand in f.operands if type(operand) is Before
        }
        self.single: set[Value] = set()
        readers = [value for value in self.search.order if value not in self.search.collections]
        answers = [value for value in self.search.program.outputs if isinstance(value, Value)]
        begins = [
            operand.begin for part in self.parts for f in part for operand in f.operands if type(operand) is Before
        ]
        for value in (*(o for r in readers if not self._is_inside(r) for o in r.operands()), *answers, *begins):
            if self._is_inside(value):
                family, step = self.members[value]
                self.single.add(value)
                if step < self.search.steps - 1 or family not in carried:
                    asked.add(family)
        return asked

    def _is_inside(self, value: Value) -> bool:
        return value in self.members and not self.search.is_read(self.members[value][0])

    def _read_by(self, value: Value) -> Iterable[Any]:
        """What a value is written from."""
        if value in self.search.collections:
            return (self.search.collections[value][0],)
        if self._is_inside(value):
            return (self.members[value][0],)
        return value.operands()

    def _source(self, entry: Any) -> Any:
        """What has to be written before: a value, a part of a body, or the elements of a value as a family."""
        if isinstance(entry, Family):
            return entry if self.search.is_read(entry) else tuple(self.part_of[entry])
        return entry

    def _sources_of(self, operand: Any, part: Sequence[Family]) -> list[Any]:
        found = []
        if isinstance(operand, Now | Before) and operand.family not in part:
            found.append(self._source(operand.family))
        if isinstance(operand, Before):
            found.append(operand.begin)
        return found + ([operand] if isinstance(operand, Value) else [])

    def _write_collection(self, new: Program, value: Value) -> Value:
        family, turned = self.search.collections[value]
        dim = value.args[1] if len(value.args) > 1 else 0
        series = new.call(aten.flip.default, self.series[family], [0]) if turned else self.series[family]
        if value.target is aten.stack.default:
            return new.call(loop_operators.stacked, series, dim)
        return new.call(loop_operators.joined, series, dim)

    def _write_member(self, new: Program, value: Value) -> Value:
        """A single member that is read outside of the loop."""
        family, step = self.members[value]
        if not isinstance(value.fake, torch.Tensor):
            raise NotRolledError(f"what {_name(value)} gives at one step is read outside of the loop")
        if step == self.search.steps - 1 and family in self.final:
            return self.final[family]
        return new.call(aten.select.int, self.series[family], 0, step)

    def _write_part(self, new: Program, part: tuple[Family, ...], rename: Any) -> None:
        if len(part) == 1 and part[0] not in part[0].reads():
            self._write_free(new, part[0], rename)
        elif (cell := next((family for family in part if family.first.target in CELLS), None)) and self._is_layer(
            cell, part
        ):
            self._write_layer(new, cell, rename)
        else:
            self._write_scan(new, part, rename)

    def _across(self, new: Program, operand: Any, rename: Any) -> Any:
        """An operand from outside of a part at all steps at once."""
        series = self.series[operand.family]
        if isinstance(operand, Now):
            return series
        return new.call(loop_operators.delayed, series, rename(operand.begin))

    def _write_free(self, new: Program, family: Family, rename: Any) -> None:
        """What depends on no step before it is computed for all steps at once."""
        leaves, over = [], []
        for operand in family.operands:
            moves = isinstance(operand, Now | Before)
            over.append(moves)
            leaves.append(self._across(new, operand, rename) if moves else rename(operand))
        first = family.first
        args, kwargs = _pytree.tree_unflatten(leaves, _structure(first))
        if first.target is operator.getitem:  # of the several results of an operator
            self.series[family] = new.add(operator.getitem, args, {}, _over_steps(first.fake, self.search.steps))
            return
        self.series[family] = new.add(
            loop_operators.for_all,
            (first.target, tuple(over), list(args), kwargs),
            {},
            _over_steps(first.fake, self.search.steps),
        )

    def _is_layer(self, cell: Family, part: tuple[Family, ...]) -> bool:
        """Whether a part is one cell that is fed with its own state and nothing else."""
        state = 2 if cell.first.target is aten.lstm_cell.default else 1
        x, carried, weights = cell.operands[0], cell.operands[1 : 1 + state], cell.operands[1 + state :]
        if not isinstance(x, Now | Before) or x.family in part or any(isinstance(w, Now | Before) for w in weights):
            return False
        if state == 1:
            return len(part) == 1 and isinstance(carried[0], Before)
        results = {operand.family for operand in carried if isinstance(operand, Before)}
        picks = [operand.family.first.args[1] for operand in carried if isinstance(operand, Before)]
        return set(part) == {cell, *results} and picks == [0, 1] and carried[1].family not in self.asked

    def _write_layer(self, new: Program, cell: Family, rename: Any) -> None:
        count = 2 if cell.first.target is aten.lstm_cell.default else 1
        begin = [rename(operand.begin) for operand in cell.operands[1 : 1 + count]]
        weights = [rename(weight) for weight in cell.operands[1 + count :] if weight is not None]
        kind = CELLS[cell.first.target]
        layer = new.add(loop_operators.layer, (kind, self._across(new, cell.operands[0], rename), begin, weights))
        hidden = cell if count == 1 else cell.operands[1].family
        self.series[hidden] = new.add(
            operator.getitem, (layer, 0), {}, _over_steps(hidden.first.fake, self.search.steps)
        )
        for number, operand in enumerate(cell.operands[1 : 1 + count]):
            self.final[operand.family] = new.add(operator.getitem, (layer, number + 1), {}, operand.begin.fake)

    def _write_scan(self, new: Program, part: tuple[Family, ...], rename: Any) -> None:
        """A part as the body of a ``Scan``."""
        inside = set(part)
        body = _in_order(part, inside)
        state: dict[tuple[Family, Value], Slot] = {}
        given: dict[tuple[Any, ...], tuple[Slot, Any]] = {}
        fixed: dict[Value, Slot] = {}
        number = {family: Slot("value", index) for index, family in enumerate(body)}

        def slot(operand: Any) -> Any:
            if isinstance(operand, Now) and operand.family in inside:
                return number[operand.family]
            if isinstance(operand, Before) and operand.family in inside:
                return state.setdefault((operand.family, operand.begin), Slot("state", len(state)))
            if isinstance(operand, Now | Before):
                key = (operand.family, operand.begin if isinstance(operand, Before) else None)
                if key not in given:
                    given[key] = Slot("given", len(given)), self._across(new, operand, rename)
                return given[key][0]
            if isinstance(operand, Value):
                return fixed.setdefault(operand, Slot("fixed", len(fixed)))
            return operand

        calls = []
        for family in body:
            args, kwargs = _pytree.tree_unflatten(
                [slot(operand) for operand in family.operands], _structure(family.first)
            )
            calls.append([family.first.target, list(args), kwargs])
        kept = [family for family in body if family in self.asked]
        scan = new.add(
            loop_operators.scan,
            (
                calls,
                [number[family] for family, _ in state],
                [number[family] for family in kept],
                [series for _, series in given.values()],
                [rename(begin) for _, begin in state],
                [rename(value) for value in fixed],
            ),
        )
        for index, (family, begin) in enumerate(state):
            self.final[family] = new.add(operator.getitem, (scan, index), {}, begin.fake)
        for index, family in enumerate(kept, len(state)):
            fake = _over_steps(family.first.fake, self.search.steps)
            self.series[family] = new.add(operator.getitem, (scan, index), {}, fake)


def _structure(value: Value) -> Any:
    return _pytree.tree_structure((value.args, dict(value.kwargs)))


def _kind(value: Value) -> tuple[Any, ...]:
    """The operator, how its arguments are put together, and the constants among them."""
    leaves, structure = _pytree.tree_flatten((value.args, dict(value.kwargs)))
    return (
        value.target,
        str(structure),
        tuple("" if isinstance(leaf, Value) else f"{type(leaf).__name__} {leaf}" for leaf in leaves),
    )


def _difference(members: Sequence[Value]) -> str:
    """How members that are not of one kind differ."""
    if len({member.target for member in members}) > 1:
        step = next(step for step, member in enumerate(members) if member.target is not members[-1].target)
        return f"step {step} computes {_name(members[step])} where other steps compute {_name(members[-1])}"
    for across in zip(*(member.leaves() for member in members), strict=False):
        constants = [leaf for leaf in across if not isinstance(leaf, Value)]
        if len(set(map(str, constants))) > 1:
            return f"a number in {_name(members[0])} differs from step to step ({', '.join(map(str, constants[:3]))} …)"
    return f"{_name(members[0])} takes other arguments at some steps"


def _name(value: Any) -> str:
    return str(getattr(value.target, "_opname", None) or getattr(value.target, "__name__", value.target))


def _shape(value: Value) -> str:
    return str(list(value.fake.shape)) if isinstance(value.fake, torch.Tensor) else "several tensors"


def _same_kind(one: Value, other: Value) -> bool:
    if not isinstance(one.fake, torch.Tensor) or not isinstance(other.fake, torch.Tensor):
        return False
    return str(tuple(one.fake.shape)) == str(tuple(other.fake.shape)) and one.fake.dtype == other.fake.dtype


def _over_steps(fake: Any, steps: int) -> Any:
    return fake.new_empty((steps, *fake.shape)) if isinstance(fake, torch.Tensor) else None


def _in_order(part: Sequence[Family], inside: set[Family]) -> list[Family]:
    """Families in an order in which a step can compute them."""
    needs = {
        family: [operand.family for operand in family.operands if isinstance(operand, Now) and operand.family in inside]
        for family in part
    }
    return list(graphlib.TopologicalSorter(needs).static_order())


def _circles(families: Sequence[Family]) -> list[list[Family]]:
    """Groups of families that depend on each other in a circle, through any number of steps (Tarjan 1972)."""
    index: dict[Family, int] = {}
    low: dict[Family, int] = {}
    stack: list[Family] = []
    groups: list[list[Family]] = []
    known = set(families)

    def visit(family: Family) -> None:
        index[family] = low[family] = len(index)
        stack.append(family)
        for other in family.reads():
            if other not in known:
                continue
            if other not in index:
                visit(other)
                low[family] = min(low[family], low[other])
            elif other in stack:
                low[family] = min(low[family], index[other])
        if low[family] == index[family]:
            at = stack.index(family)
            groups.append(stack[at:])
            del stack[at:]

    for family in families:
        if family not in index:
            visit(family)
    return groups
