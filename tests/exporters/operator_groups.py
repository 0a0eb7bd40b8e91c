"""Many operators in one graph: exported once, run at both levels, each answer held against torch in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree

from exporters.convert import convert
from exporters.execute import LEVELS, open_graph
from exporters.spec import Input, Output, Signature

Arrays = tuple[NDArray[Any], ...]

FACTOR = 8
"""How many times torch's own float32 error, and how many units in the last place, an answer may be off."""


@dataclass(frozen=True, slots=True)
class Group:
    """Operators of the same inputs.

    Attributes:
        inputs: As declared for an export.
        cases: What they are run on; the first is what is traced.
        operators: Name -> function of the inputs, of one or several results.
        whole: Errors are relative to the largest number of a result, not to each number: sums may cancel.
        floors: By operator, what may be lost of a number, as a share of the first input.
        slow: Another group has the same kinds of operators, so this one need not run each time.
    """

    inputs: tuple[Input, ...]
    cases: tuple[Arrays, ...]
    operators: Mapping[str, Callable[..., Any]]
    whole: bool = False
    floors: Mapping[str, float] | None = None
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """One result of one operator in one case."""

    found: NDArray[Any]
    exact: NDArray[Any]
    single: NDArray[Any]


def answers(group: Group) -> dict[str, list[Answer]]:
    """Each operator's results over all cases and both levels."""
    names = list(group.operators)
    example = dict(zip((tensor.name for tensor in group.inputs), group.cases[0], strict=True))
    results = [torch_results(group.operators[name], group.cases[0], torch.float32) for name in names]
    outputs = [
        Output(f"{name}.{i}", str(array.dtype), tuple(f"{name}.{i}.{axis}" for axis in range(array.ndim)))
        for name, arrays in zip(names, results, strict=True)
        for i, array in enumerate(arrays)
    ]
    module = _module([tensor.name for tensor in group.inputs], [group.operators[name] for name in names])
    graph = convert(module, example, Signature(group.inputs, outputs), 18).model.SerializeToString()
    sessions = [open_graph(graph, level) for level in LEVELS]
    collected: dict[str, list[Answer]] = {name: [] for name in names}
    for case in group.cases:
        feed = {tensor.name: np.ascontiguousarray(array) for tensor, array in zip(group.inputs, case, strict=True)}
        exact = [torch_results(group.operators[name], case, torch.float64) for name in names]
        single = [torch_results(group.operators[name], case, torch.float32) for name in names]
        for session in sessions:
            found = iter(session.run(None, feed))
            for name, e, s in zip(names, exact, single, strict=True):
                collected[name] += [Answer(next(found), *pair) for pair in zip(e, s, strict=True)]
    return collected


def torch_results(operator: Callable[..., Any], case: Sequence[NDArray[Any]], dtype: torch.dtype) -> list[NDArray[Any]]:
    """What torch makes of a case, its float inputs and its default type of a given type."""
    arguments = [torch.from_numpy(array.copy()) for array in case]
    torch.set_default_dtype(dtype)
    try:
        with torch.no_grad():
            results = operator(*(a.to(dtype) if a.is_floating_point() else a for a in arguments))
    finally:
        torch.set_default_dtype(torch.float32)
    return [leaf.numpy(force=True) for leaf in _pytree.tree_leaves(results) if isinstance(leaf, Tensor)]


def excess(answer: Answer, whole: bool = False, floor: NDArray[Any] | float = 0.0) -> float:
    """The largest error as a multiple of what is allowed; up to 1 is right."""
    found, exact, single = answer.found, answer.exact, answer.single
    if found.shape != single.shape:
        return np.inf
    if found.dtype.kind != "f":
        return 0.0 if np.array_equal(found, single) else np.inf
    if not found.size:
        return 0.0
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32).astype(np.float64)
        noise = np.nan_to_num(np.abs(single - exact), nan=0.0, posinf=0.0)
        unit = np.nan_to_num(np.spacing(np.abs(rounded).astype(np.float32)).astype(np.float64), nan=0.0, posinf=0.0)
        if whole:
            noise, unit = noise.max(), unit.max()
        error = np.abs(found - exact) / (FACTOR * (noise + unit) + floor + np.finfo(np.float32).tiny)
        same = np.zeros(found.shape, bool)
        for other in (rounded, single):
            same |= (found == other) | (np.isnan(found) & np.isnan(other))
        return float(np.nan_to_num(np.where(same, 0.0, error), nan=np.inf, posinf=np.inf).max())


def _module(names: Sequence[str], operators: Sequence[Callable[..., Any]]) -> nn.Module:
    """A module whose forward has parameters of the given names and returns what all operators do."""

    def forward(*arguments: Tensor) -> list[Tensor]:
        leaves = _pytree.tree_leaves([operator(*arguments) for operator in operators])
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    namespace = {"all_of": forward}
    exec(f"def forward(self, {', '.join(names)}):\n    return all_of({', '.join(names)})", namespace)
    return type("Operators", (nn.Module,), {"forward": namespace["forward"]})().eval()
