"""What is left of the first input: closed formulas, autograd the other way round, and gates that are exactly 0 or 1."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.tasks.gradients.sensitivity import (
    block_sensitivity,
    driven_block,
    input_sensitivity,
    networks_sensitivity,
    run_block,
)
from edgedl.tasks.gradients.sensitivity_figure import (
    FORGET_AT,
    SHOWN_AT,
    gradients_figure,
    measure_block,
    measure_networks,
    save_gradients,
)
from exporters.recurrent import over_time


def test_an_elmans_is_the_product_of_w_times_one_minus_h_squared():
    torch.manual_seed(0)
    cell = nn.RNNCell(1, 1).double().requires_grad_(False)
    x = torch.randn(40, 1, dtype=torch.float64)
    zero = x.new_zeros(1, 1)
    found = input_sensitivity(lambda given: over_time(cell, given[:, None], (zero,))[0][:, 0], x)
    h, expected, hidden = 0.0, [], []
    for value in x[:, 0].tolist():
        h = np.tanh(
            cell.weight_ih.item() * value + cell.weight_hh.item() * h + cell.bias_ih.item() + cell.bias_hh.item()
        )
        hidden.append(h)
    for t in range(40):
        factors = [cell.weight_hh.item() * (1 - h**2) for h in hidden[1 : t + 1]]
        expected.append(abs(cell.weight_ih.item() * (1 - hidden[0] ** 2) * np.prod(factors)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_forward_differentiation_gives_what_back_propagation_gives(kind):
    torch.manual_seed(3)
    layer = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[kind](2, 4)
    cell = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}[kind](2, 4)
    torch.manual_seed(3)
    cell = type(cell)(2, 4).double()  # as networks_sensitivity draws it
    x = torch.randn(9, 2, dtype=torch.float64)
    layer = layer.double()
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(layer, f"{name}_l0").data.copy_(getattr(cell, name))
    jacobian = torch.autograd.functional.jacobian(lambda first: layer(torch.cat([first[None], x[1:]]))[0], x[0])
    expected = jacobian.square().sum(dim=(1, 2)).sqrt()
    (found,) = networks_sensitivity(kind, 2, 4, 9, seeds=(3,))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


def test_a_memory_block_keeps_the_gradient_at_exactly_one():
    """In at the first step, kept for 500, and shown: nothing is lost, to the last bit."""
    given = torch.zeros(500, 4, dtype=torch.float64)
    given[0, 1], given[1:, 2], given[:, 3] = 1, 1, 1
    block = driven_block()
    inside = run_block(block, given)
    assert torch.equal(inside["input"], given[:, 1])
    assert torch.equal(inside["forget"], given[:, 2])
    assert torch.equal(inside["output"], given[:, 3])
    for part in ("cell", "hidden"):
        assert torch.equal(block_sensitivity(block, given, part), torch.ones(500, dtype=torch.float64))


def test_a_kept_value_is_not_disturbed_by_what_comes_later():
    given = torch.zeros(50, 4, dtype=torch.float64)
    given[:, 0] = torch.linspace(-1, 1, 50)
    given[0, 1], given[1:, 2], given[:, 3] = 1, 1, 1
    hidden = run_block(driven_block(), given)["hidden"]
    assert torch.equal(hidden, hidden[:1].expand(50))


def test_the_drawn_block_shows_forgets_and_hides():
    block = measure_block()
    shown = np.isin(np.arange(len(block["|dh_t/dx_1|"])), SHOWN_AT)
    np.testing.assert_array_equal(block["|dh_t/dx_1|"], shown.astype(float))
    np.testing.assert_array_equal(block["|dc_t/dx_1|"], (np.arange(len(shown)) < FORGET_AT).astype(float))


def test_gates_that_keep_hold_the_gradient_longer():
    found = {label: np.median(rows[:, -1]) for label, rows in measure_networks(3).items()}
    assert found["RNN"] < 1e-6
    assert found["LSTM, forget bias +5"] > 1e3 * found["LSTM"]
    assert found["GRU, update bias +5"] > 1e3 * found["GRU"]


def test_the_figure_and_its_tables_say_the_same(tmp_path):
    picture, table, block = save_gradients(tmp_path / "gradients.png", seeds=2)
    assert picture.read_bytes().startswith(b"\x89PNG")
    networks = measure_networks(2)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    middle = [float(row["LSTM 50 %"]) for row in rows]
    np.testing.assert_allclose(middle, np.median(networks["LSTM"], axis=0), rtol=1e-7)
    with block.open() as file:
        gates = [float(row["output gate"]) for row in csv.DictReader(file)]
    assert [step for step, gate in enumerate(gates) if gate] == list(SHOWN_AT)
    above, below, *_ = gradients_figure(networks, measure_block()).axes
    assert (above.get_xlabel(), below.get_xlabel()) == ("t (steps)", "t (steps)")
    assert len(above.lines) == len(networks)
    np.testing.assert_allclose(above.lines[2].get_ydata(), np.median(networks["LSTM"], axis=0))
