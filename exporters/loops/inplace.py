"""Changes in place, written as what they compute: ``ys[:, t] = h`` becomes a ``select_scatter`` into what ys was.

torch can do that for any program (``run_decompositions``), at several times the cost of the trace itself.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from exporters.loops.program import NotRolledError, Value

aten = torch.ops.aten

_VIEWS = {
    aten.alias.default,
    aten.detach.default,
    aten.detach_.default,
    aten.expand.default,
    aten.permute.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.squeeze.dim,
    aten.t.default,
    aten.transpose.int,
    aten.unsqueeze.default,
    aten.view.default,
}

Plainly = Callable[[Any, Sequence[Any], Mapping[str, Any], Any], Any]
"""(operator, arguments, arguments by name, fake) -> the value in a program."""


class Storage:
    """What each node of a traced graph holds at the moment, changes in place included."""

    def __init__(self, plainly: Plainly, protected: Sequence[Node]) -> None:
        """``protected`` nodes must not be changed: inputs and weights."""
        self.plainly, self.protected = plainly, set(protected)
        self._held: dict[Node, tuple[Any, int]] = {}
        self._parents: dict[Node, Node] = {}
        self._changes: dict[Node, int] = {}

    def put(self, node: Node, value: Any) -> None:
        """Notes what a node gives that is no view of another."""
        self._held[node] = (value, 0)

    def read(self, node: Node) -> Any:
        """What a node holds now."""
        value, seen = self._held[node]
        now = self._changes.get(self._root(node), 0)
        if seen != now and node in self._parents:
            value = self._view(node)
            self._held[node] = (value, now)
        return value

    def run(self, node: Node) -> None:
        """Notes what a node computes, and what it changes."""
        target = node.target
        if not _changes(target):
            if target in _VIEWS:
                parent: Any = node.args[0]
                self._parents[node] = parent
                self._held[node] = (self._view(node), self._changes.get(self._root(node), 0))
            else:
                args, kwargs = torch.fx.map_arg((node.args, node.kwargs), self.read)
                self.put(node, self.plainly(target, args, kwargs, node.meta.get("val")))
            return
        changed: Any
        changed, *rest = node.args
        before = self.read(changed)
        args, kwargs = torch.fx.map_arg((tuple(rest), node.kwargs), self.read)
        self._write(changed, self.plainly(_functional(target), [before, *args], kwargs, before.fake))
        self._parents[node] = changed
        self._held[node] = (self.read(changed), self._changes.get(self._root(node), 0))

    def _root(self, node: Node) -> Node:
        while node in self._parents:
            node = self._parents[node]
        return node

    def _view(self, node: Node) -> Any:
        if _changes(node.target) and node.target not in _VIEWS:  # what a change in place returns is what it changed
            return self.read(self._parents[node])
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), self.read)
        return self.plainly(node.target, args, kwargs, node.meta.get("val"))

    def _write(self, node: Node, value: Value) -> None:
        """Sets what a node holds, and with it what it is a view of."""
        parent = self._parents.get(node)
        if parent is None:
            if node.target is operator.getitem or any(r.alias_info for r in _returns(node.target)):
                raise NotRolledError(f"forward changes in place what {node.target} gives: write it without that")
            if node in self.protected:
                raise NotRolledError("forward changes a buffer or one of its inputs")
            now = self._changes[node] = self._changes.get(node, 0) + 1
            self._held[node] = (value, now)
            return
        whole = self.read(parent)
        target, args = node.target, list(node.args[1:])
        inverse: tuple[Any, list[Any]]
        if target is aten.select.int:
            inverse = aten.select_scatter.default, [whole, value, *args]
        elif target is aten.slice.Tensor:
            inverse = aten.slice_scatter.default, [whole, value, *args]
        elif target in (aten.unsqueeze.default, aten.squeeze.dim):
            inverse = (aten.squeeze.dim if target is aten.unsqueeze.default else aten.unsqueeze.default), [value, *args]
        elif target in (aten.transpose.int, aten.t.default):
            inverse = target, [value, *args]
        elif target is aten.view.default:
            inverse = target, [value, list(whole.fake.shape)]
        elif target in (aten.alias.default, aten.detach.default, aten.detach_.default) or _changes(target):
            self._write(parent, value)
            return
        else:
            raise NotRolledError(f"forward changes in place what {target} gives: write it without that")
        self._write(parent, self.plainly(inverse[0], inverse[1], {}, whole.fake))


def _returns(target: Any) -> Sequence[Any]:
    return target._schema.returns if isinstance(target, torch._ops.OpOverload) else ()


def _changes(target: Any) -> bool:
    """Whether an operator changes its first argument."""
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _functional(target: Any) -> Any:
    """The operator that computes what another one changes its first argument to."""
    name = target._opname
    packet = getattr(aten, name[:-1], None) if name.endswith("_") else None
    overload = getattr(packet, target._overloadname, None) if packet is not None else None
    if overload is None or torch.Tag.nondeterministic_seeded in target.tags:
        raise NotRolledError(f"forward changes a tensor in place by {target}: write it without that")
    return overload
