"""Answers of torch itself: in float64, the truth that a graph is held against, and in float32, its noise."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils import _pytree

from exporters.errors import GuardError
from exporters.spec import Case, Input, Output, bind_sizes
from runtime.compare import distance

Arrays = dict[str, NDArray[Any]]

FLOAT64_ADVICE = (
    "The reference runs the module in float64, so forward must not name a float type: instead of .float() or "
    "dtype=torch.float32 use the dtype of a parameter or torch.get_default_dtype()"
)


def in_float64(module: nn.Module) -> nn.Module:
    """A copy with float64 parameters and buffers."""
    return copy.deepcopy(module).double()


@contextmanager
def one_thread() -> Iterator[None]:
    """Holds torch to one thread.

    A proof runs thousands of small operators. Two threads gain nothing on them, and on a busy machine they wait for
    each other at every one: a forward pass of the detector took 10 s instead of 0.2 s there.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def evaluate(
    module: nn.Module, inputs: Sequence[Input], outputs: Sequence[Output], case: Case, dtype: torch.dtype
) -> Arrays:
    """Runs a module eagerly on one case, with ``dtype`` as torch's default and for its float inputs.

    Raises:
        GuardError: forward fails, or what it returns is not what was declared.
    """
    arguments = []
    for tensor in inputs:
        argument = torch.from_numpy(case.inputs[tensor.name].copy())
        arguments.append(argument.to(dtype) if argument.is_floating_point() else argument)
    try:
        with torch.no_grad(), _default_dtype(dtype):
            returned = module(*arguments)
    # Whatever forward raises is told with the case that made it.
    except Exception as error:
        lines = str(error).strip().splitlines()
        advice = f". {FLOAT64_ADVICE}" if dtype == torch.float64 and _about_dtype(str(error)) else ""
        raise GuardError(
            f"case {case.name!r}: forward itself fails in torch {_short(dtype)}: {type(error).__name__}: "
            f"{lines[0] if lines else ''}{advice}"
        ) from error
    return _named(returned, inputs, outputs, case, dtype)


def evaluate_all(
    module: nn.Module, inputs: Sequence[Input], outputs: Sequence[Output], cases: Sequence[Case], dtype: torch.dtype
) -> list[Arrays]:
    """`evaluate` over all cases."""
    return [evaluate(module, inputs, outputs, case, dtype) for case in cases]


def measure_noise(
    outputs: Sequence[Output], cases: Sequence[Case], truth: Sequence[Arrays], single: Sequence[Arrays]
) -> dict[str, float]:
    """The float32 noise of each float output: the largest difference between torch float32 and torch float64.

    It is never taken as smaller than one unit in the last place of the output's largest magnitude: float32 cannot
    promise more, and another processor rounds elsewhere.

    Raises:
        GuardError: float32 and float64 disagree about a size or about an integer output, so that the case lies on the
            edge of a decision and no graph could be held to it.
    """
    noise: dict[str, float] = {}
    for output in outputs:
        worst, magnitude = 0.0, 0.0
        for case, exact, rounded in zip(cases, truth, single, strict=True):
            a, b = rounded[output.name], exact[output.name]
            if a.shape != b.shape or (b.dtype.kind != "f" and not np.array_equal(a, b)):
                raise GuardError(
                    f"case {case.name!r}: torch float32 and torch float64 decide differently about {output.name}, so "
                    "the case lies on the edge of a decision and proves nothing: change it or leave it out"
                )
            if b.dtype.kind == "f" and b.size:
                worst = max(worst, distance(a, b))
                finite = np.abs(b[np.isfinite(b)])
                magnitude = max(magnitude, float(finite.max(initial=0)))
        if np.dtype(output.dtype).kind == "f":
            noise[output.name] = max(worst, float(np.spacing(np.float32(magnitude))))
    return noise


def _named(
    returned: object, inputs: Sequence[Input], outputs: Sequence[Output], case: Case, dtype: torch.dtype
) -> Arrays:
    leaves = _pytree.tree_leaves(returned)
    if len(leaves) != len(outputs) or not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        kinds = ", ".join(type(leaf).__name__ for leaf in leaves)
        raise GuardError(f"forward returns {len(leaves)} values ({kinds}), declared are {len(outputs)} outputs")
    arrays: Arrays = {}
    for output, leaf in zip(outputs, leaves, strict=True):
        declared = np.dtype(output.dtype)
        expected = np.dtype(_short(dtype)) if declared.kind == "f" else declared
        array = leaf.numpy(force=True).copy()
        if array.dtype != expected:
            advice = f". {FLOAT64_ADVICE}" if expected == np.float64 and array.dtype.kind == "f" else ""
            raise GuardError(
                f"output {output.name} is {array.dtype} in torch {_short(dtype)}, declared is {output.dtype}{advice}"
            )
        if np.isnan(array).any() if array.dtype.kind == "f" else False:
            raise GuardError(f"case {case.name!r}: torch {_short(dtype)} itself answers NaN in {output.name}")
        arrays[output.name] = array
    shapes = {tensor.name: tensor.shape for tensor in inputs} | {tensor.name: tensor.shape for tensor in outputs}
    try:
        bind_sizes(shapes, {**case.inputs, **arrays})
    except ValueError as error:
        raise GuardError(f"case {case.name!r}: {error}") from error
    return arrays


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _about_dtype(message: str) -> bool:
    return any(word in message.lower() for word in ("double", "float", "dtype", "scalar type"))


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def float_outputs(outputs: Sequence[Output]) -> tuple[Output, ...]:
    """The outputs that have a tolerance: those of a float type which are not to be exactly equal."""
    return tuple(output for output in outputs if np.dtype(output.dtype).kind == "f" and output.decision != "exact")
