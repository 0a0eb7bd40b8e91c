"""Rolls up a loop that a program holds written out: recurrent layers, ``Scan``, and what needs no loop at all.

The body of a loop (`exporters.loops.families`) falls into parts that depend on each other in a circle: each becomes a
``Scan``, or a recurrent layer if it is just a cell. What is in no circle is computed for all steps at once. With as
many steps as were traced, the program that comes out is the one that went in; that other lengths give the same one,
`exporters.loops` holds.
"""

from __future__ import annotations

import graphlib
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from exporters.loops import operators, vectorized
from exporters.loops.families import Before, Family, Loop, Now
from exporters.loops.operators import Slot
from exporters.loops.program import Count, NotRolledError, Program, Value, aten
from exporters.loops.record import Origin, Run
from exporters.loops.series import with_reads_inside, with_turns_inside

CELLS = {
    aten.gru_cell.default: "gru",
    aten.lstm_cell.default: "lstm",
    aten.rnn_tanh_cell.default: "tanh",
    aten.rnn_relu_cell.default: "relu",
}
"""The cells of torch, whose arguments are (x, state, weights …)."""

LAYERS = {torch.ops.edgedl.gru_layer.default: "gru", torch.ops.edgedl.lstm_layer.default: "lstm"}
"""The layers of torch as they are traced (`exporters.recurrent`), called for one step at a time."""


def rolled_up(program: Program, run: Run, edges: int) -> Program:
    """A program in which one run of a loop is rolled up.

    Args:
        program: The loops within that one are rolled up in it.
        run: The loop.
        edges: See `exporters.loops.families.Loop`.

    Raises:
        NotRolledError: It cannot be.
    """
    try:
        return _Writer(Loop(with_turns_inside(with_reads_inside(program, run), run), run, edges)).written()
    except NotRolledError as error:
        raise NotRolledError(f"the loop at {run.where}: {error}") from error


class _Writer:
    """Writes a program anew with one loop rolled up."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.reads = [family for part in loop.parts for family in part if self._is_read(family)]
        self.parts = [tuple(part) for part in loop.parts]
        for part in [part for part in self.parts if len(part) == 1 and part[0].target is operator.getitem]:
            source = part[0].operands[0].family  # one of several results stays with the loop that gives them
            circle = next(other for other in self.parts if source in other)
            if len(circle) > 1:
                self.parts.remove(part)
                self.parts[self.parts.index(circle)] = (*circle, *part)
                part[0].low, part[0].high = circle[0].low, circle[0].high  # also where no step asks for it
        self.asked: set[Family] = set()
        self._take_in()
        self.part_of = {family: part for part in self.parts for family in part}
        self.new = Program(loop.program.structure, loop.program.constants)
        self.seen: dict[Value, Any] = {}
        self.series: dict[Family, Value] = {}
        self.final: dict[Family, Value] = {}
        self.listed: set[Value] = set()
        at = next(at for value in loop.order for at, (run, _) in enumerate(value.path) if run is loop.run)
        example = next(value for value in loop.order if any(run is loop.run for run, _ in value.path))
        self.path, self.number = example.path[:at], 0

    def written(self) -> Program:
        """The program with a loop instead of its steps."""
        order, self.singles = self._order()
        self.asked = self._asked(self.singles)
        for entry in order:
            if isinstance(entry, tuple):
                self._write_part(entry)
            elif entry in self.loop.of:
                self.seen[entry] = self._write_member(entry)
            else:
                args, kwargs = entry.arguments([self._renamed(leaf) for leaf in entry.leaves()])
                self.seen[entry] = self.new.add(entry.target, args, kwargs, entry.fake, self._outer(entry.origin))
        self.new.outputs = [self._renamed(leaf) for leaf in self.loop.program.outputs]
        return self.new

    def _take_in(self) -> None:
        """Puts what cannot be computed for all steps at once into the one loop that reads it, if there is one."""
        changed = True
        while changed:
            changed = False
            for part in self.parts:
                readers = [other for other in self.parts if other is not part and self._reads(other, part)]
                if (
                    len(readers) == 1
                    and self._needs_steps(part)
                    and self._is_scan(readers[0])
                    and (part[0].low, part[0].high) == (readers[0][0].low, readers[0][0].high)
                ):
                    self.parts.remove(part)
                    self.parts[self.parts.index(readers[0])] = (*part, *readers[0])
                    changed = True
                    break

    def _reads(self, part: tuple[Family, ...], other: tuple[Family, ...]) -> bool:
        return any(read in other for family in part for read in family.reads())

    def _needs_steps(self, part: tuple[Family, ...]) -> bool:
        """Whether it is computed step by step although it is in no circle."""
        (family, *others) = part
        if others or family in family.reads() or family.target in (operators.numbers, operator.getitem):
            return False
        over = [isinstance(operand, Now | Before) for operand in family.operands]
        return not self._is_read(family) and not vectorized.has_all(family.first, family.target, over)

    def _is_scan(self, part: tuple[Family, ...]) -> bool:
        circle = len(part) > 1 or part[0] in part[0].reads()
        return circle and not self._is_sum(part[0]) and not any(self._is_layer(family, part) for family in part)

    def _outer(self, origin: Origin) -> Origin:
        """The origin of what has left the loop."""
        path = origin.path
        at = next((at for at, (run, _) in enumerate(path) if run is self.loop.run), None)
        return origin if at is None else Origin(path[:at], origin.point, origin.where)

    def _leaf(self, leaf: Any) -> Any:
        return self.loop.same.get(leaf, leaf) if isinstance(leaf, Value) else leaf

    def _renamed(self, leaf: Any) -> Any:
        return self.seen[self._leaf(leaf)] if isinstance(leaf, Value) else leaf

    def _order(self) -> tuple[list[Any], set[Value]]:
        """What has to be written, in order, and the members that are read one by one."""
        needs: dict[Any, list[Any]] = {}
        single: set[Value] = set()
        waiting: list[Any] = [self._leaf(value) for value in self.loop.program.outputs if isinstance(value, Value)]
        single.update(value for value in waiting if value in self.loop.of)
        while waiting:
            entry = waiting.pop()
            if entry in needs:
                continue
            if isinstance(entry, tuple):
                values = [value for family in entry for value in self._values(family)]
                parts = [self.part_of[read] for family in entry for read in family.reads()]
                single.update(value for value in values if value in self.loop.of)
                needs[entry] = [*values, *(part for part in parts if part is not entry)]
            elif entry in self.loop.of and not self._is_read(self.loop.of[entry][0]):
                needs[entry] = [self.part_of[self.loop.of[entry][0]]]
            else:
                needs[entry] = [self._leaf(operand) for operand in entry.operands()]
                if entry.target in (aten.stack.default, aten.cat.default):
                    self.listed.update(needs[entry])
                single.update(value for value in needs[entry] if value in self.loop.of)
            waiting += needs[entry]
        try:
            return list(graphlib.TopologicalSorter(needs).static_order()), single
        except graphlib.CycleError as error:
            raise NotRolledError("a step needs what the loop gives at a later one") from error

    def _values(self, family: Family) -> Iterator[Value]:
        """The values that a family reads from outside of the loop, or one by one."""
        for operand in family.operands:
            if isinstance(operand, Before):
                yield from (self._leaf(value) for value in operand.begin if value is not None)
            elif isinstance(operand, Value):
                yield self._leaf(operand)

    def _is_read(self, family: Family) -> bool:
        """Whether it is nothing but elements of a value from outside."""
        target = family.first.target
        return (
            target in (aten.select.int, aten.slice.Tensor)
            and bool(family.operands)
            and isinstance(family.operands[0], Value)
            and isinstance(family.operands[2], Now)
            and family.operands[2].family.target is operators.numbers
        )

    def _asked(self, single: set[Value]) -> set[Family]:
        """The families of which more is read than the state after the last step."""
        asked: set[Family] = set()
        carried: set[Family] = set()
        for part in self.parts:
            for family in part:
                asked.update(read for read in family.reads() if read not in part)
                carried.update(
                    o.family
                    for o in family.operands
                    if isinstance(o, Before) and o.family in part and len(o.begin) == 1
                )
        for value in single:
            family, step = self.loop.of[value]
            if step != family.high or family not in carried:
                asked.add(family)
        return asked

    def _write_member(self, value: Value) -> Value:
        """A single member that is read outside of the loop."""
        family, step = self.loop.of[value]
        if self._is_read(family):
            args, kwargs = value.arguments([self._renamed(leaf) for leaf in value.leaves()])
            return self.new.add(value.target, args, kwargs, value.fake, self._outer(value.origin))
        if not isinstance(value.fake, torch.Tensor):
            raise NotRolledError(f"what {value} gives at one step is read outside of the loop")
        if family not in self.asked:
            return self.final[family]
        begin = self._begins(family)
        if step == family.high - 1 and begin is not None and not self._is_listed(value, family):
            # In a loop of one step it is what that begins with.
            before = self._add(operators.delayed, (self.series[family], [begin], 0, family.steps), {}, None)
            before.fake = self.series[family].fake
            return self._add(aten.select.int, (before, 0, family.steps - 1), {}, value.fake)
        return self._add(aten.select.int, (self.series[family], 0, step - family.low), {}, value.fake)

    def _is_listed(self, value: Value, family: Family) -> bool:
        """Whether a member is read as one of a list: by ``stack``, by ``cat``, or by what reads all of them."""
        return value in self.listed or sum(one in self.singles for one in family.members.values()) >= family.steps - 1

    def _begins(self, family: Family) -> Value | None:
        """What a family begins with that is carried from one step to the next."""
        for reader in self.part_of[family]:
            for operand in reader.operands:
                if isinstance(operand, Before) and operand.family is family and len(operand.begin) == 1:
                    return self.seen.get(self._leaf(operand.begin[0]))
        return None

    def _add(self, target: Any, args: Sequence[Any], kwargs: Any = None, fake: Any = None) -> Value:
        """A new value in place of the loop."""
        self.number += 1
        point = ((*self.loop.run.site[0], (None, self.loop.run.site[1])), self.number)
        return self.new.add(target, args, kwargs, fake, Origin(self.path, point, self.loop.run.where))

    def _write_part(self, part: tuple[Family, ...]) -> None:
        (family, *others) = part
        if not others and family.target is operators.numbers:
            *_, shape, dtype = family.first.args
            tables = family.first.args[0]
            args = (tables, shape, dtype, Count(family.steps))
            self.series[family] = self._add(operators.numbers, args, {}, self._over_steps(family))
        elif not others and self._is_read(family):
            self._write_read(family)
        elif not others and family not in family.reads():
            self._write_free(family)
        elif not others and self._is_sum(family):
            self._write_sum(family)
        elif cell := next((family for family in part if self._is_layer(family, part)), None):
            self._write_layer(cell)
        else:
            self._write_scan(part)

    def _over_steps(self, family: Family) -> Any:
        fake = family.first.fake
        return fake.new_empty((family.steps, *fake.shape)) if isinstance(fake, torch.Tensor) else None

    def _across(self, operand: Any, low: int, high: int) -> Value:
        """An operand from outside of a part at all steps of the part at once."""
        family, series = operand.family, self.series[operand.family]
        fake = None
        if isinstance(series.fake, torch.Tensor):
            fake = series.fake.new_empty((high - low + 1, *series.fake.shape[1:]))
        if isinstance(operand, Now):
            before, after = max(family.low - low, 0), max(high - family.high, 0)
            if before or after:
                series = self._add(operators.padded, (series, before, after), {}, None)
            start = low - family.low + before
            if start or high - low + 1 != family.steps + before + after:
                if fake is None:
                    raise NotRolledError(f"{family.first} gives several tensors, of which some steps read only a part")
                series = self._add(operators.elements, (series, 0, start, 1, high - low + 1), {}, fake)
            return series
        distance = len(operand.begin)
        asked = [at for at, value in enumerate(operand.begin) if value is not None or low + at - distance < family.low]
        begin = [self._begin(value, family) for value in operand.begin[: 1 + max(asked, default=-1)]]
        start = low + len(begin) - distance - family.low
        if start < 0:
            raise NotRolledError(f"{family.first} is read before it is there")
        return self._add(operators.delayed, (series, begin, start, high - low + 1), {}, fake)

    def _begin(self, value: Value | None, family: Family) -> Value:
        """What a state begins with; where no step asks for that, zeros."""
        if value is not None:
            return self._renamed(value)  # type: ignore[no-any-return]
        fake = family.first.fake
        return self._add(operators.filler, (list(fake.shape), fake.dtype), {}, fake)

    def _write_read(self, family: Family) -> None:
        x, dim, index = family.operands[:3]
        table = index.family.first.args[0][0]
        count = Count(family.steps)
        if family.first.target is aten.select.int:
            args: tuple[Any, ...] = (self._renamed(x), dim, table, count)
            self.series[family] = self._add(operators.series, args, {}, self._over_steps(family))
        else:
            width = family.first.fake.shape[dim]
            args = (self._renamed(x), dim, table, width, count)
            self.series[family] = self._add(operators.windows, args, {}, self._over_steps(family))

    def _write_free(self, family: Family) -> None:
        """What depends on no step before is computed for all steps at once, if its operator can."""
        leaves, over = [], []
        for operand in family.operands:
            moves = isinstance(operand, Now | Before)
            over.append(moves)
            leaves.append(self._across(operand, family.low, family.high) if moves else self._renamed(operand))
        args, kwargs = family.first.arguments(leaves)
        fake = self._over_steps(family)
        if family.target is operator.getitem:  # of the several results of an operator
            self.series[family] = self._add(operator.getitem, args, {}, fake)
        elif vectorized.has_all(family.first, family.target, over):
            ranks = [
                value.fake.dim() if isinstance(value, Value) and isinstance(value.fake, torch.Tensor) else 0
                for value in (family.first, *family.first.args[:1])
            ]
            written = (family.target, tuple(over), tuple(ranks), list(args), kwargs)
            self.series[family] = self._add(vectorized.for_all, written, {}, fake)
        else:
            self._write_scan((family,))

    def _is_sum(self, family: Family) -> bool:
        """Whether it adds one thing a step to what it was before."""
        if family.target is not aten.add.Tensor or len(family.operands) != 2:
            return False
        own = [o for o in family.operands if isinstance(o, Before) and o.family is family and len(o.begin) == 1]
        other = [o for o in family.operands if isinstance(o, Now | Before) and o.family is not family]
        return len(own) == len(other) == 1 and str(other[0].family.first.fake) == str(family.first.fake)

    def _write_sum(self, family: Family) -> None:
        own, other = sorted(family.operands, key=lambda operand: operand.family is not family)
        args = (self._across(other, family.low, family.high), self._begin(own.begin[0], family))
        if family in self.asked:
            self.series[family] = self._add(operators.summed_so_far, args, {}, self._over_steps(family))
        else:
            self.final[family] = self._add(operators.summed, args, {}, family.first.fake)

    def _is_layer(self, cell: Family, part: tuple[Family, ...]) -> bool:
        """Whether a part is one cell that is fed with its own state and nothing else."""
        parts = self._cell_parts(cell)
        if parts is None:
            return False
        kind, x, carried, weights = parts
        if not isinstance(x, Now | Before) or x.family in part or any(isinstance(w, Now | Before) for w in weights):
            return False
        if not all(isinstance(o, Before) and len(o.begin) == 1 and o.begin[0] is not None for o in carried):
            return False
        if cell.target in CELLS and kind != "lstm":
            return len(part) == 1 and carried[0].family is cell
        picks = [o.family.operands[1] if o.family.target is operator.getitem else None for o in carried]
        from_cell = {f for f in part if f.target is operator.getitem and f.operands[0] == Now(cell)}
        if set(part) != {cell, *from_cell} or not {o.family for o in carried} <= from_cell:
            return False
        first = 0 if cell.target in CELLS else 1
        cells_asked = kind == "lstm" and any(f in self.asked and f.operands[1] == first + 1 for f in from_cell)
        return picks == [first, first + 1][: len(picks)] and not cells_asked

    def _cell_parts(self, cell: Family) -> tuple[str, Any, Sequence[Any], Sequence[Any]] | None:
        """Kind, input, state and weights of a cell, or of a layer that is called for one step at a time."""
        if cell.target in CELLS:
            kind = CELLS[cell.target]
            state = 2 if kind == "lstm" else 1
            return kind, cell.operands[0], cell.operands[1 : 1 + state], cell.operands[1 + state :]
        if cell.target not in LAYERS or cell.first.args[1] is not None or cell.first.args[4:] != (1,):
            return None
        x, state = cell.first.args[0], len(cell.first.args[2])
        if not state or type(x.fake.shape[0]) is not int or x.fake.shape[0] != 1:
            return None
        return LAYERS[cell.target], cell.operands[0], cell.operands[2 : 2 + state], cell.operands[2 + state : -1]

    def _write_layer(self, cell: Family) -> None:
        kind, given, carried, weights = self._cell_parts(cell) or ("", None, (), ())
        is_cell = cell.target in CELLS
        x = self._across(given, cell.low, cell.high)
        begin = [self._renamed(operand.begin[0]) for operand in carried]
        if not is_cell:  # (T, 1, B, I), and states (1, B, H)
            x = self._add(aten.squeeze.dim, (x, 1))
            begin = [self._add(aten.squeeze.dim, (state, 0)) for state in begin]
        whole = len(carried) == 2 and self._is_final_read(carried[1].family)
        args = (kind, x, begin, [self._renamed(weight) for weight in weights if weight is not None])
        layer = self._add(operators.layer, (*args, Count(cell.steps), whole))
        outputs = self._add(operator.getitem, (layer, 0))
        finals = [self._add(operator.getitem, (layer, number + 1)) for number in range(len(carried))]
        if is_cell:
            hidden = cell if len(carried) == 1 else carried[0].family
            outputs.fake = self._over_steps(hidden)
            self.series[hidden] = outputs
        else:
            outputs = self._add(aten.unsqueeze.default, (outputs, 1))
            finals = [self._add(aten.unsqueeze.default, (state, 0)) for state in finals]
            for family in self.part_of[cell]:
                if family.target is operator.getitem and family.operands[1] in (0, 1):
                    self.series[family] = outputs
                    outputs.fake = self._over_steps(family)
        for operand, value in zip(carried, finals, strict=True):
            value.fake = operand.family.first.fake
            self.final[operand.family] = value

    def _is_final_read(self, family: Family) -> bool:
        """Whether its member of the last step is read after the loop."""
        return family.members.get(family.high) in self.singles

    def _cell_call(self, cell: Family, inside: set[Family], slot: Any, given: dict[Any, Any]) -> list[Any]:
        """A cell within a larger step; its input's share in the gates is computed before the loop, if that can be."""
        kind, count = CELLS[cell.target], 2 if cell.target is aten.lstm_cell.default else 1
        x, state, weights = cell.operands[0], cell.operands[1 : 1 + count], cell.operands[1 + count :]
        w_input, w_state, b_input, b_state = (*weights, None, None)[:4]
        carried = [slot(part) for part in state]
        moves = any(isinstance(weight, Now | Before) for weight in weights)
        if isinstance(x, Now | Before) and x.family not in inside and not moves:
            moving = [self._across(x, cell.low, cell.high), self._renamed(w_input), self._renamed(b_input)]
            written: tuple[Any, ...] = (aten.linear.default, (True, False, False), (2, 2), moving, {})
            given[cell] = Slot("given", len(given)), self._add(vectorized.for_all, written)
            return [operators.cell, [kind, given[cell][0], carried, None, None, slot(w_state), slot(b_state)], {}]
        inputs = [slot(x), carried, slot(w_input), slot(b_input)]
        return [operators.cell, [kind, *inputs, slot(w_state), slot(b_state)], {}]

    def _write_scan(self, part: tuple[Family, ...]) -> None:
        """A part as the body of a ``Scan``."""
        inside, low, high = set(part), part[0].low, part[0].high
        body = _in_order(part, inside)
        number = {family: Slot("value", index) for index, family in enumerate(body)}
        state: dict[Any, tuple[Slot, Any, Any]] = {}
        """Slot, what it begins with, and what it becomes."""
        given: dict[Any, tuple[Slot, Any]] = {}
        fixed: dict[Value, Slot] = {}

        def slot(operand: Any) -> Any:
            if isinstance(operand, Now) and operand.family in inside:
                return number[operand.family]
            if isinstance(operand, Before) and operand.family in inside:
                after: Any = number[operand.family]
                for back, value in enumerate(reversed(operand.begin)):  # the state of n steps ago takes n states
                    key = (operand.family, back, value)
                    if key not in state:
                        state[key] = Slot("state", len(state)), self._begin(value, operand.family), after
                    after = state[key][0]
                return after
            if isinstance(operand, Now | Before):
                if operand not in given:
                    given[operand] = Slot("given", len(given)), self._across(operand, low, high)
                return given[operand][0]
            if isinstance(operand, Value):
                return fixed.setdefault(self._leaf(operand), Slot("fixed", len(fixed)))
            return operand

        calls = []
        for family in body:
            if family.target in CELLS:
                calls.append(self._cell_call(family, inside, slot, given))
            else:
                args, kwargs = family.first.arguments([slot(operand) for operand in family.operands])
                calls.append([family.target, list(args), kwargs])
        kept = [family for family in body if family in self.asked]
        if not all(isinstance(family.first.fake, torch.Tensor) for family in kept):
            raise NotRolledError(f"{body[-1].first} gives several tensors, and has no form for all steps at once")
        scan = self._add(
            operators.scan,
            (
                calls,
                [after for _, _, after in state.values()],
                [number[family] for family in kept],
                [series for _, series in given.values()],
                [begin for _, begin, _ in state.values()],
                [self._renamed(value) for value in fixed],
                Count(high - low + 1),
            ),
        )
        for index, (family, back, _) in enumerate(state):
            if back == 0:
                self.final[family] = self._add(operator.getitem, (scan, index), {}, family.first.fake)
        for index, family in enumerate(kept, len(state)):
            self.series[family] = self._add(operator.getitem, (scan, index), {}, self._over_steps(family))


def _in_order(part: Sequence[Family], inside: set[Family]) -> list[Family]:
    """Families in an order in which a step can compute them."""
    needs = {
        family: [operand.family for operand in family.operands if isinstance(operand, Now) and operand.family in inside]
        for family in part
    }
    try:
        return list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        raise NotRolledError("steps take turns in computing what each other needs") from error
