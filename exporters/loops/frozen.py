"""Says at once that an axis becomes a number, where torch says so after the whole trace only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from torch.fx.experimental.sym_node import SymNode

from exporters.places import current_line


class FrozenError(Exception):
    """forward turns the size of an axis into a Python number: for a loop, mostly."""


@contextmanager
def told_at_once() -> Iterator[None]:
    """While it lasts, tracing stops as soon as the size of a dynamic axis is used as a number.

    Raises:
        FrozenError: That has happened; names the size of the example and the line.
    """
    guard = SymNode.guard_int

    def guarded(node: SymNode, file: str, line: int) -> int:
        symbols = node.expr.free_symbols
        number: int = guard(node, file, line)
        known = getattr(node.shape_env, "replacements", {})
        frozen = [int(known[symbol]) for symbol in symbols if getattr(known.get(symbol), "is_number", False)]
        place = current_line() or "forward"
        if frozen:
            raise FrozenError(f"{place}: the axis is specialized to the constant ({frozen[0]})")
        if symbols and "int(" in place:
            raise FrozenError(f"{place}: a number that forward computes of a size is made one of Python's ({number})")
        return number

    with mock.patch.object(SymNode, "guard_int", guarded):
        yield
