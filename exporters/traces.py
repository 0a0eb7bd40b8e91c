"""A program that torch traced, in a form in which each value is there once and each thing is said in one way.

Steps of a loop are compared with each other, and one module traced at several lengths with itself. So there is one
`Value` for each value, however often it is computed; an element along an axis is always ``select``; what only copies
is gone; and a tensor that is filled element by element is a ``stack``.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree

aten = torch.ops.aten

ENDLESS = 2**62
"""A slice that ends at or after this has no end; torch writes the largest 64 bit number."""

_COPIES = {aten.clone.default, aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default}
_CHECKS = {
    aten._assert_tensor_metadata.default,
    aten._assert_scalar.default,
    aten.sym_constrain_range_for_size.default,
    aten.sym_constrain_range.default,
}


class NotRolledError(Exception):
    """A program is not what can be rolled up; says what was found."""


@dataclass(eq=False, repr=False, slots=True)
class Value:
    """What an operator gives.

    Attributes:
        target: The operator; of what comes from outside an `Outside`.
        args: Values, constants, and lists of them.
        kwargs: The same by name.
        fake: Its shape and dtype, or None where nobody asks for it.
    """

    target: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    fake: Any = None

    def leaves(self) -> list[Any]:
        """Values and constants in the order of the arguments."""
        return _pytree.tree_leaves((self.args, dict(self.kwargs)))

    def operands(self) -> Iterator[Value]:
        """The values among the arguments."""
        return (leaf for leaf in self.leaves() if isinstance(leaf, Value))

    def arguments(self, leaves: Sequence[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        """Other values and constants put together as the arguments are."""
        return _pytree.tree_unflatten(leaves, _pytree.tree_structure((self.args, dict(self.kwargs))))  # type: ignore[no-any-return]

    def kind(self) -> tuple[Any, ...]:
        """The operator, how its arguments are put together, and the constants among them."""
        leaves, structure = _pytree.tree_flatten((self.args, dict(self.kwargs)))
        constants = ("" if isinstance(leaf, Value) else f"{type(leaf).__name__} {leaf}" for leaf in leaves)
        return self.target, str(structure), tuple(constants)

    def __str__(self) -> str:
        if isinstance(self.target, Outside):
            return f"{self.target.kind} {self.target.name}"
        return str(getattr(self.target, "_opname", None) or getattr(self.target, "__name__", self.target))


@dataclass(frozen=True, slots=True)
class Outside:
    """What a program does not compute: ``input`` number ``name``, or a ``weight`` or ``constant`` of that name."""

    kind: str
    name: Any


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a loop or branch that was in the program already; two of the same code are equal."""

    code: str
    module: Any = field(compare=False)


class Program:
    """Values in an order in which they can be computed, and which of them are the answer.

    Attributes:
        outputs: In torch's order.
        structure: How they are put together in what forward returns.
        constants: Tensors that were written into forward.
    """

    def __init__(self, structure: Any = None, constants: Mapping[str, Any] | None = None) -> None:
        self.values: list[Value] = []
        self.outputs: list[Any] = []
        self.structure = structure
        self.constants = dict(constants or {})
        self._known: dict[Any, Value] = {}

    def find(self, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> Value | None:
        """The value of this computation, if it is in the program."""
        return self._known.get(_key(target, args, kwargs or {}))

    def add(
        self, target: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, fake: Any = None
    ) -> Value:
        """The value of this computation, which is added if it is new."""
        key = _key(target, args, kwargs or {})
        if key not in self._known:
            value = Value(target, tuple(args), dict(kwargs or {}), fake)
            if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
                key = (key, len(self.values))  # drawn anew each time
            self._known[key] = value
            self.values.append(value)
        return self._known[key]

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Value:
        """The same, with the shape worked out."""
        given, named = _pytree.tree_map(lambda leaf: leaf.fake if isinstance(leaf, Value) else leaf, (args, kwargs))
        return self.add(target, args, kwargs, target(*given, **named))


def in_one_form(traced: torch.export.ExportedProgram) -> Program:
    """A traced program without in-place changes, copies, and several ways to say one thing.

    Raises:
        NotRolledError: forward changes a buffer or an input.
    """
    if any(_changes(node.target) for node in traced.graph.nodes):
        traced = traced.run_decompositions({})  # the same without changes in place
    signature = traced.graph_signature
    kinds = {spec.kind for spec in signature.output_specs}
    if kinds != {OutputKind.USER_OUTPUT}:
        raise NotRolledError("forward changes a buffer or one of its inputs")
    program = Program(traced.call_spec.out_spec, traced.constants)
    seen: dict[Any, Any] = {}
    inputs = iter(range(len(signature.input_specs)))
    sources = {}
    for spec in signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            sources[spec.arg.name] = Outside("input", next(inputs))
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target not in traced.constants:
            sources[spec.arg.name] = Outside("weight", spec.target)
        else:
            sources[spec.arg.name] = Outside("constant", spec.target)
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            seen[node] = program.add(sources[node.name], fake=node.meta["val"])
        elif node.op == "get_attr":
            part = getattr(traced.graph_module, node.target)
            seen[node] = Body(str(part.code), part) if isinstance(part, torch.fx.GraphModule) else part
        elif node.op == "output":
            program.outputs = [seen.get(leaf, leaf) for leaf in node.args[0]]
        elif node.target not in _CHECKS:
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda leaf: seen[leaf])
            seen[node] = _plainly(program, node.target, args, kwargs, node.meta.get("val"))
    return program


def needed(program: Program) -> list[Value]:
    """The values that the answer depends on, in their order."""
    wanted = {value for value in program.outputs if isinstance(value, Value)}
    for value in reversed(program.values):
        if value in wanted:
            wanted.update(value.operands())
    return [value for value in program.values if value in wanted]


def size_of(value: Value, dim: int) -> Any:
    """How long an axis of a value is; None where it has no such axis."""
    if not isinstance(value.fake, torch.Tensor) or not -value.fake.dim() <= dim < value.fake.dim():
        return None
    size = value.fake.shape[dim]
    return size if isinstance(size, int) else None


def same_kind(one: Any, other: Any) -> bool:
    """Whether two values have one shape and dtype; sizes are compared as text, so that torch learns nothing of it."""
    return (
        isinstance(one, Value)
        and isinstance(one.fake, torch.Tensor)
        and isinstance(other, Value)
        and isinstance(other.fake, torch.Tensor)
        and str(tuple(one.fake.shape)) == str(tuple(other.fake.shape))
        and one.fake.dtype == other.fake.dtype
    )


def _key(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    leaves, structure = _pytree.tree_flatten((list(args), dict(kwargs)))
    # 1 and 1.0 and True are equal in Python, and other arguments.
    return target, str(structure), tuple((type(leaf), leaf if _hashable(leaf) else id(leaf)) for leaf in leaves)


def _hashable(leaf: Any) -> bool:
    try:
        hash(leaf)
    except TypeError:
        return False
    return True


def _changes(target: Any) -> bool:
    """Whether an operator changes one of its arguments."""
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _plainly(program: Program, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], fake: Any) -> Any:
    """A computation in the one way in which it is to be said."""
    if target in _COPIES and not set(kwargs) - {"memory_format"}:
        return args[0]
    if target is aten.dropout.default and args[2] is False:
        return args[0]
    if target is aten.add.Tensor and type(args[1]) is int and args[1] == 0 and not kwargs:
        return args[0]  # as sum() begins
    if target is aten.copy.default and same_kind(args[0], args[1]):
        return args[1]
    if target is aten.slice_scatter.default and _is_whole(args[0], args[2:]) and same_kind(args[0], args[1]):
        return args[1]
    if target is aten.select.int:
        return _element(program, *args)
    if target is aten.slice.Tensor:
        if _is_whole(args[0], args[1:]):
            return args[0]
        dim, start, end, *step = list(args[1:]) + [0, 0, ENDLESS][len(args) - 1 :]
        dim, size = _axis(args[0], dim), size_of(args[0], dim)
        if size is not None and step in ([], [1]) and isinstance(start, int) and isinstance(end, int):
            first, last = (min(max(at + size if at < 0 else at, 0), size) for at in (start or 0, end))
            if last - first == 1:
                return program.call(aten.unsqueeze.default, _element(program, args[0], dim, first), dim)
    if target is operator.getitem and isinstance(args[0], Value) and isinstance(args[1], int):
        source, index = args
        if source.target is aten.unbind.int:
            return _element(program, source.args[0], source.args[1] if len(source.args) > 1 else 0, index)
        if source.target in (aten.split.Tensor, aten.chunk.default, aten.split_with_sizes.default):
            x, dim = source.args[0], _axis(source.args[0], source.args[2] if len(source.args) > 2 else 0)
            if size_of(x, dim) == len(source.fake):  # pieces of one element each
                return program.call(aten.unsqueeze.default, _element(program, x, dim, index), dim)
    if target is aten.select_scatter.default:
        value = program.add(target, args, kwargs, fake)
        return _filled(program, value) or value
    return program.add(target, args, kwargs, fake)


def _element(program: Program, x: Value, dim: int, index: Any) -> Value:
    dim, size = _axis(x, dim), size_of(x, dim)
    if isinstance(index, int) and index < 0 and size is not None:
        index += size
    while x.target is aten.select_scatter.default and _axis(x, x.args[2]) == dim and size is not None:
        base, part, _, put = x.args  # an element of what is being filled
        if put % size == index:
            return part  # type: ignore[no-any-return]
        x = base
    return program.call(aten.select.int, x, dim, index)


def _axis(x: Value, dim: int) -> int:
    return dim % x.fake.dim() if dim < 0 else dim


def _is_whole(x: Value, rest: Sequence[Any]) -> bool:
    """Whether (dim, start, end, step) of a slice leave out nothing."""
    dim, start, end, step = list(rest) + [0, None, None, 1][len(rest) :]
    size = x.fake.shape[dim]
    reaches = end is None or (isinstance(end, int) and (end >= ENDLESS or (isinstance(size, int) and end >= size)))
    return start in (None, 0) and step == 1 and reaches


def _filled(program: Program, value: Value) -> Value | None:
    """A tensor each of whose elements along an axis was put in is a stack of them."""
    dim = _axis(value, value.args[2])
    size = size_of(value, dim)
    parts: dict[int, Any] = {}
    while isinstance(value, Value) and value.target is aten.select_scatter.default:
        base, part, axis, index = value.args
        if _axis(value, axis) != dim or not isinstance(index, int) or size is None:
            break
        parts.setdefault(index % size, part)
        value = base
    if size is None or len(parts) < size:
        return None
    return program.call(aten.stack.default, [parts[index] for index in range(size)], dim)
