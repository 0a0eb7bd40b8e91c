"""The networks of the timer task: a recurrent layer of one of four kinds, and one answer a step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgedl.tasks.timer.simple_recurrent import Elman, Jordan
from runtime.errors import InputError

INPUTS = 2
"""u1 and u2."""
LEFT = 10
"""What a start leaves of what was there: less than one part in so many scales."""


@dataclass(frozen=True, slots=True)
class Carried:
    """A part of the state: its names as an input and as an output of the graph, and what it is."""

    given: str
    left: str
    meaning: str


_HIDDEN = Carried("h0", "hn", "hidden units")
STATES: Mapping[str, tuple[Carried, ...]] = {
    "elman": (_HIDDEN,),
    "jordan": (Carried("s0", "sn", "context units: a fading sum of the outputs"),),
    "lstm": (_HIDDEN, Carried("c0", "cn", "memory cells")),
    "gru": (_HIDDEN,),
}
"""What each network carries from step to step."""


class TimerNetwork(nn.Module):
    """(B, T, 2) and a state to answers (B, T) and the next state.

    The answer is a weighted sum of the hidden units; of a Jordan network, it is the first of its output units.

    Args:
        network: ``elman``, ``jordan``, ``lstm`` or ``gru``.
        hidden: H, the recurrent units; of a Jordan network also its output units.
        self_weight: of a Jordan network's context.

    Raises:
        InputError: there is no such network.
    """

    def __init__(self, network: str = "elman", hidden: int = 32, self_weight: float = 0.5) -> None:
        super().__init__()
        if network not in STATES:
            raise InputError(f"unknown network {network!r}; there is {', '.join(STATES)}")
        self.network = network
        self.hidden = hidden
        self.recurrent: nn.Module
        if network == "elman":
            self.recurrent = Elman(INPUTS, hidden)
        elif network == "jordan":
            self.recurrent = Jordan(INPUTS, hidden, hidden, self_weight)
        else:
            self.recurrent = {"lstm": nn.LSTM, "gru": nn.GRU}[network](INPUTS, hidden, batch_first=True)
        self.readout = None if network == "jordan" else nn.Linear(hidden, 1)

    def initial_state(self, rows: int) -> tuple[Tensor, ...]:
        """Zeros, (1, B, H) each, of the network's own type."""
        like = next(self.parameters())
        return tuple(like.new_zeros(1, rows, self.hidden) for _ in STATES[self.network])

    def forward(self, inputs: Tensor, hidden: Tensor, cell: Tensor | None = None) -> tuple[Tensor, ...]:
        """Answers every step.

        Args:
            inputs: (B, T, 2) u1 and u2.
            hidden: (1, B, H), of a Jordan network its context.
            cell: (1, B, H), of an LSTM.

        Returns:
            The answers (B, T), and each part of the state after the last step (1, B, H).
        """
        outputs, after = self.recurrent(inputs, hidden if cell is None else (hidden, cell))
        answers = outputs[..., 0] if self.readout is None else self.readout(outputs).squeeze(-1)
        return (answers, *after) if isinstance(after, tuple) else (answers, after)


def let_starts_overwrite(network: TimerNetwork, scale: int) -> None:
    """Gives the gates of an LSTM or a GRU a start for long pulses: memories of many lengths, which a start overwrites.

    Without a start, the units keep what they have for 1 to 2·scale steps, evenly on a logarithmic scale (Tallec and
    Ollivier 2018, "Can recurrent neural networks warp time?"). At a start, u1 drives each gate so far that hardly one
    part in ten scales is left of what was there: all cells become 1 or -1, whatever they held. A pulse of a thousand
    steps that begins in the middle of another one is then as long as one that follows upon silence. Training finds
    the lengths of pulses by itself, but hardly ever a way to forget that well.

    Args:
        network: its gates' biases and weights from u1 are replaced; those of a network without gates stay.
        scale: steps that u2 = 1 stands for.
    """
    layer, hidden = network.recurrent, network.hidden
    if not isinstance(layer, nn.LSTM | nn.GRU):
        return
    parameters = dict(layer.named_parameters())
    bias, weight = parameters["bias_ih_l0"], parameters["weight_ih_l0"]
    kept = torch.linspace(0, 1, hidden) * math.log(2 * scale)
    far = torch.full((hidden,), math.log(LEFT * scale))
    # tanh falls short of 1 twice as fast as the sigmoid.
    values = (far / 2 + 1) * (1 - 2 * (torch.arange(hidden) % 2))
    # At rest, and from u1 at a start. LSTM: input, forget, cell, output. GRU: reset, update, new.
    gates: tuple[tuple[Tensor | None, Tensor], ...]
    if isinstance(layer, nn.LSTM):
        gates = ((-kept, kept + far), (kept, -kept - far), (None, values), (None, far))
    else:
        gates = ((None, -far), (kept, -kept - far), (None, values))
    with torch.no_grad():
        parameters["bias_hh_l0"].zero_()
        for gate, (at_rest, from_start) in enumerate(gates):
            rows = slice(gate * hidden, (gate + 1) * hidden)
            weight[rows, 0] = from_start
            if at_rest is not None:
                bias[rows] = at_rest
