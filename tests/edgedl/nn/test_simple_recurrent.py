"""Elman's network is torch's, Jordan's is its three equations; both become one Scan."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.tasks.timer.network import STATES, TimerNetwork
from edgedl.tasks.timer.simple_recurrent import Elman, Jordan
from exporters.export import export_model
from exporters.spec import Input, Output
from runtime.errors import InputError


def test_elman_is_the_rnn_of_torch_gradients_included():
    torch.manual_seed(0)
    own, torchs = Elman(3, 5).double(), nn.RNN(3, 5, batch_first=True).double()
    with torch.no_grad():
        own.from_inputs.weight.copy_(torchs.weight_ih_l0)
        own.from_context.copy_(torchs.weight_hh_l0)
        own.from_inputs.bias.copy_(torchs.bias_ih_l0 + torchs.bias_hh_l0)
    x, h0 = torch.randn(4, 30, 3, dtype=torch.float64), torch.randn(1, 4, 5, dtype=torch.float64)
    y, hn = own(x, h0)
    expected, last = torchs(x, h0)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(hn, last, rtol=0, atol=1e-14)
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(own.from_context.grad, torchs.weight_hh_l0.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(own.from_inputs.weight.grad, torchs.weight_ih_l0.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("self_weight", [0.0, 0.5, 0.9])
def test_jordan_is_its_equations(self_weight):
    torch.manual_seed(1)
    network = Jordan(2, 6, 3, self_weight).double()
    x, s0 = torch.randn(2, 20, 2, dtype=torch.float64), torch.randn(1, 2, 3, dtype=torch.float64)
    y, sn = network(x, s0)
    W, b = (p.detach().numpy() for p in network.from_inputs.parameters())
    U, d = (p.detach().numpy() for p in network.to_outputs.parameters())
    C, s = network.from_context.detach().numpy(), s0[0].numpy()
    for t in range(20):
        out = np.tanh(np.tanh(x[:, t].numpy() @ W.T + s @ C.T + b) @ U.T + d)
        np.testing.assert_allclose(y[:, t].detach().numpy(), out, atol=1e-14)
        s = float(network.self_weight) * s + out
    np.testing.assert_allclose(sn[0].detach().numpy(), s, atol=1e-13)


def test_jordans_context_is_a_fading_sum_of_all_outputs():
    torch.manual_seed(2)
    network = Jordan(2, 6, 3, 0.75)
    x = torch.randn(1, 12, 2)
    y, sn = network(x, torch.zeros(1, 1, 3))
    fading = 0.75 ** torch.arange(11.0, -1, -1)
    torch.testing.assert_close(sn[0, 0], (fading[:, None] * y[0]).sum(0))


@pytest.mark.parametrize("kind", ["elman", "jordan"])
def test_one_scan_in_the_graph(kind):
    torch.manual_seed(3)
    network: nn.Module = Elman(2, 6) if kind == "elman" else Jordan(2, 6, 6, 0.5)
    report = export_model(
        network.eval(),
        inputs=[Input("x", "float32", ("B", "T", 2)), Input("s0", "float32", (1, "B", 6))],
        outputs=[Output("y", "float32", ("B", "T", 6)), Output("sn", "float32", (1, "B", 6))],
    ).report
    assert report
    assert not report.vacuous
    assert report.operators["Scan"] == 1
    assert report.operators["MatMul"] == (2 if kind == "elman" else 3)  # the inputs' once, for all steps


@pytest.mark.parametrize("kind", STATES)
def test_a_sequence_in_pieces_answers_as_a_whole(kind):
    torch.manual_seed(4)
    network = TimerNetwork(kind, 7).double()
    x = torch.randn(3, 11, 2, dtype=torch.float64)
    whole, *last = network(x, *network.initial_state(3))
    state, parts = network.initial_state(3), []
    for piece in x.split((1, 4, 1, 5), dim=1):
        answer, *state = network(piece, *state)
        parts.append(answer)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-14)
    for found, expected in zip(state, last, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match="unknown network 'rnn'; there is elman, jordan, lstm, gru"):
        TimerNetwork("rnn")
