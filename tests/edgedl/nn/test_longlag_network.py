"""The networks of long time lags: rows of unequal length, counted weights, and the memory that each begins with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from edgedl.tasks.longlag.config import NETWORKS, units_within, weight_count
from edgedl.tasks.longlag.data import PROBLEMS, draw_sequences
from edgedl.tasks.longlag.network import LagNetwork, chrono_initialise
from edgedl.tasks.longlag.objective import LagBatches, LagLearning
from edgedl.tasks.longlag.orthogonal import OrthogonalRNN
from runtime.errors import InputError


def drawn_tensors(problem: str, rows: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = draw_sequences(problem, rows, split="val")
    lengths = drawn.lengths - np.arange(rows)  # unequal, also of digits
    return torch.from_numpy(drawn.inputs), torch.from_numpy(lengths)


@pytest.fixture
def network(request) -> LagNetwork:
    torch.manual_seed(1)
    return LagNetwork(*request.param, 7, 30).double()


PACKED = [kind for kind in NETWORKS if kind != "orthogonal"]


@pytest.mark.parametrize("network", [("adding", kind) for kind in PACKED], indirect=True, ids=PACKED)
def test_a_row_is_answered_at_its_end_as_a_packed_sequence_is(network):
    inputs, lengths = drawn_tensors("adding")
    packed = pack_padded_sequence(inputs.double(), lengths, batch_first=True, enforce_sorted=False)
    final = network.recurrent(packed)[1]
    final = final[0] if isinstance(final, tuple) else final  # (1, B, H)
    expected = network.readout(final[0])[:, 0]
    torch.testing.assert_close(network.logits(inputs.double(), lengths), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(network(inputs.double(), lengths), 4 * (expected - 0.5), rtol=0, atol=1e-13)


@pytest.mark.parametrize("network", [("order", kind) for kind in NETWORKS], indirect=True, ids=NETWORKS)
def test_what_comes_after_the_end_of_a_row_changes_nothing(network):
    inputs, lengths = drawn_tensors("order")
    answered = network(inputs, lengths)[1]
    other = inputs.clone()
    for row, end in enumerate(lengths.tolist()):
        other[row, end:] = 7
    assert not torch.equal(inputs, other)
    assert torch.equal(network(other, lengths)[1], answered)
    assert not torch.equal(network(other, torch.full_like(lengths, inputs.shape[1]))[1], answered)


@pytest.mark.parametrize(
    ("network", "problem"), [((name, "gru"), name) for name in ("copy", "order", "digits")], indirect=["network"],
    ids=("copy", "order", "digits"),
)  # fmt: skip
def test_symbols_are_one_hot_and_pixels_shares(network, problem):
    inputs, lengths = drawn_tensors(problem)
    if problem == "digits":
        encoded = inputs.double().unsqueeze(-1) / 255
    else:
        encoded = torch.nn.functional.one_hot(inputs, PROBLEMS[problem].features).double()
    hidden = network.recurrent(encoded)[0]
    if problem != "copy":
        hidden = torch.stack([row[end - 1] for row, end in zip(hidden, lengths.tolist(), strict=True)])
    found, probabilities = network(inputs) if problem == "copy" else network(inputs, lengths)
    torch.testing.assert_close(probabilities, network.readout(hidden).softmax(-1), rtol=0, atol=1e-14)
    assert torch.equal(found, probabilities.argmax(-1))


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_weights_are_counted_and_the_budget_is_kept(problem, kind):
    network = LagNetwork(problem, kind, 9, 30)
    assert weight_count(problem, kind, 9) == sum(parameter.numel() for parameter in network.parameters())
    budget = weight_count(problem, "lstm", 32)
    units = units_within(problem, kind, budget)
    assert weight_count(problem, kind, units) <= budget < weight_count(problem, kind, units + 1)
    assert weight_count(problem, kind, units) > 0.95 * budget


def test_the_memories_of_an_lstm_last_from_1_to_all_steps():
    """A gate σ(log u) keeps the share u/(1 + u) of a memory each step, and chrono draws u evenly from [1, span - 1]."""
    torch.manual_seed(0)
    layer, hidden = nn.LSTM(1, 1000), 1000
    chrono_initialise(layer, 101)
    total = (layer.bias_ih_l0 + layer.bias_hh_l0).detach()
    shut, keep = total[:hidden].sigmoid(), total[hidden : 2 * hidden].sigmoid()
    torch.testing.assert_close(shut, 1 - keep)
    lasts = keep / (1 - keep)
    assert (lasts.min(), lasts.max()) == (pytest.approx(1, abs=0.5), pytest.approx(100, abs=0.5))
    assert lasts.mean().item() == pytest.approx(50.5, abs=3)
    assert lasts.std().item() == pytest.approx(99 / 12**0.5, abs=2)
    assert total[2 * hidden :].abs().max() < 2 / hidden**0.5  # the other gates are torch's


def test_a_gru_keeps_by_its_update_gate_and_an_elman_network_is_left_alone():
    torch.manual_seed(0)
    gru, hidden = nn.GRU(1, 300), 300
    untouched = gru.bias_ih_l0.clone()
    chrono_initialise(gru, 101)
    keep = (gru.bias_ih_l0 + gru.bias_hh_l0)[hidden : 2 * hidden].sigmoid()  # of h in h' = (1 - z)·n + z·h
    assert 0.5 <= keep.min() < 0.8
    assert 0.98 < keep.max() <= 100 / 101
    assert torch.equal(gru.bias_ih_l0[:hidden], untouched[:hidden])
    elman = nn.RNN(1, 5)
    before = [parameter.clone() for parameter in elman.parameters()]
    chrono_initialise(elman, 101)
    assert all(torch.equal(one, other) for one, other in zip(before, elman.parameters(), strict=True))


@pytest.mark.parametrize("hidden", [1, 2, 7], ids=["one", "even", "odd"])
def test_an_orthogonal_network_begins_by_passing_on_what_it_holds(hidden):
    """Without a threshold, the hidden units keep the length that the only input gave them."""
    torch.manual_seed(0)
    layer = OrthogonalRNN(3, hidden).double()
    inputs = torch.zeros(2, 500, 3, dtype=torch.float64)
    inputs[:, 0] = torch.randn(2, 3, dtype=torch.float64)
    outputs, last = layer(inputs)
    norms = outputs.norm(dim=-1)
    assert norms.min() > 0
    torch.testing.assert_close(norms, norms[:, :1].expand(-1, 500), rtol=1e-4, atol=0)  # Q is a float32 made float64
    assert torch.equal(last[0], outputs[:, -1])


def test_an_orthogonal_network_shrinks_each_unit_towards_0():
    """A threshold of 0.5 takes as much from each amount. One below 0 adds nothing."""
    layer = OrthogonalRNN(1, 2)
    with torch.no_grad():
        layer.from_inputs.weight.copy_(torch.tensor([[1.0], [-2.0]]))
        layer.threshold.copy_(torch.tensor([0.5, -0.5]))
    found = layer(torch.tensor([[[1.0]], [[0.2]], [[-1.0]]]))[0][:, 0]
    torch.testing.assert_close(found, torch.tensor([[0.5, -2.0], [0.0, -0.4], [-0.5, 2.0]]))


def test_the_matrix_of_an_orthogonal_network_stays_orthogonal_while_it_learns_to_copy():
    torch.manual_seed(0)
    network, learning = LagNetwork("copy", "orthogonal", 64, 25), LagLearning("copy")
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    begun = network.recurrent.recurrent.weight.detach().clone()
    losses = []
    for drawn in LagBatches("copy", 5, 16, 60, seed=0):
        loss = learning.loss(network, {name: torch.as_tensor(column) for name, column in drawn.items()})
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    matrix = network.recurrent.recurrent.weight.detach()
    torch.testing.assert_close(matrix @ matrix.t(), torch.eye(64), rtol=0, atol=1e-5)
    assert (matrix - begun).abs().max() > 0.01
    assert losses[-1] < 0.5 * PROBLEMS["copy"].constant(5)


@pytest.mark.parametrize("names", [("parity", "lstm"), ("adding", "rnn")])
def test_unknown_names_are_refused(names):
    with pytest.raises(InputError, match="unknown"):
        LagNetwork(*names, 4, 30)
