"""Operators that are refused by name: ONNX has no form for them, or only one that answers otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from exporters.places import line_in

Check = Callable[[Node], str | None]

NO_FORM = "ONNX has no operator for it and none that it could be written with exactly"

WITHOUT_FORM = (
    "erfinv", "special_erfinv", "lgamma", "digamma", "polygamma", "mvlgamma", "special_multigammaln", "i0",
    "special_i0", "special_ndtri", "special_bessel_j0", "nextafter", "frexp", "gcd", "mode", "nanmedian",
    "index_reduce", "pdist",
)  # fmt: skip


def unsupported(program: torch.export.ExportedProgram) -> str | None:
    """The first operator of a traced program that cannot be exported, with the reason and the line that calls it.

    Returns:
        One sentence; None if nothing is known to stand in the way.
    """
    for node, operator in _calls(program):
        check = _drawn(node) or _checks().get(operator)
        reason = check if isinstance(check, str) or check is None else check(node)
        if reason is not None:
            return f"{line_of(node)}torch's {operator._opname} cannot be exported: {reason}"
    return None


def _checks() -> dict[Any, str | Check]:
    aten = torch.ops.aten
    checks: dict[Any, str | Check] = {}
    for name in WITHOUT_FORM:
        packet = getattr(aten, name, None)
        for overload in packet.overloads() if packet is not None else ():
            checks[getattr(packet, overload)] = NO_FORM
    checks[aten.avg_pool2d.default] = checks[aten.avg_pool3d.default] = _average_pool
    checks[aten.histc.default] = _histogram
    checks[aten.bincount.default] = _weighted_count
    checks[aten.split.Tensor] = checks[aten.chunk.default] = _parts
    return checks


SEEDED = (
    "it draws random numbers, each time the same ones only because forward sets the seed, which a graph cannot. Draw "
    "them once in __init__ and keep them (register_buffer), or take them as an input"
)


def _drawn(node: Node) -> str | None:
    """Random numbers that reach an answer. A module that answers otherwise from call to call does not come this far."""
    operator: Any = node.target
    if torch.Tag.nondeterministic_seeded not in operator.tags or not _reaches_answers(node):
        return None
    for place, argument in enumerate(operator._schema.arguments):
        off = argument.name in ("train", "training", "dropout", "dropout_p")
        if off and not _argument(node, place, argument.name, argument.default_value):
            return None
    return SEEDED


def _reaches_answers(node: Node) -> bool:
    seen, waiting = {node}, [node]
    while waiting:
        found = waiting.pop()
        if found.op == "output":
            return True
        fresh = found.users.keys() - seen
        seen |= fresh
        waiting += fresh
    return False


def _average_pool(node: Node) -> str | None:
    both = _argument(node, 4, "ceil_mode", False) and _argument(node, 6, "divisor_override") is not None
    return "ceil_mode and divisor_override together have no form in ONNX; drop one of them" if both else None


def _histogram(node: Node) -> str | None:
    given = _argument(node, 2, "min", 0) != _argument(node, 3, "max", 0)
    return None if given else "without min and max its range would come from the values; give both"


def _weighted_count(node: Node) -> str | None:
    weighted = _argument(node, 1, "weights") is not None
    return "ONNX counts without weights; use torch.zeros(n).index_add(0, x, weights)" if weighted else None


def _parts(node: Node) -> str | None:
    """Parts of an axis without a fixed size: torch writes as many as the example had."""
    size = node.args[0].meta["val"].shape[_argument(node, 2, "dim", 0)]  # type: ignore[union-attr]
    return None if isinstance(size, int) else "the axis has no fixed size, nor has the number of its parts; slice it"


def _argument(node: Node, place: int, name: str, default: Any = None) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _calls(program: torch.export.ExportedProgram) -> Iterator[tuple[Node, torch._ops.OpOverload]]:
    """The calls of operators in the program and in the graphs inside it."""
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                if isinstance(node.target, torch._ops.OpOverload):
                    yield node, node.target


def line_of(node: Node) -> str:
    """Where in the user's code an operator is called, as ``file.py:12: code: ``."""
    place = line_in(node.meta.get("stack_trace") or "")
    return f"{place}: " if place else ""
