"""A program that torch traced, as values that know where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree

from exporters.loops.record import Origin, Path

aten = torch.ops.aten

NOWHERE = Origin((), ((), 0), "")


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
        origin: Where it comes from.
    """

    target: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    fake: Any = None
    origin: Origin = NOWHERE

    @property
    def path(self) -> Path:
        """The loops around it."""
        return self.origin.path

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
        """The operator, how its arguments are put together, their shapes, constants but numbers, and its shape."""
        leaves, structure = _pytree.tree_flatten((self.args, dict(self.kwargs)))
        constants = (
            shape_of(leaf.fake)
            if isinstance(leaf, Value)
            else type(leaf)
            if _is_number(leaf)
            else f"{type(leaf).__name__} {leaf}"
            for leaf in leaves
        )
        return self.target, str(structure), tuple(constants), shape_of(self.fake)

    def __str__(self) -> str:
        if isinstance(self.target, Outside):
            return f"{self.target.kind} {self.target.name}"
        name = getattr(self.target, "_opname", None) or getattr(self.target, "__name__", self.target)
        return f"{name} ({self.origin.where})" if self.origin.where else str(name)


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


@dataclass(frozen=True, slots=True)
class Table:
    """A number, or None where it does not matter, at each step of a loop."""

    numbers: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Count:
    """How many steps a loop has."""

    number: Any

    def __str__(self) -> str:
        return f"a loop of {self.number} steps"


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

    def add(
        self,
        target: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        fake: Any = None,
        origin: Origin = NOWHERE,
    ) -> Value:
        """A new value."""
        self.values.append(Value(target, tuple(args), dict(kwargs or {}), fake, origin))
        return self.values[-1]

    def call(self, target: Any, *args: Any, origin: Origin = NOWHERE, **kwargs: Any) -> Value:
        """The same, with the shape worked out."""
        given, named = _pytree.tree_map(lambda leaf: leaf.fake if isinstance(leaf, Value) else leaf, (args, kwargs))
        return self.add(target, args, kwargs, target(*given, **named), origin)

    def rewritten(self, change: Callable[[Program, Value, Sequence[Any], dict[str, Any]], Value]) -> Program:
        """The same program with each value that is needed written anew by ``change(new, value, args, kwargs)``."""
        new = Program(self.structure, self.constants)
        seen: dict[Value, Any] = {}
        for value in needed(self):
            filled = [seen[leaf] if isinstance(leaf, Value) else leaf for leaf in value.leaves()]
            seen[value] = change(new, value, *value.arguments(filled))
        new.outputs = [seen[leaf] if isinstance(leaf, Value) else leaf for leaf in self.outputs]
        return new


def needed(program: Program) -> list[Value]:
    """The values that the answer depends on, in their order."""
    wanted = {value for value in program.outputs if isinstance(value, Value)}
    for value in reversed(program.values):
        if value in wanted:
            wanted.update(value.operands())
    return [value for value in program.values if value in wanted]


def without_repetition(program: Program) -> Program:
    """The same program with each computation in it once."""
    known: dict[Any, Value] = {}

    def once(new: Program, value: Value, args: Sequence[Any], kwargs: dict[str, Any]) -> Value:
        leaves, structure = _pytree.tree_flatten((list(args), kwargs))
        # 1 and 1.0 and True are equal in Python, and other arguments.
        key: Any = value.target, str(structure), tuple((type(x), x if _hashable(x) else id(x)) for x in leaves)
        if torch.Tag.nondeterministic_seeded in getattr(value.target, "tags", ()):
            key = value  # drawn anew each time
        if key not in known:
            known[key] = new.add(value.target, args, kwargs, value.fake, value.origin)
        return known[key]

    return program.rewritten(once)


def size_of(value: Value, dim: int) -> Any:
    """How long an axis of a value is; None where it has no such axis."""
    if not isinstance(value.fake, torch.Tensor) or not -value.fake.dim() <= dim < value.fake.dim():
        return None
    size = value.fake.shape[dim]
    return size if isinstance(size, int) else None


def same_kind(one: Any, other: Any) -> bool:
    """Whether two values have one shape and dtype."""
    return isinstance(one, Value) and isinstance(other, Value) and shape_of(one.fake) == shape_of(other.fake)


def shape_of(fake: Any) -> Any:
    """Shape and dtype as text."""
    if isinstance(fake, torch.Tensor):
        return f"{list(fake.shape)} {fake.dtype}"
    return tuple(map(shape_of, fake)) if isinstance(fake, list | tuple) else type(fake).__name__


def _is_number(leaf: Any) -> bool:
    return type(leaf) in (int, float, Table)


def _hashable(leaf: Any) -> bool:
    try:
        hash(leaf)
    except TypeError:
        return False
    return True
