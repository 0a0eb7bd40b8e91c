"""The networks of the timer task: a recurrent layer of one of four kinds, and one answer a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from edgedl.tasks.timer.simple_recurrent import Elman, Jordan
from runtime.errors import InputError

INPUTS = 2
"""u1 and u2."""


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
