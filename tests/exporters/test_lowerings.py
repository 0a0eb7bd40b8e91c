"""Each operator in ONNX Runtime against torch in float64, on numbers and sizes that were chosen against it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from exporters.lowerings import functions
from tests.exporters import operators_of_arrays, operators_of_images, operators_of_numbers
from tests.exporters.operator_groups import Answer, Group, answers, excess

# What torch says of its own operators on these inputs.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:(var|std)(_mean)?\(\). degrees of freedom is <= 0"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
    pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid"),
    pytest.mark.filterwarnings("ignore:Default grid_sample and affine_grid behavior"),
]

GROUPS: dict[str, Group] = operators_of_numbers.GROUPS | operators_of_arrays.GROUPS | operators_of_images.GROUPS


@cache
def group_answers(name: str) -> dict[str, list[Answer]]:
    return answers(GROUPS[name])


@pytest.mark.parametrize(
    ("group", "operator"),
    [
        pytest.param(
            name,
            operator,
            marks=[pytest.mark.xdist_group(f"lowerings {name}"), *([pytest.mark.slow] if group.slow else [])],
        )
        for name, group in GROUPS.items()
        for operator in group.operators
    ],
    ids=lambda value: str(value),
)
def test_an_operator_answers_as_torch_does(group: str, operator: str) -> None:
    declared = GROUPS[group]
    share = (declared.floors or {}).get(operator, 0.0)
    floor = np.abs(np.nan_to_num(declared.cases[0][0])) * share if share else 0.0
    found = group_answers(group)[operator]
    assert len(found) >= 2 * len(declared.cases)
    assert max(excess(answer, declared.whole, floor) for answer in found) <= 1


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 1, 1), (1, 2, 4, 5), (3, 1, 1, 6)])
def test_a_grid_of_places_is_torchs(size: tuple[int, ...], align_corners: bool) -> None:
    theta = torch.randn(size[0], 2, 3, dtype=torch.float64)
    expected = F.affine_grid(theta, list(size), align_corners=align_corners)
    torch.testing.assert_close(functions.affine_grid(theta, size, align_corners), expected)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 0])
def test_bags_of_equal_length_are_torchs(mode: str, padding: int | None) -> None:
    weight = torch.randn(5, 3, dtype=torch.float64)
    ids = torch.tensor([[0, 0, 0], [1, 0, 4], [2, 2, 3]])
    expected = F.embedding_bag(ids, weight, mode=mode, padding_idx=padding)
    torch.testing.assert_close(functions.embedding_bag(ids, weight, mode=mode, padding_idx=padding), expected)
