"""What depends on itself through others."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def circles(nodes: Sequence[T], reads: Mapping[T, Sequence[T]]) -> list[list[T]]:
    """Groups of nodes that depend on each other in a circle, through any number of steps (Tarjan 1972)."""
    index: dict[T, int] = {}
    low: dict[T, int] = {}
    stack: list[T] = []
    groups: list[list[T]] = []
    known = set(nodes)

    def visit(node: T) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in reads[node]:
            if other not in known:
                continue
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            groups.append(stack[at:])
            del stack[at:]

    for node in nodes:
        if node not in index:
            visit(node)
    return groups
