"""Rolls up the loops that a program holds written out: recurrent layers, ``Scan``, and what needs no loop at all.

The body of a loop (`exporters.families`) falls into parts that depend on each other in a circle: each becomes a
``Scan``, or a recurrent layer if it is just a cell. What is in no circle is computed for all steps at once. With as
many steps as were traced, the program that comes out is the one that went in; that other lengths give the same one,
`exporters.loops` holds.
"""

from __future__ import annotations

import graphlib
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils import _pytree

from exporters import loop_operators
from exporters.families import Before, Family, Now, Search
from exporters.loop_operators import Slot
from exporters.traces import NotRolledError, Program, Value, aten

CELLS = {
    aten.gru_cell.default: "gru",
    aten.lstm_cell.default: "lstm",
    aten.rnn_tanh_cell.default: "tanh",
    aten.rnn_relu_cell.default: "relu",
}
"""The cells of torch, whose arguments are (x, state, weights …)."""


def rolled_up(program: Program, steps: int) -> tuple[Program, list[str]]:
    """A program in which loops of so many steps are rolled up, and why other repetitions were not."""
    reasons: list[str] = []
    backwards, idle = False, 0
    while idle < 2:
        search = Search(program, steps, backwards)
        reasons += search.reasons
        backwards, idle = not backwards, idle + 1
        if search.found:
            program, idle = _Writer(search).written(), 0
    return program, list(dict.fromkeys(reasons))


class _Writer:
    """Writes a program anew with the families of a search rolled up."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.members = search.members()
        self.parts = _circles([family for family in search.found.values() if not search.is_read(family)])
        for part in [part for part in self.parts if part[0].first.target is operator.getitem and len(part) == 1]:
            source = part[0].operands[0].family  # one of several results stays with the loop that gives them
            if (circle := next(other for other in self.parts if source in other)) and len(circle) > 1:
                self.parts.remove(part)
                circle += part
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

        single = set(self._read_outside())
        for entry in order:
            if isinstance(entry, tuple):
                self._write_part(new, entry, rename)
            elif isinstance(entry, Family):
                base, dim, _ = entry.first.args
                self.series[entry] = new.call(loop_operators.series, rename(base), dim, self.search.backwards)
            elif entry in self.search.collections:
                seen[entry] = self._write_collection(new, entry)
            elif self._is_inside(entry):
                seen[entry] = self._write_member(new, entry) if entry in single else None
            else:
                seen[entry] = new.add(entry.target, rename(entry.args), rename(dict(entry.kwargs)), entry.fake)
        new.outputs = rename(old.outputs)
        return new

    def _asked(self) -> set[Family]:
        """The families of which more is read from outside of their part than the state after the last step."""
        asked = {family for family, _ in self.search.collections.values()}
        carried: set[Family] = set()
        for part in self.parts:
            for family in part:
                asked.update(set(family.reads()) - set(part))
                carried.update(o.family for o in family.operands if isinstance(o, Before) and o.family in part)
        read: dict[Family, set[int]] = {}
        for value in self._read_outside():
            if self._is_inside(value):
                family, step = self.members[value]
                read.setdefault(family, set()).add(step)
        last = {self.search.steps - 1}
        return asked | {family for family, steps in read.items() if steps != last or family not in carried}

    def _read_outside(self) -> Iterator[Value]:
        """The values that are read otherwise than as the members of families."""
        for value in self.search.order:
            if not self._is_inside(value) and value not in self.search.collections:
                yield from value.operands()
        for part in self.parts:
            for family in part:
                yield from (operand.begin for operand in family.operands if isinstance(operand, Before))
        yield from (value for value in self.search.program.outputs if isinstance(value, Value))

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
        if value.target is aten.add.Tensor:
            return new.call(aten.sum.dim_IntList, series, [0])
        if value.target is aten.stack.default:
            return new.call(loop_operators.stacked, series, dim)
        return new.call(loop_operators.joined, series, dim)

    def _write_member(self, new: Program, value: Value) -> Value:
        """A single member that is read outside of the loop."""
        family, step = self.members[value]
        if not isinstance(value.fake, torch.Tensor):
            raise NotRolledError(f"what {value} gives at one step is read outside of the loop")
        if family not in self.asked:
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
        """What depends on no step before is computed for all steps at once, if its operator can."""
        leaves, over = [], []
        for operand in family.operands:
            moves = isinstance(operand, Now | Before)
            over.append(moves)
            leaves.append(self._across(new, operand, rename) if moves else rename(operand))
        first = family.first
        args, kwargs = first.arguments(leaves)
        fake = _over_steps(first.fake, self.search.steps)
        if first.target is operator.getitem:  # of the several results of an operator
            self.series[family] = new.add(operator.getitem, args, {}, fake)
        elif loop_operators.has_all(first.target, over, first.args):
            rank = first.fake.dim() if isinstance(first.fake, torch.Tensor) else 0
            written = (first.target, tuple(over), rank, list(args), kwargs)
            self.series[family] = new.add(loop_operators.for_all, written, {}, fake)
        else:
            self._write_scan(new, (family,), rename)

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

    def _cell_call(
        self, new: Program, cell: Family, inside: set[Family], slot: Any, given: dict[Any, Any], rename: Any
    ) -> list[Any]:
        """A cell within a larger step; its input's share in the gates is computed before the loop, if that can be."""
        kind, count = CELLS[cell.first.target], 2 if cell.first.target is aten.lstm_cell.default else 1
        x, state, weights = cell.operands[0], cell.operands[1 : 1 + count], cell.operands[1 + count :]
        w_input, w_state, b_input, b_state = (*weights, None, None)[:4]
        carried = [slot(part) for part in state]
        if isinstance(x, Now | Before) and x.family not in inside:
            moving = [self._across(new, x, rename), rename(w_input), rename(b_input)]
            written: tuple[Any, ...] = (aten.linear.default, (True, False, False), 0, moving, {})
            given[cell] = Slot("given", len(given)), new.add(loop_operators.for_all, written)
            return [loop_operators.cell, [kind, given[cell][0], carried, None, None, slot(w_state), slot(b_state)], {}]
        inputs = [slot(x), carried, slot(w_input), slot(b_input)]
        return [loop_operators.cell, [kind, *inputs, slot(w_state), slot(b_state)], {}]

    def _write_scan(self, new: Program, part: tuple[Family, ...], rename: Any) -> None:
        """A part as the body of a ``Scan``."""
        inside = set(part)
        body = _in_order(part, inside)
        state: dict[tuple[Family, Value], Slot] = {}
        given: dict[Any, tuple[Slot, Any]] = {}
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
            if family.first.target in CELLS:
                calls.append(self._cell_call(new, family, inside, slot, given, rename))
            else:
                args, kwargs = family.first.arguments([slot(operand) for operand in family.operands])
                calls.append([family.first.target, list(args), kwargs])
        kept = [family for family in body if family in self.asked]
        if not all(isinstance(family.first.fake, torch.Tensor) for family in kept):
            raise NotRolledError(f"{body[-1].first} gives several tensors, and has no form for all steps at once")
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
