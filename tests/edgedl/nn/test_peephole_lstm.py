"""The LSTM with peepholes: torch's without them, the paper's equations with them, one ONNX operator in the graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgedl.tasks.gradients.peephole_lstm import PeepholeLSTM
from exporters import recurrent_operators
from exporters.errors import ParityError
from exporters.export import export_model
from exporters.spec import Input, Output

DECLARED = {
    "inputs": [Input("x", "float32", ("B", "T", 3)), Input("h0", "float32", (1, "B", 5)),
               Input("c0", "float32", (1, "B", 5))],
    "outputs": [Output("y", "float32", ("B", "T", 5)), Output("hn", "float32", (1, "B", 5)),
                Output("cn", "float32", (1, "B", 5))],
}  # fmt: skip


def network() -> PeepholeLSTM:
    torch.manual_seed(0)
    made = PeepholeLSTM(3, 5)
    with torch.no_grad():
        made.peepholes.normal_()  # each its own, and large enough to matter
    return made.eval()


def drawn(rows: int, steps: int) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(size, dtype=torch.float64) for size in ((rows, steps, 3), (1, rows, 5), (1, rows, 5))]


def test_without_peepholes_it_is_the_lstm_of_torch():
    own, torchs = network().double(), nn.LSTM(3, 5, batch_first=True).double()
    with torch.no_grad():
        own.peepholes.zero_()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(own, name).copy_(getattr(torchs, f"{name}_l0"))
    x, h0, c0 = drawn(4, 20)
    expected, (hn, cn) = torchs(x, (h0, c0))
    for found, wanted in zip(own(x, h0, c0), (expected, hn, cn), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-14)


def by_the_paper(own: PeepholeLSTM, x, h0, c0):
    """One number after the other, as Gers, Schraudolph and Schmidhuber write it."""
    w, r, b1, b2, p = (parameter.detach().double().numpy() for parameter in own.parameters())

    def sigma(value):
        return 1 / (1 + np.exp(-value))

    y = np.zeros((*x.shape[:2], 5))
    h, c = h0[0].numpy().copy(), c0[0].numpy().copy()
    for row in range(x.shape[0]):
        for t in range(x.shape[1]):
            net = w @ x[row, t].numpy() + r @ h[row] + b1 + b2
            for unit in range(5):
                i, f, g, o = (net[gate * 5 + unit] for gate in range(4))
                before = c[row, unit]
                c[row, unit] = sigma(f + p[1, unit] * before) * before + sigma(i + p[0, unit] * before) * np.tanh(g)
                h[row, unit] = sigma(o + p[2, unit] * c[row, unit]) * np.tanh(c[row, unit])
            y[row, t] = h[row]
    return y, h[None], c[None]


def test_it_is_the_papers_equations():
    own = network().double()
    x, h0, c0 = drawn(2, 9)
    for found, wanted in zip(own(x, h0, c0), by_the_paper(own, x, h0, c0), strict=True):
        np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=0, atol=1e-14)


def test_what_is_seen_inside_is_what_it_does():
    own = network().double()
    x, h0, c0 = drawn(2, 9)
    inside, (y, _, cn) = own.blocks(x, h0, c0), own(x, h0, c0)
    torch.testing.assert_close(inside["hidden"], y, rtol=0, atol=1e-14)
    torch.testing.assert_close(inside["cell"][:, -1], cn[0], rtol=0, atol=1e-14)
    torch.testing.assert_close(inside["output"] * inside["cell"].tanh(), y, rtol=0, atol=1e-14)


def test_one_operator_passes_the_gate_and_sees_every_weight():
    model = export_model(network(), **DECLARED)
    assert model.report
    assert not model.report.vacuous
    assert model.report.operators["LSTM"] == 1
    assert model.report.operators.get("Scan", 0) == 0
    assert "peepholes" in {mutant.layer for mutant in model.report.mutants}
    (node,) = [node for node in onnx.load_from_string(model.graph).graph.node if node.op_type == "LSTM"]
    assert len(node.input) == 8
    assert node.input[7]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=["i, f, o", "o, i, f"])
def test_peepholes_in_another_order_are_caught(monkeypatch, order):
    monkeypatch.setattr(recurrent_operators, "PEEPHOLES", order)
    with pytest.raises(ParityError):
        export_model(network(), **DECLARED)
