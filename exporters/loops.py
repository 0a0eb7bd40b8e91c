"""Python loops over time, rolled up: ``for t in range(x.shape[1]): h = self.cell(x[:, t], h)`` exports as it is.

torch writes such a loop out to the length of the example; the loop is in no program that it traces. So a module is
traced at three lengths. In each program the repetitions are found and rolled up (`exporters.rolling`), each checked
step by step. The three must then be one and the same program, but for numbers that grow with the length as a·T + b,
which become that. What is left is run in torch beside the module at lengths that were not traced, and then exported in
its place, with time dynamic. Whatever does not come out so is refused, and says why.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree

from exporters import recurrent
from exporters.rolling import rolled_up
from exporters.spec import Input
from exporters.traces import Body, Outside, Program, Value, in_one_form, needed
from exporters.traces import NotRolledError as NotRolledError

TRACED, OTHERS = 3, (1, 2, 9)
"""At how many lengths a module is traced, and at which others it is compared."""

SHORTEST = 4
"""Three steps from one to the next: what happens twice in a row may be chance."""

ALIKE = 1e-4
"""Of the size of an answer. Both sides run in float32, and layers sum in another order; a wrong loop is far off."""


@dataclass(frozen=True, slots=True)
class Growing:
    """A number that depends on the length T: slope · T + offset."""

    slope: int
    offset: int


@contextmanager
def rolled(
    module: nn.Module, example: Mapping[str, NDArray[Any]], inputs: Sequence[Input], axis: str
) -> Iterator[None]:
    """While it lasts, a module runs with its loops over an axis rolled up, so that it can be traced with that dynamic.

    Args:
        module: In evaluation mode; it is left as it was.
        example: An array for each input.
        inputs: As they are declared.
        axis: The name of the axis that torch freezes.

    Raises:
        NotRolledError: There is no such loop, or one that cannot be rolled up without doubt.
    """
    program = _joined(module, example, inputs, axis)
    place = next((number, t.shape.index(axis)) for number, t in enumerate(inputs) if axis in t.shape)
    _compare(module, program, place, example, inputs, axis)
    forward = functools.partial(_run, program, module, place)
    forward.__signature__ = inspect.signature(module.forward)  # type: ignore[attr-defined]
    before = vars(module).get("forward")
    try:
        module.forward = forward
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def _joined(module: nn.Module, example: Mapping[str, NDArray[Any]], inputs: Sequence[Input], axis: str) -> Program:
    """The one program that a module is at each of the traced lengths."""
    taken = {size for t in inputs for size in (*t.shape, *example[t.name].shape) if isinstance(size, int)}
    taken |= {size for t in (*module.parameters(), *module.buffers()) for size in t.shape}
    lengths: list[int] = []
    while len(lengths) < TRACED:
        length = SHORTEST
        while length in taken or length in lengths:
            length += 1
        lengths.append(length)
    programs, reasons = [], []
    for length in lengths:
        program, found = rolled_up(in_one_form(_traced(module, example, inputs, axis, length)), length)
        programs.append(program)
        reasons += [reason for reason in found if reason not in reasons]
    try:
        return _unified(programs, lengths)
    except NotRolledError as error:
        raise NotRolledError("; ".join(reasons[:2]) or str(error)) from error


def _traced(
    module: nn.Module, example: Mapping[str, NDArray[Any]], inputs: Sequence[Input], axis: str, length: int
) -> torch.export.ExportedProgram:
    dynamic = tuple(
        {at: torch.export.Dim.DYNAMIC for at, name in enumerate(t.shape) if isinstance(name, str) and name != axis}
        for t in inputs
    )
    arguments = _at_length(example, inputs, axis, length)
    try:
        with recurrent.lowered(module):
            return torch.export.export(module, arguments, dynamic_shapes=dynamic, strict=False)
    # Whatever forward does can go wrong while it is traced, with any exception.
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise NotRolledError(
            f"torch cannot trace it with {axis} = {length} either: {lines[0] if lines else type(error).__name__}"
        ) from error


def _at_length(
    example: Mapping[str, NDArray[Any]], inputs: Sequence[Input], axis: str, length: int
) -> tuple[Tensor, ...]:
    """The example with another length, its elements repeated."""
    arrays = []
    for tensor in inputs:
        array = example[tensor.name]
        for at, name in enumerate(tensor.shape):
            if name == axis:
                array = np.take(array, np.arange(length) % array.shape[at], axis=at)
        arrays.append(torch.from_numpy(np.ascontiguousarray(array).copy()))
    return tuple(arrays)


def _unified(programs: Sequence[Program], lengths: Sequence[int]) -> Program:
    """One program for all lengths.

    Raises:
        NotRolledError: They are not the same, or a number in them grows otherwise than as a·T + b.
    """
    first = programs[0]
    if any(str(program.structure) != str(first.structure) for program in programs):
        raise NotRolledError("forward returns another number of values at other lengths")
    partners: dict[Value, tuple[Value, ...]] = {}
    waiting = [_matched(across, lengths) for across in zip(*(p.outputs for p in programs), strict=True)]
    waiting = [across for across in waiting if isinstance(across, tuple)]
    leaves: dict[Value, list[Any]] = {}
    while waiting:
        across = waiting.pop()
        value = across[0]
        if value in partners:
            if partners[value] != across:
                raise NotRolledError("other lengths wire the values in another way")
            continue
        partners[value] = across
        shapes = {one.kind()[1] for one in across}
        if len({one.target for one in across}) > 1 or len(shapes) > 1:
            raise NotRolledError("other lengths make another program, more than its loops grows")
        leaves[value] = [_matched(leaf, lengths) for leaf in zip(*(one.leaves() for one in across), strict=True)]
        waiting += [leaf for leaf in leaves[value] if isinstance(leaf, tuple)]
    result = Program(first.structure, first.constants)
    seen: dict[Value, Value] = {}
    for value in needed(first):
        filled = [seen[leaf[0]] if isinstance(leaf, tuple) else leaf for leaf in leaves[value]]
        args, kwargs = value.arguments(filled)
        seen[value] = result.add(value.target, args, kwargs, value.fake)
    result.outputs = [seen[leaf] if isinstance(leaf, Value) else leaf for leaf in first.outputs]
    return result


def _matched(across: Sequence[Any], lengths: Sequence[int]) -> Any:
    """Values of all programs as a tuple; a constant that they share; a number that grows with the length."""
    first = across[0]
    if any(isinstance(leaf, Value) for leaf in across):
        if not all(isinstance(leaf, Value) for leaf in across):
            raise NotRolledError("other lengths make another program, more than its loops grows")
        return tuple(across)
    if all(type(leaf) is type(first) for leaf in across):
        if isinstance(first, Tensor):
            if all(leaf is first for leaf in across):
                return first
        elif all(leaf == first for leaf in across):
            return first
        elif type(first) is int:
            slope, rest = divmod(across[1] - first, lengths[1] - lengths[0])
            offset = first - slope * lengths[0]
            if not rest and all(leaf == slope * n + offset for leaf, n in zip(across, lengths, strict=True)):
                return Growing(slope, offset)
    raise NotRolledError(
        f"forward computes with a number that is {', '.join(map(str, across))} at the lengths "
        f"{', '.join(map(str, lengths))}"
    )


def _run(program: Program, module: nn.Module, place: tuple[int, int], *inputs: Tensor) -> Any:
    """The program on inputs, with a module's weights; ``place`` is the input and the axis whose size is T."""
    length = inputs[place[0]].shape[place[1]]
    seen: dict[Value, Any] = {}

    def filled(leaf: Any) -> Any:
        if isinstance(leaf, Value):
            return seen[leaf]
        if isinstance(leaf, Growing):
            return leaf.slope * length + leaf.offset
        return leaf.module if isinstance(leaf, Body) else leaf

    for value in program.values:
        if isinstance(value.target, Outside):
            kind, name = value.target.kind, value.target.name
            owner, _, attribute = name.rpartition(".") if kind == "weight" else ("", "", "")
            seen[value] = (
                inputs[name]
                if kind == "input"
                else getattr(module.get_submodule(owner), attribute)
                if kind == "weight"
                else program.constants[name]
            )
        else:
            args, kwargs = _pytree.tree_map(filled, (value.args, dict(value.kwargs)))
            seen[value] = value.target(*args, **kwargs)
    return _pytree.tree_unflatten([filled(leaf) for leaf in program.outputs], program.structure)


def _compare(
    module: nn.Module,
    program: Program,
    place: tuple[int, int],
    example: Mapping[str, NDArray[Any]],
    inputs: Sequence[Input],
    axis: str,
) -> None:
    """Runs the rolled program beside the module at lengths that were not traced.

    Raises:
        NotRolledError: They answer differently.
    """
    for length in OTHERS:
        given = _at_length(example, inputs, axis, length)
        with torch.no_grad():
            try:
                truth = module(*given)
            # Too short for what forward does, or an input no longer fits another: the sweep has cases of its own.
            except Exception:  # noqa: BLE001, S112
                continue
            found = _run(program, module, place, *given)
        for one, other in zip(_pytree.tree_leaves(found), _pytree.tree_leaves(truth), strict=True):
            size = float(other.abs().max()) if other.numel() and other.is_floating_point() else 0.0
            if one.shape != other.shape or not torch.allclose(one, other, rtol=0, atol=ALIKE * size, equal_nan=True):
                raise NotRolledError(f"with {axis} = {length} the loop does something else than with longer ones")
