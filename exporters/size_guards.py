"""What torch assumed about sizes while it traced a module, as further sizes to try.

Where ``forward`` compares a size with a number, torch notes the comparison (a guard) and traces the way that the
example took. The graph has that way only. So the sizes on both sides of each guard join the sweep: if torch raises on
one side, the range of the dimension ends there; if it answers, the graph has to give the same answer.
A guard is no refusal by itself: many are always true, or true of both ways alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch

from exporters.spec import Input

FURTHEST = 4096
"""Guards are followed up to this size where a dimension has no upper bound."""

_PERIODS = 8
"""A guard that changes more often than this is taken for a remainder, and two changes are enough."""


@dataclass(frozen=True, slots=True)
class SizeGuard:
    """A comparison of sizes that torch assumed.

    Attributes:
        text: It, with the names of the dimensions, e.g. ``T < 200``.
        place: Where in the user's code, e.g. ``model.py:10 in forward``; empty where torch does not know.
        holds: Evaluates it for sizes.
    """

    text: str
    place: str
    names: tuple[str, ...]
    expression: Any

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Whether it is true of some sizes; a guard that cannot be evaluated counts as true."""
        try:
            return bool(self.expression.subs({sympy.Symbol(name): sizes[name] for name in self.names}))
        except (TypeError, ValueError, ZeroDivisionError):
            return True

    def __str__(self) -> str:
        return f"{self.text} ({self.place})" if self.place else self.text


def size_guards(program: torch.export.ExportedProgram, inputs: Sequence[Input]) -> list[SizeGuard]:
    """The guards of a traced program over the named dimensions of its inputs.

    Args:
        program: Traced with the inputs as its arguments, in order.
        inputs: As declared.
    """
    names, environment = symbol_names(program, inputs)
    found: dict[str, SizeGuard] = {}
    for guard in environment.guards if environment is not None else ():
        expression = guard.expr.xreplace(names)
        free = sorted(symbol.name for symbol in expression.free_symbols)
        if not free or any(symbol.name not in {n.name for n in names.values()} for symbol in expression.free_symbols):
            continue
        place = str(guard.sloc).strip("() ")
        text = str(expression)
        found.setdefault(text, SizeGuard(text, place.rpartition("/")[2], tuple(free), expression))
    return [guard for guard in found.values() if guard.expression not in (True, False)]


def symbol_names(program: torch.export.ExportedProgram, inputs: Sequence[Input]) -> tuple[dict[Any, Any], Any]:
    """Torch's symbols of sizes with the names of the dimensions, and the environment that holds its guards."""
    wanted = set(program.graph_signature.user_inputs)
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder" and node.name in wanted]
    names: dict[Any, Any] = {}
    environment: Any = None
    for tensor, value in zip(inputs, values, strict=False):
        if not isinstance(value, torch.Tensor):
            continue
        sizes: tuple[Any, ...] = tuple(value.shape)  # symbols of torch's, which are typed as numbers
        for declared, size in zip(tensor.shape, sizes, strict=True):
            if isinstance(declared, str) and isinstance(size, torch.SymInt):
                environment = size.node.shape_env
                names.setdefault(size.node.expr, sympy.Symbol(declared))
    return names, environment


def sizes_to_try(
    guards: Sequence[SizeGuard], base: Mapping[str, int], bounds: Mapping[str, tuple[int, int | None]]
) -> dict[str, tuple[int, ...]]:
    """For each dimension the sizes on both sides of the guards, within its bounds, the others being as in ``base``."""
    found: dict[str, set[int]] = {name: set() for name in base}
    for guard in guards:
        for name in guard.names:
            low, high = bounds.get(name, (1, None))
            last = min(FURTHEST, high if high is not None else FURTHEST)
            test = _along(guard, name, base)
            before, changes = None, 0
            for size in range(max(1, low), last + 1):
                now = test(size)
                if before is not None and now != before:
                    found[name] |= {size - 1, size}
                    changes += 1
                    if changes >= _PERIODS:
                        break
                before = now
    return {name: tuple(sorted(sizes)) for name, sizes in found.items()}


def _along(guard: SizeGuard, name: str, base: Mapping[str, int]) -> Any:
    """The truth of a guard as a quick function of one size."""
    others = {sympy.Symbol(other): base[other] for other in guard.names if other != name}
    expression = guard.expression.subs(others)
    if expression in (True, False, sympy.true, sympy.false):
        return lambda _: bool(expression)
    symbol = sympy.Symbol(name)
    try:
        quick = sympy.lambdify(symbol, expression, modules=[_FUNCTIONS, "math"])
        bool(quick(base[name]))
    except Exception:  # noqa: BLE001 - a function of torch's own that has no Python form
        return lambda size: guard.holds({**base, name: size})

    def test(size: int) -> bool:
        try:
            return bool(quick(size))
        except (ValueError, ZeroDivisionError, TypeError):
            return True

    return test


_FUNCTIONS = {
    "FloorDiv": lambda a, b: a // b,
    "Mod": lambda a, b: a % b,
    "PythonMod": lambda a, b: a % b,
    "CleanDiv": lambda a, b: a // b,
    "CeilDiv": lambda a, b: -(-a // b),
    "Max": max,
    "Min": min,
    "TruncToInt": int,
    "FloorToInt": math.floor,
    "CeilToInt": math.ceil,
    "RoundToInt": round,
    "ToFloat": float,
    "IntTrueDiv": lambda a, b: a / b,
    "FloatTrueDiv": lambda a, b: a / b,
    "FloatPow": pow,
    "PowByNatural": pow,
    "OpaqueUnaryFn_sqrt": math.sqrt,
}
