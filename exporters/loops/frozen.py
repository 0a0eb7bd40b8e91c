"""Says at once that an axis becomes a number, where torch says so after the whole trace only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from torch.fx.experimental.sym_node import SymNode

from exporters.places import current_line


class FrozenError(Exception):
    """forward turns the size of an axis into a Python number: for a loop, mostly."""


class RoundedError(FrozenError):
    """forward calls ``int`` with a number that it computes of sizes."""


@contextmanager
def told_at_once() -> Iterator[None]:
    """While it lasts, tracing stops as soon as the size of a dynamic axis is used as a number.

    Raises:
        FrozenError: That has happened; names the size of the example and the line.
        RoundedError: The same of a number that is computed of sizes.
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
        if symbols and re.search(r"\bint\(", place):
            raise RoundedError(f"{place}: int() makes a Python number ({number}) of one that is computed of sizes")
        return number

    with mock.patch.object(SymNode, "guard_int", guarded):
        yield
