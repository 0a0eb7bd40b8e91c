"""What torch assumed about sizes, and the sizes on both sides of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exporters.calling import Call, flatten
from exporters.size_guards import size_guards, sizes_to_try
from exporters.spec import Input, Output, Signature


class Op(nn.Module):
    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.table = function, nn.Parameter(torch.ones(64, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def branch(_: nn.Module, x: Tensor) -> Tensor:
    return x * 2 if x.shape[1] < 200 else x.mean(1, keepdim=True).expand_as(x)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda _, x: x * 2, {"N": (), "T": ()}),
        (branch, {"N": (), "T": (199, 200)}),
        (lambda m, x: x + m.table[: x.shape[1]], {"N": (), "T": (64, 65)}),
        (lambda _, x: x[:, : min(100, x.shape[1])], {"N": (), "T": (100, 101)}),
        (lambda _, x: x if x.shape[0] * x.shape[1] <= 1000 else -x, {"N": (83, 84), "T": (200, 201)}),
        (lambda _, x: x if x.shape[1] != 77 else -x, {"N": (), "T": (76, 77, 78)}),
        (lambda _, x: F.pad(x, (0, 0, 0, 3)) if x.shape[0] < 9 else x, {"N": (8, 9), "T": ()}),
    ],
    ids=["none", "branch", "table", "min", "product", "one size", "batch"],
)
def test_both_sides_of_every_comparison_are_found(function, found) -> None:
    inputs = [Input("x", "float32", ("N", "T", 8))]
    flat = flatten(Op(function), Signature(inputs, [Output("y", "float32", ("N", "U", 8))]), Call(("x",)))
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        flat, (torch.ones(5, 12, 8),), dynamic_shapes=({0: dynamic, 1: dynamic},), strict=False
    )
    guards = size_guards(program, inputs)
    assert sizes_to_try(guards, {"N": 5, "T": 12}, {}) == found
    assert sizes_to_try(guards, {"N": 5, "T": 12}, {"N": (1, 6), "T": (1, 50)}) == {"N": (), "T": ()}


def test_a_guard_tells_the_users_line() -> None:
    inputs = [Input("x", "float32", ("N", "T", 8))]
    flat = flatten(Op(branch), Signature(inputs, [Output("y", "float32", ("N", "T", 8))]), Call(("x",)))
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        flat, (torch.ones(5, 12, 8),), dynamic_shapes=({0: dynamic, 1: dynamic},), strict=False
    )
    (guard,) = size_guards(program, inputs)
    assert guard.text == "T < 200"
    assert guard.place.startswith("test_size_guards.py:")
    assert guard.place.endswith(" in branch")
    assert guard.holds({"N": 1, "T": 199})
    assert not guard.holds({"N": 1, "T": 200})
