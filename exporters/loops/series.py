"""Elements of one value: read within the loop that needs them, and put together as the whole that they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils import _pytree

from exporters.loops import operators
from exporters.loops.program import Program, Value, aten
from exporters.loops.record import Origin, Run


def with_reads_inside(program: Program, run: Run) -> Program:
    """A program in which a loop itself takes the elements that it reads, also where that was done before it."""

    def is_inside(value: Value) -> bool:
        return any(other is run for other, _ in value.path)

    def changed(new: Program, value: Value, args: Sequence[Any], kwargs: dict[str, Any]) -> Value:
        def taken(leaf: Any, slot: int, depth: int) -> Any:
            if not isinstance(leaf, Value) or is_inside(leaf) or not _is_element(leaf):
                return leaf
            point = (*value.origin.point[0], (None, slot), (None, depth)), value.origin.point[1]
            origin = Origin(value.path, point, value.origin.where)
            operands = [taken(operand, slot, depth + 1) for operand in leaf.leaves()]
            return new.add(leaf.target, *leaf.arguments(operands), leaf.fake, origin)

        if is_inside(value):
            leaves, structure = _pytree.tree_flatten((list(args), kwargs))
            leaves = [taken(leaf, slot, 0) for slot, leaf in enumerate(leaves)]
            args, kwargs = _pytree.tree_unflatten(leaves, structure)
        return new.add(value.target, args, kwargs, value.fake, value.origin)

    return program.rewritten(changed)


def with_turns_inside(program: Program, run: Run) -> Program:
    """A program in which a list of what a loop gives at each step has one thing of each.

    Also where branches took turns, or where it is what was there some steps before.
    """
    lists = iter(range(len(program.values)))
    path = next(value.path[:at] for value in program.values for at, (other, _) in enumerate(value.path) if other is run)

    def step_of(value: Value) -> int | None:
        return next((step for other, step in value.path if other is run), None)

    def changed(new: Program, value: Value, args: Sequence[Any], kwargs: dict[str, Any]) -> Value:
        if value.target in (aten.stack.default, aten.cat.default) and step_of(value) is None:
            number, parts = next(lists), list(args[0])
            for at, step in enumerate(_steps_of(parts, [step_of(part) for part in parts], run.count)):
                if step is not None:
                    point: Any = ((("list", number),), 0)
                    origin = Origin((*path, (run, step)), point, value.origin.where)
                    parts[at] = new.add(aten.alias.default, (parts[at],), {}, parts[at].fake, origin)
            args = [parts, *args[1:]]
        return new.add(value.target, args, kwargs, value.fake, value.origin)

    return program.rewritten(changed)


def _steps_of(parts: Sequence[Value], steps: Sequence[int | None], count: int) -> Sequence[int | None]:
    """The step that each part of a list belongs to; None where it can stay as it is."""
    none: list[int | None] = [None] * len(parts)
    inside = {step: part.origin.point for part, step in zip(parts, steps, strict=True) if step is not None}
    if not inside or len(inside) < len(parts) - steps.count(None):
        return none
    places = [inside[step] for step in sorted(inside)]
    if steps.count(None) < 2 and (len(set(places[1:])) < 2 or len(set(places[:-1])) < 2):
        return none  # one thing at every step, but for the first or the last one
    for order in (range(count), range(count - 1, -1, -1)):
        if len(parts) == count and all(step is None or step <= at for at, step in zip(order, steps, strict=True)):
            return list(order)
    return steps if len(set(places)) > 1 else none


def _is_element(value: Value) -> bool:
    """Whether it is an element of something, whatever axes of size 1 it has."""
    while value.target in (aten.unsqueeze.default, aten.squeeze.dim):
        value = value.args[0]
    return value.target is aten.select.int and type(value.args[2]) is int


def with_series(program: Program) -> Program:
    """A program in which a ``stack`` or ``cat`` of elements that lie one behind the other is one of the whole."""

    def changed(new: Program, value: Value, args: Sequence[Any], kwargs: dict[str, Any]) -> Value:
        if value.target not in (aten.stack.default, aten.cat.default):
            return new.add(value.target, args, kwargs, value.fake, value.origin)
        dim = args[1] if len(args) > 1 else 0
        dim = dim % value.fake.dim() if dim < 0 else dim
        stacking, pieces = value.target is aten.stack.default, list(_runs(args[0]))
        if all(len(piece) == 1 for piece in pieces):
            return new.add(value.target, args, kwargs, value.fake, value.origin)
        parts = []
        for piece in pieces:
            if len(piece) == 1:
                parts.append(new.add(aten.unsqueeze.default, (piece[0], dim)) if stacking else piece[0])
                continue
            x, axis, start = piece[0].args
            written = (x, axis, start, piece[1].args[2] - start, len(piece))
            fake = piece[0].fake.new_empty((len(piece), *piece[0].fake.shape))
            series = new.add(operators.elements, written, {}, fake, value.origin)
            together = operators.stacked if stacking else operators.joined
            parts.append(new.add(together, (series, dim), {}, value.fake, value.origin))
        return parts[0] if len(parts) == 1 else new.add(aten.cat.default, (parts, dim), {}, value.fake, value.origin)

    return program.rewritten(changed)


def _runs(parts: Sequence[Value]) -> Iterator[list[Value]]:
    """Parts of which each list is of elements of one value, one behind the other."""
    piece: list[Value] = []
    for part in parts:
        if (len(piece) > 1 and not _is_next(piece[0], piece[1], piece[-1], part)) or (
            len(piece) == 1 and not _is_next(piece[0], part, piece[0], part)
        ):
            yield piece
            piece = []
        piece.append(part)
    if piece:
        yield piece


def _is_next(first: Value, second: Value, last: Value, part: Value) -> bool:
    values = (first, second, last, part)
    if any(value.target is not aten.select.int or type(value.args[2]) is not int for value in values):
        return False
    if any(value.args[0] is not first.args[0] or value.args[1] != first.args[1] for value in values):
        return False
    stride = second.args[2] - first.args[2]
    return bool(stride != 0 and part.args[2] - last.args[2] == stride)
