"""The programs of several lengths as one: what differs is a formula of the step and the lengths, or it is refused."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from exporters.loops import formulas, operators
from exporters.loops.formulas import Formula
from exporters.loops.program import Count, NotRolledError, Outside, Program, Table, Value, needed
from exporters.loops.replay import Bound


def unified(programs: Sequence[Program], lengths: Sequence[Sequence[int]], axes: Sequence[str]) -> Program:
    """One program for all lengths.

    Args:
        programs: Of one module, with their loops rolled up.
        lengths: For each of them the length of each axis.
        axes: The names of these axes.

    Raises:
        NotRolledError: They are not the same, or a number in them is by no formula of step and length.
    """
    first = programs[0]
    if any(str(program.structure) != str(first.structure) for program in programs):
        raise NotRolledError("forward returns another number of values at other lengths")
    partners: dict[Value, tuple[Value, ...]] = {}
    waiting = [_matched(across, lengths, axes, None) for across in zip(*(p.outputs for p in programs), strict=True)]
    waiting = [across for across in waiting if isinstance(across, tuple)]
    leaves: dict[Value, list[Any]] = {}
    constants: dict[Value, tuple[Any, ...]] = {}
    while waiting:
        across = waiting.pop()
        value = across[0]
        if value in partners:
            if partners[value] != across:
                raise NotRolledError(f"other lengths wire {value} in another way")
            continue
        partners[value] = across
        constant = _constant([one.target for one in across], programs, lengths)
        if constant is not None:
            constants[value], leaves[value] = constant, []
            continue
        structures = {one.kind()[1] for one in across}
        if len({one.target for one in across}) > 1 or len(structures) > 1:
            found = " or ".join(sorted(set(map(str, across))))
            raise NotRolledError(f"other lengths make another program, more than its loops grows: {found}")
        rows = zip(*(one.leaves() for one in across), strict=True)
        leaves[value] = [_matched(row, lengths, axes, value) for row in rows]
        waiting += [leaf for leaf in leaves[value] if isinstance(leaf, tuple)]
    result = Program(first.structure, first.constants)
    seen: dict[Value, Value] = {}
    for value in needed(first):
        if value in constants:
            seen[value] = result.add(operators.constant, constants[value], {}, value.fake, value.origin)
            continue
        filled = [seen[leaf[0]] if isinstance(leaf, tuple) else leaf for leaf in leaves[value]]
        args, kwargs = value.arguments(filled)
        target = value.target
        if target is operator.getitem and isinstance(args[1], Formula):  # the state that the last step of each has set
            target, args = operators.one_of, (*args, sorted({one.args[1] for one in partners[value]}))
        seen[value] = result.add(target, args, kwargs, value.fake, value.origin)
    result.outputs = [seen[leaf] if isinstance(leaf, Value) else leaf for leaf in first.outputs]
    return result


def _constant(
    targets: Sequence[Any], programs: Sequence[Program], lengths: Sequence[Sequence[int]]
) -> tuple[Any, ...] | None:
    """Numbers, shape and dtype of a tensor that forward makes of numbers which depend on the lengths."""
    if len(set(targets)) == 1 or not all(
        isinstance(target, Outside) and target.kind == "constant" for target in targets
    ):
        return None
    tensors = [program.constants[target.name] for program, target in zip(programs, targets, strict=True)]
    first = tensors[0]
    if any((one.shape, one.dtype) != (first.shape, first.dtype) for one in tensors):
        return None
    if first.numel() > operators.MOST_NUMBERS:
        return None
    exact = formulas.SINGLE if first.dtype == torch.float32 else formulas.EXACT
    rows = zip(*(tensor.reshape(-1).tolist() for tensor in tensors), strict=True)
    found = [formulas.find([[number] for number in row], lengths, exact) for row in rows]
    return None if None in found else (found, list(first.shape), first.dtype)


def _matched(across: Sequence[Any], lengths: Sequence[Sequence[int]], axes: Sequence[str], value: Value | None) -> Any:
    """Values of all programs as a tuple; a constant that they share; the formula of a number."""
    first = across[0]
    if any(isinstance(leaf, Value) for leaf in across):
        if not all(isinstance(leaf, Value) for leaf in across):
            raise NotRolledError(f"other lengths make another program, more than its loops grows ({value})")
        return tuple(across)
    if all(type(leaf) is type(first) for leaf in across):
        tables = None
        if isinstance(first, Tensor):
            if all(leaf is first for leaf in across):
                return first
        elif isinstance(first, Table):
            tables = [leaf.numbers for leaf in across]
        elif all(leaf == first for leaf in across):
            return (
                first
                if not isinstance(first, Count)
                else Count(Formula("linear", 0, first.number, tuple(0 for _ in lengths[0])))
            )
        elif isinstance(first, Count):
            tables = [[leaf.number] for leaf in across]
        elif type(first) in (int, float):
            tables = [[leaf] for leaf in across]
        if tables is not None:
            single = value is not None and value.target is operators.numbers and value.args[2] is torch.float32
            found = formulas.find(tables, lengths, formulas.SINGLE if single else formulas.EXACT)
            if found is not None:
                if isinstance(first, Table):
                    return Bound(found, all(None not in table for table in tables))
                return Count(found) if isinstance(first, Count) else found
            if isinstance(first, Table):
                shown = ", ".join(str(n) for n in max(tables, key=len)[:5])
                raise NotRolledError(f"{value} takes a number by no known formula of the step: {shown} …")
    raise NotRolledError(
        f"{value} computes with {', '.join(map(str, across))} at the sizes "
        + ", ".join(" ".join(f"{name}={size}" for name, size in zip(axes, sizes, strict=True)) for sizes in lengths)
    )
