"""Networks that store and recall: torch's layers, gates by the cell's equations, and the gradient by other ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.tasks.gradients.config import BLOCKS, KINDS
from edgedl.tasks.gradients.data import draw_sequences
from edgedl.tasks.gradients.network import GatedAnswers, RecallNetwork, memory_blocks, units_over_time
from edgedl.tasks.gradients.sensitivity import input_sensitivity, unit_sensitivity
from runtime.errors import InputError

STEPS = 9


def network(kind: str, hidden: int = 4) -> RecallNetwork:
    torch.manual_seed(1)
    return RecallNetwork(kind, hidden).double()


def sequences(rows: int = 3, steps: int = STEPS) -> torch.Tensor:
    return torch.from_numpy(draw_sequences(rows, steps=steps).inputs).double()


def hidden_units(own: RecallNetwork, x: torch.Tensor) -> torch.Tensor:
    if own.kind == "peephole":
        return own.recurrent(x, *own.initial_state(len(x)))[0]
    return own.recurrent(x)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_loop_that_is_differentiated_is_the_layer(kind):
    own, x = network(kind), sequences()
    found = units_over_time(own)
    assert set(found) == ({"hidden", "cell"} if kind in BLOCKS else {"hidden"})
    torch.testing.assert_close(found["hidden"](x), hidden_units(own, x), rtol=0, atol=1e-14)
    answers, *state = own(x, *own.initial_state(3))
    torch.testing.assert_close(answers, own.readout(found["hidden"](x)).squeeze(-1), rtol=0, atol=1e-14)
    if kind in BLOCKS:
        torch.testing.assert_close(state[1][0], found["cell"](x)[:, -1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_forward_differentiation_gives_what_back_propagation_gives_row_by_row(kind):
    own, x = network(kind), sequences()
    found = input_sensitivity(units_over_time(own)["hidden"], x)
    each = unit_sensitivity(units_over_time(own)["hidden"], x)
    for row in range(len(x)):
        jacobian = torch.autograd.functional.jacobian(
            lambda first, row=row: hidden_units(own, torch.cat([first[None], x[row, 1:]])[None])[0], x[row, 0]
        )  # (T, H, I)
        torch.testing.assert_close(found[row], jacobian.square().sum(dim=(1, 2)).sqrt(), rtol=1e-10, atol=1e-15)
        torch.testing.assert_close(each[row], jacobian.square().sum(dim=2).sqrt(), rtol=1e-10, atol=1e-15)


def test_cells_are_differentiated_as_differences_say():
    own, x = network("lstm"), sequences(1)
    run, step = units_over_time(own)["cell"], 1e-6
    expected = 0.0
    for index in range(3):
        moved = torch.zeros_like(x)
        moved[0, 0, index] = step
        expected = expected + ((run(x + moved) - run(x - moved)) / (2 * step)).square()
    torch.testing.assert_close(unit_sensitivity(run, x), expected.sqrt(), rtol=1e-6, atol=1e-9)


def test_an_elmans_is_the_product_of_w_times_one_minus_h_squared():
    own, x = network("rnn", 1), sequences(4, 30)
    h = hidden_units(own, x)[..., 0].detach().numpy()
    layer = own.recurrent
    w, u = layer.weight_hh_l0.item(), layer.weight_ih_l0.detach().numpy()
    factors = np.concatenate([np.linalg.norm(u) * (1 - h[:, :1] ** 2), w * (1 - h[:, 1:] ** 2)], axis=1)
    found = input_sensitivity(units_over_time(own)["hidden"], x)
    np.testing.assert_allclose(found.numpy(), np.abs(np.cumprod(factors, axis=1)), rtol=1e-12)


def forced() -> RecallNetwork:
    """One memory block whose gates do what the commands say: in at a store, kept till the next, shown always."""
    own = RecallNetwork("lstm", 1).double().requires_grad_(requires_grad=False)
    layer = own.recurrent
    for parameter in layer.parameters():
        parameter.zero_()
    i, f, g, o = range(4)
    layer.weight_ih_l0[i, 1], layer.bias_ih_l0[i] = 2000, -1000
    layer.weight_ih_l0[f, 1], layer.bias_ih_l0[f] = -2000, 1000
    layer.weight_ih_l0[g, 0], layer.bias_ih_l0[o] = 1, 1000
    return own


def test_forced_gates_keep_the_gradient_at_exactly_one():
    own = forced()
    x = torch.zeros(1, 300, 3, dtype=torch.float64)
    x[0, :, 0] = torch.linspace(0, 1, 300)  # the value that is stored is 0, where tanh has a slope of exactly 1
    x[0, 0, 1] = 1
    left = unit_sensitivity(units_over_time(own)["cell"], x)
    assert torch.equal(left, torch.ones_like(left))
    assert torch.equal(memory_blocks(own, x)["forget"][0, 1:], torch.ones(299, 1, dtype=torch.float64))
    x[0, 200, 1] = 1  # another store forgets the first
    left = unit_sensitivity(units_over_time(own)["cell"], x)[0, :, 0]
    assert torch.equal(left, (torch.arange(300) < 200).double())


def test_gates_are_those_of_the_cells_equations_from_any_state():
    own, x = network("lstm"), sequences()
    torch.manual_seed(2)
    h, c = torch.randn(2, 3, 4, dtype=torch.float64).unbind()
    found = GatedAnswers(own)(x, h[None], c[None])
    cell = nn.LSTMCell(3, 4).double()
    for name, weight in cell.named_parameters():
        weight.data.copy_(getattr(own.recurrent, f"{name}_l0"))
    for t in range(STEPS):
        given = x[:, t] @ cell.weight_ih.t() + cell.bias_ih + h @ cell.weight_hh.t() + cell.bias_hh
        i, f, _, o = given.chunk(4, dim=1)
        h, c = cell(x[:, t], (h, c))
        for gate, wanted in zip(found[1:4], (i, f, o), strict=True):
            torch.testing.assert_close(gate[:, t], wanted.sigmoid(), rtol=0, atol=1e-14)
        torch.testing.assert_close(found[0][:, t], own.readout(h).squeeze(1), rtol=0, atol=1e-14)
    torch.testing.assert_close(found[4][0], h, rtol=0, atol=1e-14)
    torch.testing.assert_close(found[5][0], c, rtol=0, atol=1e-14)


def test_what_a_network_has_not_is_said():
    with pytest.raises(InputError, match="unknown network 'jordan'"):
        RecallNetwork("jordan", 3)
    with pytest.raises(InputError, match="has no memory blocks"):
        memory_blocks(network("gru"), sequences())
    with pytest.raises(InputError, match="not those of 'peephole'"):
        GatedAnswers(network("peephole"))
