"""Networks as people write them, exported and judged without the exporter: the graph in ONNX Runtime against torch."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from exporters.convert import convert, rename_axes
from exporters.errors import GuardError
from exporters.execute import LEVELS, open_graph
from exporters.graphs import operators
from exporters.guards import check_graph
from exporters.parity import NOISE_MARGIN
from exporters.spec import Input, Output, Signature
from tests.exporters.recurrent_cases import ARRAYS, CASES, WORDS, Case, Together, draw

# torch says so of its own reference
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

EXAMPLE = {"B": 3, "T": 7, "S": 11}
SIZES = tuple(
    {"B": b, "T": t, "S": s}
    for (b, t), s in zip(itertools.product((1, 2, 5), (1, 2, 3, 7, 33, 64)), itertools.cycle((1, 2, 5, 12)))
)
TOGETHER = 6
"""How many cases are exported at a time: an export takes a second, whatever is in it."""


def grouped(cases: Sequence[Case]) -> list[tuple[Case, ...]]:
    """Cases of the same inputs in groups."""
    by_needs: dict[tuple[str, ...], list[Case]] = {}
    for one in cases:
        by_needs.setdefault(one.needs, []).append(one)
    return [
        tuple(found[start : start + TOGETHER])
        for found in by_needs.values()
        for start in range(0, len(found), TOGETHER)
    ]


TAKEN = [one for one in CASES if one.refused is None]
GROUPS = [
    *(pytest.param(group, id="-".join(map(str, group))) for group in grouped([one for one in TAKEN if one.quick])),
    *(
        pytest.param(group, id="-".join(map(str, group)), marks=pytest.mark.slow)
        for group in grouped([one for one in TAKEN if not one.quick])
    ),
]


@contextmanager
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def answers(network: nn.Module, arrays: dict[str, NDArray[Any]], dtype: torch.dtype) -> list[NDArray[Any]]:
    """What torch itself answers."""
    given = [torch.from_numpy(array) for array in arrays.values()]
    with torch.no_grad():
        found = network(*(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in given))
    return [tensor.numpy() for tensor in found]


def arrays_of(network: Together, sizes: dict[str, int], seed: int = 0) -> dict[str, NDArray[Any]]:
    chance = np.random.default_rng([seed, *sizes.values()])
    return {name: draw(name, sizes, chance) for name in network.needs}


def converted(network: Together) -> Any:
    """The graph, checked as the gate does; names of sizes are found by asking torch at two of them."""
    inputs = [Input(name, *ARRAYS[name], limits=(0, WORDS - 1) if name == "tokens" else None) for name in network.needs]
    small, large = (answers(network, arrays_of(network, sizes), torch.float32) for sizes in (EXAMPLE, SIZES[-1]))
    outputs = [
        Output(
            f"y{number}",
            one.dtype.name,
            tuple(
                n if n == m else next((k for k in EXAMPLE if (EXAMPLE[k], SIZES[-1][k]) == (n, m)), f"D{number}{axis}")
                for axis, (n, m) in enumerate(zip(one.shape, other.shape, strict=True))
            ),
        )
        for number, (one, other) in enumerate(zip(small, large, strict=True))
    ]
    signature = Signature(inputs, outputs)
    model = convert(network, arrays_of(network, EXAMPLE), signature, 18).model
    rename_axes(model, signature)
    check_graph(model, signature, 18)
    return model


@pytest.mark.parametrize("group", GROUPS)
def test_equals_torch_at_sizes_that_were_not_traced(group: tuple[Case, ...]) -> None:
    network = Together(group).eval().requires_grad_(False)
    single, double = copy.deepcopy(network), copy.deepcopy(network).double()
    model = converted(network)
    assert operators(model)["Loop"] == 0
    sessions = [open_graph(model.SerializeToString(), level) for level in LEVELS]
    ran = 0
    for sizes in SIZES:
        arrays = arrays_of(network, sizes, 1)
        try:
            rounded = answers(single, arrays, torch.float32)
            with in_float64():
                truth = answers(double, arrays, torch.float64)
        except (IndexError, RuntimeError):  # too short for what forward does
            continue
        ran += 1
        found = [session.run(None, arrays) for session in sessions]
        for number, (exact, near) in enumerate(zip(truth, rounded, strict=True)):
            size = np.abs(exact).max(initial=0.0)
            noise = max(float(np.abs(near - exact).max(initial=0.0)), float(np.spacing(np.float32(size))))
            for answer in found:
                assert answer[number].shape == exact.shape
                off = np.abs(answer[number].astype(np.float64) - exact).max(initial=0.0)
                allowed = 0 if exact.dtype.kind != "f" else NOISE_MARGIN * noise
                assert off <= allowed, f"output {number} at {sizes}: {off:.1e} of {allowed:.1e}"
    assert ran >= 12


@pytest.mark.parametrize("one", [one for one in CASES if one.refused is not None], ids=str)
def test_is_refused_with_the_line_and_the_reason(one: Case) -> None:
    with pytest.raises(GuardError, match=rf"recurrent_cases\.py:\d+.*({one.refused})"):
        converted(Together([one]).eval().requires_grad_(False))
