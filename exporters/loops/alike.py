"""Whether the steps of a loop are alike, and how to say how they are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporters.loops.program import NotRolledError, Outside, Value


class UnlikeError(NotRolledError):
    """Steps are not alike."""


def is_constant(value: Any) -> bool:
    """Whether it is a tensor that was written into forward as numbers."""
    return isinstance(value, Value) and isinstance(value.target, Outside) and value.target.kind == "constant"


def alike(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """1 and 1.0 are equal in Python, and other numbers."""
    return all(
        type(a) is type(b) and (a is b if isinstance(a, Value) else a == b) for a, b in zip(one, other, strict=True)
    )


def growth(variants: Sequence[Value]) -> str:
    """How the results of one operator differ from step to step."""
    for verb, values in (("gives", variants), ("reads", [next(value.operands(), value) for value in variants])):
        shapes = [str(list(v.fake.shape)) if hasattr(v.fake, "shape") else "several tensors" for v in values[:3]]
        if len(set(shapes)) == len(shapes):
            said = f"{variants[0]} {verb} {', then '.join(shapes)}"
            return f"{said}: what a step computes must not grow from step to step"
    return f"{variants[0]} takes another number of arguments, or others, at each step"


def difference(kinds: Sequence[Sequence[Any]], value: Value) -> str:
    """How what one operator takes differs from step to step."""
    one, other = next((a, b) for a, b in zip(kinds[0], kinds[-1], strict=True) if a is not b)
    return f"{value} takes {one} at one step and {other} at another, {len(kinds)} different ones in all"
