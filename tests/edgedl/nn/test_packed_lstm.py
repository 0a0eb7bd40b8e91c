"""The packed layer against ``nn.LSTM`` and ``LSTMCell``, its gradient against finite differences."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgedl.tasks.caption.network.cells import LSTMCell
from edgedl.tasks.caption.network.packed_lstm import Packing, packed_lstm

LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=6).filter(any)


@given(lengths=LENGTHS)
def test_every_word_lies_once_and_captions_that_go_on_are_the_first_rows(lengths: list[int]) -> None:
    packing = Packing.of(torch.tensor(lengths))
    words = list(zip(packing.rows.tolist(), packing.times.tolist(), strict=True))
    assert sorted(words) == [(row, time) for row, length in enumerate(lengths) for time in range(length)]
    assert list(packing.sizes) == [sum(length > time for length in lengths) for time in range(max(lengths))]
    steps = [[row for row, time in words if time == step] for step in range(max(lengths))]
    assert all(later == earlier[: len(later)] for earlier, later in pairwise(steps))


@given(lengths=LENGTHS)
@settings(max_examples=25, deadline=None)
def test_it_is_the_layer_of_torch(lengths: list[int]) -> None:
    torch.manual_seed(sum(lengths))
    layer = nn.LSTM(3, 5, batch_first=True).double()
    inputs = torch.randn(len(lengths), 6, 3).double().requires_grad_()
    packing = Packing.of(torch.tensor(lengths))
    wanted = layer(inputs)[0][packing.rows, packing.times]
    shares = inputs @ layer.weight_ih_l0.t() + layer.bias_ih_l0 + layer.bias_hh_l0
    found = packed_lstm(shares[packing.rows, packing.times], layer.weight_hh_l0, packing)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    weights = torch.randn_like(found)
    of = (inputs, *layer.parameters())
    gradient = torch.autograd.grad((found * weights).sum(), of, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad((wanted * weights).sum(), of), rtol=0, atol=1e-12)


def test_its_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    packing = Packing.of(torch.tensor([3, 1, 0, 4]))
    shares = torch.randn(8, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(12, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: packed_lstm(a, b, packing), (shares, weight))


def test_its_gates_stand_where_those_of_the_cell_do() -> None:
    torch.manual_seed(0)
    cell = LSTMCell(3, 5).double()
    inputs = torch.randn(2, 4, 3).double()
    packing = Packing.of(torch.tensor([4, 4]))
    state = (torch.zeros(2, 5).double(), torch.zeros(2, 5).double())
    steps = []
    for time in range(4):
        state = cell(inputs[:, time], state)
        steps.append(state[0])
    weight = cell.gates.weight
    shares = inputs @ weight[:, :3].t() + cell.gates.bias
    found = packed_lstm(shares[packing.rows, packing.times], weight[:, 3:], packing)
    torch.testing.assert_close(found, torch.cat(steps), rtol=0, atol=1e-12)


@pytest.mark.parametrize("given_as", [torch.bfloat16, torch.float32])
def test_under_autocast_it_computes_in_the_precision_of_its_weights(given_as: torch.dtype) -> None:
    torch.manual_seed(0)
    packing = Packing.of(torch.tensor([5, 2]))
    shares = torch.randn(7, 12).to(given_as).requires_grad_()
    weight = torch.randn(12, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = packed_lstm(shares, weight, packing)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, packed_lstm(shares.float(), weight, packing), rtol=0, atol=0)
    found.sum().backward()
    assert shares.grad is not None
    assert shares.grad.dtype == given_as
