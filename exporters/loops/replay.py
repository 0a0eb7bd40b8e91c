"""A rolled program as a function of inputs, and held beside the module that it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import traceback as fx_traceback
from torch.utils import _pytree

from exporters.loops import operators
from exporters.loops.formulas import Formula
from exporters.loops.program import Body, Count, NotRolledError, Outside, Program, Value
from exporters.spec import Input
from runtime.engine import BATCH_NAMES

OTHERS = (1, 2, 3, 9, 16)
"""At which lengths it is compared."""

ALIKE = {torch.float64: 1e-6, torch.float32: 1e-4}
"""Of the size of an answer; numbers that were written into forward as float32 are there in float64, too. A wrong loop
is far off."""

Shapes = tuple[tuple[int | str, ...], ...]
"""Of the inputs, as they are declared."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A formula at the lengths of now.

    Attributes:
        formula: By step and lengths.
        whole: Whether every step needs the number; else it may be out of range at some.
        lengths: Of now.
    """

    formula: Formula
    whole: bool
    lengths: tuple[Any, ...] = ()

    def at(self, step: Any, steps: operators.Steps) -> Any:
        """The number at a step."""
        return self.formula.at(step, steps.number, self.lengths)

    def over(self, steps: operators.Steps) -> Tensor:
        """The numbers at all steps: (T,)."""
        found = self.at(torch.arange(steps.number), steps)
        return found if isinstance(found, Tensor) else torch.full((steps.number,), found)


def at_lengths(
    example: Mapping[str, NDArray[Any]], inputs: Sequence[Input], lengths: Mapping[str, int], dtype: Any = None
) -> tuple[Tensor, ...]:
    """The example with other lengths, its elements repeated."""
    arrays = []
    for tensor in inputs:
        array = example[tensor.name]
        for at, name in enumerate(tensor.shape):
            if name in lengths:
                array = np.take(array, np.arange(lengths[str(name)]) % array.shape[at], axis=at)
        given = torch.from_numpy(np.ascontiguousarray(array).copy())
        arrays.append(given.to(dtype) if given.dtype == torch.float32 else given)
    return tuple(arrays)


def run(program: Program, module: nn.Module, shapes: Shapes, *inputs: Tensor) -> Any:
    """The program on inputs, with a module's weights."""
    sizes: dict[str, Any] = {}
    check: Any = torch._check
    for tensor, shape in zip(inputs, shapes, strict=True):
        for name, size in zip(shape, tensor.shape, strict=True):
            if isinstance(name, str):
                check(size == sizes.setdefault(name, size))  # one name is one size, wherever it is read
    lengths, shortest = tuple(sizes.values()), tuple(1 for _ in sizes)
    double = any(x.dtype == torch.float64 for x in (*inputs, *module.parameters()))
    seen: dict[Value, Any] = {}

    def filled(leaf: Any) -> Any:
        if isinstance(leaf, Value):
            return seen[leaf]
        if isinstance(leaf, Count):
            formula: Any = leaf.number
            return operators.Steps(formula.at(0, 0, lengths), formula.at(0, 0, shortest))
        if isinstance(leaf, Formula):
            return leaf.at(0, 0, lengths)
        if isinstance(leaf, Bound):
            return Bound(leaf.formula, leaf.whole, lengths)
        if leaf is torch.float32 and double:
            return torch.float64
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
            with _told(value):
                seen[value] = value.target(*args, **kwargs)
    return _pytree.tree_unflatten([filled(leaf) for leaf in program.outputs], program.structure)


@contextmanager
def _told(value: Value) -> Iterator[None]:
    """While it lasts, torch notes with its nodes the line of the user's code that a value comes from."""
    file, _, line = value.origin.where.rpartition(":")
    with fx_traceback.preserve_node_meta():
        if file:
            fx_traceback.set_stack_trace([f'File "{file}", line {line}, in forward\n\n'])
        yield


def compare(
    module: nn.Module,
    program: Program,
    example: Mapping[str, NDArray[Any]],
    inputs: Sequence[Input],
    axis: str | None,
) -> None:
    """Runs the rolled program beside the module at lengths that were not traced, in float64 if the module can.

    Raises:
        NotRolledError: They answer differently.
    """
    shapes = tuple(tensor.shape for tensor in inputs)
    dtype = torch.float64
    with torch.no_grad(), _in(dtype, module):
        try:
            module(*at_lengths(example, inputs, {}, dtype))
        except Exception:  # noqa: BLE001 - forward names float32
            dtype = torch.float32
    sizes = {n: at for t in inputs for n, at in zip(t.shape, example[t.name].shape, strict=True) if isinstance(n, str)}
    compared = 0
    for number, length in enumerate(OTHERS):
        lengths = {name: (1 + number if name in BATCH_NAMES else size + number % 3) for name, size in sizes.items()}
        lengths |= {axis: length} if axis else {}
        given = at_lengths(example, inputs, lengths, dtype)
        said = ", ".join(f"{name} = {size}" for name, size in lengths.items() if not axis or name == axis)
        with torch.no_grad(), _in(dtype, module):
            try:
                truth = module(*given)
            # Too short for what forward does, or an input no longer fits another: the sweep has cases of its own.
            except Exception:  # noqa: BLE001, S112
                continue
            try:
                found = run(program, module, shapes, *given)
            except Exception as error:
                lines = str(error).strip().splitlines()
                why = lines[0] if lines else type(error).__name__
                raise NotRolledError(f"with {said} the loop rolled up fails: {why}") from error
        _hold(found, truth, f"with {said} the loop does something else than with longer ones", dtype)
        compared += 1
    if not compared:
        raise NotRolledError(
            f"forward runs at none of the lengths {', '.join(map(str, OTHERS))}, which could be compared"
        )


@contextmanager
def _in(dtype: torch.dtype, module: nn.Module) -> Iterator[None]:
    """While it lasts, a module of float32 computes in another type."""
    tensors = [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.dtype == torch.float32]
    kept, default = [tensor.data for tensor in tensors], torch.get_default_dtype()
    try:
        for tensor in tensors:
            tensor.data = tensor.data.to(dtype)
        torch.set_default_dtype(dtype)
        yield
    finally:
        torch.set_default_dtype(default)
        for tensor, data in zip(tensors, kept, strict=True):
            tensor.data = data


def _hold(found: Any, truth: Any, reason: str, dtype: torch.dtype) -> None:
    leaves = _pytree.tree_leaves(found), _pytree.tree_leaves(truth)
    if len(leaves[0]) != len(leaves[1]):
        raise NotRolledError(reason)
    for one, other in zip(*leaves, strict=True):
        size = float(other.abs().max()) if other.numel() and other.is_floating_point() else 0.0
        if one.shape != other.shape or not torch.allclose(
            one.to(other.dtype), other, rtol=0, atol=ALIKE[dtype] * size, equal_nan=True
        ):
            raise NotRolledError(reason)
