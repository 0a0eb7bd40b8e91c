"""The networks of the gradients task: a recurrent layer of one of four kinds, and one answer a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.tasks.gradients.config import BLOCKS, KINDS
from edgedl.tasks.gradients.peephole_lstm import PeepholeLSTM
from exporters.recurrent import over_time
from runtime.errors import InputError

INPUTS = 3
"""Value, store, recall."""


class RecallNetwork(nn.Module):
    """(B, T, 3) and a state to answers (B, T), a weighted sum of the hidden units, and the next state.

    Args:
        kind: ``rnn`` (Elman's), ``gru``, ``lstm`` or ``peephole``, an LSTM whose gates see the memory cells. The first
            three are torch's, with torch's initial weights.
        hidden: H, the recurrent units.

    Raises:
        InputError: there is no such network.
    """

    def __init__(self, kind: str, hidden: int) -> None:
        super().__init__()
        if kind not in KINDS:
            raise InputError(f"unknown network {kind!r}; there is {', '.join(KINDS)}")
        self.kind = kind
        self.hidden = hidden
        self.recurrent: nn.Module
        if kind == "peephole":
            self.recurrent = PeepholeLSTM(INPUTS, hidden)
        else:
            layer = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[kind]
            self.recurrent = layer(INPUTS, hidden, batch_first=True)
        self.readout = nn.Linear(hidden, 1)

    def initial_state(self, rows: int) -> tuple[Tensor, ...]:
        """Zeros, (1, B, H) each, of the network's own type: hidden units and, of memory blocks, cells."""
        like = self.readout.weight
        return tuple(like.new_zeros(1, rows, self.hidden) for _ in range(2 if self.kind in BLOCKS else 1))

    def forward(self, inputs: Tensor, hidden: Tensor, cell: Tensor | None = None) -> tuple[Tensor, ...]:
        """Answers every step.

        Args:
            inputs: (B, T, 3) value, store, recall.
            hidden: (1, B, H).
            cell: (1, B, H), of memory blocks.

        Returns:
            The answers (B, T), and each part of the state after the last step (1, B, H).
        """
        if self.kind == "peephole":
            outputs, *after = self.recurrent(inputs, hidden, cell)
        else:
            outputs, last = self.recurrent(inputs, hidden if cell is None else (hidden, cell))
            after = list(last) if isinstance(last, tuple) else [last]
        return (self.readout(outputs).squeeze(-1), *after)


class GatedAnswers(nn.Module):
    """An LSTM that also says how far each gate was open: it answers (B, T), then three times (B, T, H), and the state.

    The layer gives its hidden units at every step, and without peepholes the gates depend on nothing but the inputs and
    the hidden units of the step before. So they are one more product for all steps at once, after the one operator
    that runs over time.

    Args:
        network: of the kind ``lstm``.
    """

    def __init__(self, network: RecallNetwork) -> None:
        super().__init__()
        if not isinstance(network.recurrent, nn.LSTM):
            raise InputError(f"the gates of an LSTM can be told from its hidden units, not those of {network.kind!r}")
        self.recurrent = network.recurrent
        self.readout = network.readout

    def forward(self, inputs: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        """Answers every step.

        Args:
            inputs: (B, T, 3) value, store, recall.
            hidden: (1, B, H).
            cell: (1, B, H).

        Returns:
            Answers (B, T); input, forget and output gates (B, T, H), 0 shut to 1 open; the next state, (1, B, H) each.
        """
        layer: Any = self.recurrent  # its weights are not declared
        outputs, (hn, cn) = layer(inputs, (hidden, cell))
        before = torch.cat([hidden.transpose(0, 1), outputs[:, :-1]], dim=1)  # (B, T, H)
        given = F.linear(inputs, layer.weight_ih_l0, layer.bias_ih_l0)
        i, f, _, o = (given + F.linear(before, layer.weight_hh_l0, layer.bias_hh_l0)).chunk(4, dim=-1)
        return self.readout(outputs).squeeze(-1), i.sigmoid(), f.sigmoid(), o.sigmoid(), hn, cn


def memory_blocks(network: RecallNetwork, inputs: Tensor) -> dict[str, Tensor]:
    """What `PeepholeLSTM.blocks` says of a network of memory blocks, from a state of zeros: (B, T, H) each.

    Args:
        network: of one of the kinds in `BLOCKS`.
        inputs: (B, T, 3).

    Raises:
        InputError: it has none.
    """
    return _from_zeros(_blocks(network).to(inputs.dtype), inputs)


def units_over_time(network: RecallNetwork) -> Mapping[str, Callable[[Tensor], Tensor]]:
    """Functions from inputs (B, T, 3) in float64 to units (B, T, H) that can be differentiated forwards.

    torch's layers over time cannot, so their cells are put into a loop.

    Returns:
        ``hidden``, and of memory blocks ``cell``.
    """
    if network.kind in BLOCKS:
        blocks = _blocks(network).double()
        return {
            "hidden": lambda inputs: _from_zeros(blocks, inputs)["hidden"],
            "cell": lambda inputs: _from_zeros(blocks, inputs)["cell"],
        }
    kind = {"rnn": nn.RNNCell, "gru": nn.GRUCell}[network.kind]
    cell = kind(INPUTS, network.hidden).double().requires_grad_(requires_grad=False)
    with torch.no_grad():
        for name, weight in cell.named_parameters():
            weight.copy_(getattr(network.recurrent, f"{name}_l0"))

    def hidden(inputs: Tensor) -> Tensor:
        zeros = inputs.new_zeros(len(inputs), network.hidden)
        return over_time(cell, inputs.transpose(0, 1), (zeros,))[0].transpose(0, 1)

    return {"hidden": hidden}


def _from_zeros(blocks: PeepholeLSTM, inputs: Tensor) -> dict[str, Tensor]:
    zeros = inputs.new_zeros(1, len(inputs), blocks.hidden)
    return blocks.blocks(inputs, zeros, zeros)


def _blocks(network: RecallNetwork) -> PeepholeLSTM:
    """A copy of its memory blocks, which torch's LSTM has without peepholes."""
    layer = network.recurrent
    blocks = PeepholeLSTM(INPUTS, network.hidden).requires_grad_(requires_grad=False)
    if isinstance(layer, PeepholeLSTM):
        blocks.load_state_dict(layer.state_dict())
    elif isinstance(layer, nn.LSTM):
        with torch.no_grad():
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(blocks, name).copy_(getattr(layer, f"{name}_l0"))
            blocks.peepholes.zero_()
    else:
        raise InputError(
            f"a network of the kind {network.kind!r} has no memory blocks; there is {' and '.join(BLOCKS)}"
        )
    return blocks
