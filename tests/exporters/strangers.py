"""A judge of exports that knows nothing of the exporter.

It calls the plain module, case by case in a fresh copy, and compares what the engine answers at sizes of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporters.errors import ExportError
from exporters.export import export_model
from exporters.spec import Input, Output
from runtime.engine import Engine

ROWS, SERIES, PICTURE = ("N", 8), ("N", "T", 8), ("N", 3, "H", "W")
NOISE = 2e-5


@dataclass(frozen=True)
class Stranger:
    """A module, what is declared of it, and what should come of it."""

    module: nn.Module
    inputs: list[Input]
    outputs: list[Output]
    refused: str | None = None
    sizes: tuple[dict[str, int], ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    eager: Callable[..., Any] | None = None


Make = Callable[[], Stranger]


def collection() -> tuple[dict[str, Make], Callable[[Make], Make]]:
    """An empty collection of strangers and the decorator that adds to it."""
    found: dict[str, Make] = {}

    def stranger(make: Make) -> Make:
        found[make.__name__] = make
        return make

    return found, stranger


def names(modules: Mapping[str, Make], *slow: str) -> list[Any]:
    """The names of a collection as parameters. Those that take seconds, and have a relative that does not, are slow."""
    assert modules.keys() >= set(slow)
    return [pytest.param(name, marks=[pytest.mark.slow] if name in slow else []) for name in modules]


def x(shape: tuple, name: str = "x", dtype: str = "float32", **more: Any) -> Input:
    return Input(name, dtype, shape, **more)


def y(shape: tuple, name: str = "y", dtype: str = "float32", **more: Any) -> Output:
    return Output(name, dtype, shape, **more)


def net(forward: Callable[..., Any], **parts: nn.Module) -> nn.Module:
    """A module with parts, whose forward has the parameters of a function behind the first."""
    module = type("Net", (nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        setattr(module, name, part)
    return module.eval()


def drawn(one: Stranger, sizes: dict[str, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
    feed = {}
    for tensor in one.inputs:
        shape = [sizes.get(size, size) if isinstance(size, str) else size for size in tensor.shape]
        if tensor.dtype == "bool":
            feed[tensor.name] = rng.random(shape) < 0.3
            feed[tensor.name][..., 0] = False
        elif not tensor.dtype.startswith("float"):
            low, high = tensor.limits or ((0, 255) if tensor.dtype == "uint8" else (0, 1))
            feed[tensor.name] = rng.integers(int(low), int(high), shape, endpoint=True).astype(tensor.dtype)
        elif tensor.limits is not None:
            feed[tensor.name] = rng.uniform(*tensor.limits, shape).astype(tensor.dtype)
        else:
            feed[tensor.name] = rng.standard_normal(shape).astype(tensor.dtype)
    return feed


def judge(one: Stranger, engine: Engine, sizes: dict[str, int], seed: int) -> None:
    """The engine's answers against the module's, at sizes of the judge's own."""
    feed = drawn(one, sizes, np.random.default_rng(seed))
    module = copy.deepcopy(one.module)
    arguments = [torch.from_numpy(feed[tensor.name]) for tensor in one.inputs]
    with torch.no_grad():
        returned = one.eager(module, *arguments) if one.eager else module(*arguments)
    leaves = (
        [returned[o.name] for o in one.outputs]
        if isinstance(returned, dict)
        else torch.utils._pytree.tree_leaves(returned)
    )
    answers = engine.run(feed)
    for output, expected in zip(one.outputs, [leaf for leaf in leaves if leaf is not None], strict=True):
        np.testing.assert_allclose(
            answers[output.name],
            expected.numpy(),
            rtol=NOISE,
            atol=NOISE * float(expected.double().abs().max()),
            err_msg=str(sizes),
        )


def check(make: Make) -> None:
    """Right at every size that is judged, or refused for the true cause."""
    torch.manual_seed(1)
    one = make()
    if one.refused is not None:
        with pytest.raises(ExportError, match=f"(?s){one.refused}"):
            export_model(one.module, inputs=one.inputs, outputs=one.outputs, **one.options)
        return
    model = export_model(one.module, inputs=one.inputs, outputs=one.outputs, **one.options)
    engine = Engine(model.graph, threads=1)
    for seed, sizes in enumerate(one.sizes or ({"N": 1, "T": 1, "H": 9, "W": 7}, {"N": 3, "T": 19, "H": 20, "W": 33})):
        judge(one, engine, sizes, seed)
