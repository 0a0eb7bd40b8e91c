"""The cells against torch's own, and what the rows of a clip may share."""

import pytest
import torch
from torch import nn

from edgedl.tasks.caption.network.cells import GRUCell, LSTMCell, cell_of


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_lstm_equals_torchs() -> None:
    ours, theirs = LSTMCell(5, 7).double(), nn.LSTMCell(5, 7).double()
    with torch.no_grad():
        ours.gates.weight.copy_(torch.cat([theirs.weight_ih, theirs.weight_hh], dim=1))
        ours.gates.bias.copy_(theirs.bias_ih + theirs.bias_hh)
    x, h, c = torch.randn(6, 5).double(), torch.randn(6, 7).double(), torch.randn(6, 7).double()
    for found, expected in zip(ours(x, (h, c)), theirs(x, (h, c)), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


def test_gru_equals_torchs() -> None:
    ours, theirs = GRUCell(5, 7).double(), nn.GRUCell(5, 7).double()
    with torch.no_grad():
        ours.from_inputs.weight.copy_(theirs.weight_ih)
        ours.from_inputs.bias.copy_(theirs.bias_ih)
        ours.from_hidden.weight.copy_(theirs.weight_hh)
        ours.from_hidden.bias.copy_(theirs.bias_hh)
    x, h = torch.randn(6, 5).double(), torch.randn(6, 7).double()
    torch.testing.assert_close(ours(x, (h,))[0], theirs(x, h), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_extra_is_an_input_multiplied_beforehand(name: str) -> None:
    """[x, v] through one matrix equals x through its part and v through the rest, added as `extra`."""
    whole, part = cell_of(name, 5, 4).double(), cell_of(name, 3, 4).double()
    weight = (whole.gates if isinstance(whole, LSTMCell) else whole.from_inputs).weight
    with torch.no_grad():
        if isinstance(whole, LSTMCell) and isinstance(part, LSTMCell):
            part.gates.weight.copy_(torch.cat([weight[:, :3], weight[:, 5:]], dim=1))
            part.gates.bias.copy_(whole.gates.bias)
        elif isinstance(whole, GRUCell) and isinstance(part, GRUCell):
            part.load_state_dict(whole.state_dict() | {"from_inputs.weight": weight[:, :3]})
    x, v = torch.randn(2, 3, 3).double(), torch.randn(2, 1, 2).double()
    state = tuple(torch.randn(2, 3, 4).double() for _ in range(whole.states))
    expected = whole(torch.cat([x, v.expand(2, 3, 2)], dim=-1), state)
    for found, wanted in zip(part(x, state, v @ weight[:, 3:5].T), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)


def test_the_memory_cell_begins_by_keeping() -> None:
    gates = LSTMCell(2, 3).gates
    assert gates.bias[3:6].tolist() == [1, 1, 1]
    assert gates.bias[:3].tolist() == gates.bias[6:9].tolist() == [0, 0, 0]
