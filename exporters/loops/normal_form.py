"""A program that torch traced, in a form in which each thing is said in one way.

Iterations of a loop are compared with each other, and one module traced at several lengths with itself. So an element
along an axis is always ``select``; what only copies is gone; what is changed in place is computed instead; and a tensor
that is filled element by element, or that grows by ``cat``, is one ``stack`` or ``cat`` where the loop is over.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree

from exporters.loops import operators
from exporters.loops.inplace import Storage
from exporters.loops.program import (
    NOWHERE,
    Body,
    NotRolledError,
    Outside,
    Program,
    Value,
    aten,
    same_kind,
    shape_of,
    size_of,
)
from exporters.loops.record import Origin

ENDLESS = 2**62
"""A slice that ends at or after this has no end; torch writes the largest 64 bit number."""

_COPIES = {aten.clone.default, aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default}
_COPIES |= {aten.detach_.default, aten.contiguous.default}
_VIEWS = {aten.view.default, aten._unsafe_view.default}
_CHECKS = {
    aten._assert_tensor_metadata.default,
    aten._assert_scalar.default,
    aten.sym_constrain_range_for_size.default,
    aten.sym_constrain_range.default,
}


def in_one_form(traced: torch.export.ExportedProgram, origins: Sequence[Origin]) -> Program:
    """A traced program without in-place changes, copies, and several ways to say one thing.

    Args:
        traced: With the indices of `exporters.loops.record.recording` in its nodes.
        origins: The list of that recording.

    Raises:
        NotRolledError: forward changes a buffer or an input.
    """
    signature = traced.graph_signature
    kinds = {spec.kind for spec in signature.output_specs}
    if kinds != {OutputKind.USER_OUTPUT}:
        raise NotRolledError("forward changes a buffer or one of its inputs")
    form = _Form(traced)
    sources = form.sources()
    placeholders = [node for node in traced.graph.nodes if node.op == "placeholder"]
    storage = Storage(form.plainly, placeholders)
    paths = {origin: _loops_only(origin) for origin in set(origins)}
    for node in traced.graph.nodes:
        index = node.meta.get("custom", {}).get("origin")
        form.origin = NOWHERE if index is None else paths[origins[index]]
        if node.op == "placeholder":
            storage.put(node, form.program.add(sources[node.name], fake=node.meta["val"]))
        elif node.op == "get_attr":
            part = getattr(traced.graph_module, node.target)
            storage.put(node, Body(str(part.code), part) if isinstance(part, torch.fx.GraphModule) else part)
        elif node.op == "output":
            form.program.outputs = [
                form.grown(storage.read(leaf)) if isinstance(leaf, torch.fx.Node) else leaf for leaf in node.args[0]
            ]
        elif node.target not in _CHECKS:
            storage.run(node)
    return form.program


class _Form:
    """Writes a traced program in one form.

    Attributes:
        origin: Of the node that is being written.
    """

    def __init__(self, traced: torch.export.ExportedProgram) -> None:
        self.traced = traced
        self.program = Program(traced.call_spec.out_spec)
        self.origin = NOWHERE

    def sources(self) -> dict[str, Outside]:
        """What each placeholder stands for; constants are named by what they hold."""
        signature, found = self.traced.graph_signature, {}
        inputs = iter(range(len(signature.input_specs)))
        for spec in signature.input_specs:
            if spec.kind == InputKind.USER_INPUT:
                found[spec.arg.name] = Outside("input", next(inputs))
            elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target not in self.traced.constants:
                found[spec.arg.name] = Outside("weight", spec.target)
            else:
                tensor = self.traced.constants[spec.target]
                name = _digest(tensor) if isinstance(tensor, torch.Tensor) else spec.target
                self.program.constants[name] = tensor
                found[spec.arg.name] = Outside("constant", name)
        return found

    def plainly(self, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], fake: Any) -> Any:
        """A computation in the one way in which it is to be said."""
        if target in (aten.select_scatter.default, aten.slice_scatter.default):
            args = [args[0], *_pytree.tree_map(self.grown, list(args[1:]))]
        elif target is aten.cat.default:
            args = [[self.grown(part) for part in args[0]], *args[1:]]
        else:
            args, kwargs = _pytree.tree_map(self.grown, (list(args), dict(kwargs)))
        if target in _COPIES and not set(kwargs) - {"memory_format"}:
            return args[0]
        if target is aten.dropout.default and args[2] is False:
            return args[0]
        adds_nothing = target is aten.add.Tensor and type(args[1]) in (int, float) and args[1] == 0 and not kwargs
        if adds_nothing and shape_of(args[0].fake) == shape_of(fake):
            return args[0]  # as sum() begins
        if target is aten.copy.default and same_kind(args[0], args[1]):
            return args[1]
        if target in _VIEWS:  # of what a loop gives, whose steps may lie otherwise in memory
            return self._add(aten.reshape.default, args, {}, fake)
        if target is aten.full_like.default and args[0].fake.dtype == fake.dtype:
            return self._add(target, args, {}, fake)
        if target is aten.linspace.default:  # by torch's own name, under which a number of steps that is a size is seen
            return self._add(torch.linspace, args, {"dtype": fake.dtype}, fake)
        if target is aten.one_hot.default and len(args) > 1 and args[1] > 0:
            return self._add(operators.one_hot, args, {}, fake)
        if target is aten.select.int:
            return self._element(*args)
        if target is aten.slice.Tensor:
            return self._slice(args, fake)
        if target is aten.narrow.default:
            return self._slice([*args[:3], args[2] + args[3]], fake)
        if target is aten.slice_scatter.default and same_kind(args[0], args[1]) and _is_whole(args[0], args[2:]):
            return args[1]
        if target is aten.slice_scatter.default and (at := _single(args[0], args[2:])):
            part = self._call(aten.select.int, args[1], at[0], 0)
            return self._add(aten.select_scatter.default, (args[0], part, *at), {}, fake)
        if target is operator.getitem and isinstance(args[0], Value) and isinstance(args[1], int):
            return self._piece(args[0], args[1], fake)
        return self._add(target, args, kwargs, fake)

    def grown(self, value: Any) -> Any:
        """What has grown in a loop element by element, once that loop is over: a ``stack`` or ``cat`` of them all."""
        if not isinstance(value, Value) or self._is_running(value) or not self._grows(value):
            return value
        if value.target is aten.select_scatter.default:
            dim = _axis(value, value.args[2])
            size = size_of(value, dim)
            parts: dict[int, Any] = {}
            while isinstance(value, Value) and value.target is aten.select_scatter.default and size is not None:
                base, part, axis, index = value.args
                if _axis(value, axis) != dim or not isinstance(index, int):
                    break
                parts.setdefault(index % size, part)
                value = base
            if size is None:
                return value
            return self._call(
                aten.stack.default,
                [parts[at] if at in parts else self._element(value, dim, at) for at in range(size)],
                dim,
            )
        if value.target is aten.cat.default:
            return self._call(aten.cat.default, list(self._joined(value, _dim_of(value))), _dim_of(value))
        return value

    def _grows(self, value: Value) -> bool:
        """Whether it is what it was in an iteration before, and more."""
        before = value.args[0] if value.target is aten.cat.default else value.args[:1]
        return value.target in (aten.cat.default, aten.select_scatter.default) and any(
            part.target is value.target and [run for run, _ in part.path] == [run for run, _ in value.path]
            for part in before
            if isinstance(part, Value)
        )

    def _joined(self, value: Value, dim: int) -> Iterator[Value]:
        """The parts of a ``cat`` whose parts are such themselves."""
        for part in value.args[0]:
            if part.target is aten.cat.default and _dim_of(part) == dim and not self._is_running(part):
                yield from self._joined(part, dim)
            elif tuple(part.fake.shape) != (0,):
                yield part

    def _is_running(self, value: Value) -> bool:
        """Whether the loops that a value was computed in are not over."""
        return [run for run, _ in value.path] == [run for run, _ in self.origin.path[: len(value.path)]]

    def _add(self, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], fake: Any) -> Value:
        return self.program.add(target, args, kwargs, fake, self.origin)

    def _call(self, target: Any, *args: Any) -> Value:
        return self.program.call(target, *args, origin=self.origin)

    def _slice(self, args: Sequence[Any], fake: Any) -> Value:
        if _is_whole(args[0], args[1:]):
            return args[0]  # type: ignore[no-any-return]
        x = args[0]
        if at := _single(x, args[1:]):
            return self._call(aten.unsqueeze.default, self._element(x, *at), at[0])
        dim, start, end, step = _bounds(x, args[1:])
        if x.target is aten.cat.default and _dim_of(x) == dim and step == 1 and start is not None:
            for part, begin, size in _pieces(x):
                if (begin, begin + size) == (start, end):
                    return part
        return self._add(aten.slice.Tensor, args if start is None else (x, dim, start, end, step), {}, fake)

    def _piece(self, source: Value, index: int, fake: Any) -> Value:
        """One of several results of an operator."""
        if source.target is aten.unbind.int:
            return self._element(source.args[0], source.args[1] if len(source.args) > 1 else 0, index)
        if source.target in (aten.split.Tensor, aten.chunk.default, aten.split_with_sizes.default):
            x, dim = source.args[0], _axis(source.args[0], source.args[2] if len(source.args) > 2 else 0)
            if size_of(x, dim) == len(source.fake):  # pieces of one element each
                return self._call(aten.unsqueeze.default, self._element(x, dim, index), dim)
        return self._add(operator.getitem, (source, index), {}, fake)

    def _element(self, x: Value, dim: int, index: Any) -> Value:
        dim, size = _axis(x, dim), size_of(x, dim)
        while x.target is aten.select_scatter.default and _axis(x, x.args[2]) == dim and size is not None:
            base, part, _, put = x.args  # an element of what is being filled
            if not isinstance(put, int) or not isinstance(index, int):
                break
            if put % size == index % size:
                return part  # type: ignore[no-any-return]
            x = base
        if x.target is aten.stack.default and _dim_of(x) == dim and isinstance(index, int):
            return x.args[0][index]  # type: ignore[no-any-return]
        if x.target is aten.cat.default and _dim_of(x) == dim and isinstance(index, int) and size is not None:
            for part, begin, length in _pieces(x):
                # A longer part may be as long as another axis, and there need not be an element of it.
                if begin == index % size and length == 1:
                    return self._element(part, dim, 0)
        return self._call(aten.select.int, x, dim, index)


def _loops_only(origin: Origin) -> Origin:
    """An origin whose path is without what ran once only."""
    return Origin(tuple(entry for entry in origin.path if entry[0].count > 1), origin.point, origin.where)


def _digest(tensor: torch.Tensor) -> str:
    content = tensor.detach().contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else tensor
    return f"{list(tensor.shape)} {tensor.dtype} {hashlib.sha256(content.numpy().tobytes()).hexdigest()[:16]}"


def _axis(x: Value, dim: int) -> int:
    return dim % x.fake.dim() if dim < 0 else dim


def _dim_of(value: Value) -> int:
    """The axis along which a ``stack`` or ``cat`` puts its parts."""
    return _axis(value, value.args[1] if len(value.args) > 1 else 0)


def _pieces(value: Value) -> Iterator[tuple[Value, int, int]]:
    """The parts of a ``cat`` with where each begins and how long it is, as far as these are numbers."""
    begin, dim = 0, _dim_of(value)
    for part in value.args[0]:
        size = size_of(part, dim)
        if size is None:
            return
        yield part, begin, size
        begin += size


def _bounds(x: Value, rest: Sequence[Any]) -> tuple[int, Any, Any, int]:
    """(dim, start, end, step) of a slice, counted from the beginning; None for what is no number."""
    dim, start, end, step = list(rest) + [0, None, None, 1][len(rest) :]
    dim, start, end = _axis(x, dim), start or 0, ENDLESS if end is None else end
    size = size_of(x, dim)
    if size is None or not isinstance(start, int) or not isinstance(end, int):
        return dim, None, None, step
    start, end = (min(max(at + size if at < 0 else at, 0), size) for at in (start, end))
    return dim, start, end, step


def _single(x: Value, rest: Sequence[Any]) -> tuple[int, int] | None:
    """Axis and index of a slice that is one element long."""
    dim, start, end, step = _bounds(x, rest)
    return (dim, start) if start is not None and step == 1 and end - start == 1 else None


def _is_whole(x: Value, rest: Sequence[Any]) -> bool:
    """Whether (dim, start, end, step) of a slice leave out nothing."""
    dim, start, end, step = list(rest) + [0, None, None, 1][len(rest) :]
    size = x.fake.shape[dim]
    reaches = end is None or (isinstance(end, int) and (end >= ENDLESS or (isinstance(size, int) and end >= size)))
    return start in (None, 0) and step == 1 and reaches
