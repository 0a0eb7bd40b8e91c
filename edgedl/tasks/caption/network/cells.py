"""Recurrent cells over rows that belong to clips: (B, R, …), with room for what does not change from step to step.

The arithmetic is that of ``nn.LSTMCell`` and ``nn.GRUCell``. What is new: the input may come with a term that was
multiplied beforehand (`extra`), so that a picture's share in the gates is computed once and not at every word; and
where the first inputs are one of few vectors, the words, their share can be looked up in a table (`Table`).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

CellName = Literal["lstm", "gru"]
State = tuple[Tensor, ...]
Table = tuple[Tensor, Tensor]
"""The share of each word in the gates, biases included, (V, gates·H), and the weights of all other inputs."""


class LSTMCell(nn.Module):
    """One step of a long short-term memory (Hochreiter and Schmidhuber 1997, with forget gates).

    Inputs (…, I) and a state ``(h, c)`` of (…, H) each give the next state. Gates in torch's order i, f, g, o. Input
    and hidden state share one matrix, ``gates.weight`` (4H, I + H): one product instead of two.
    """

    factor = 4
    """Gate values for each hidden unit: the width of `extra` in units of H."""
    states = 2

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Linear(inputs + hidden, self.factor * hidden)
        bound = 1 / math.sqrt(hidden)
        nn.init.uniform_(self.gates.weight, -bound, bound)
        nn.init.zeros_(self.gates.bias)
        with torch.no_grad():
            # A memory that keeps what it has until it learns to forget (Jozefowicz et al. 2015, section 3.3).
            self.gates.bias[hidden : 2 * hidden] = 1.0

    def table(self, vectors: Tensor) -> Table:
        """Of the vectors (V, E) that can be the first E inputs."""
        weight, width = self.gates.weight.t(), vectors.shape[1]
        return vectors @ weight[:width] + self.gates.bias, weight[width:]

    def forward(
        self, inputs: Tensor | None, state: State, extra: Tensor | None = None, rest: Tensor | None = None
    ) -> State:
        """The next ``(h, c)``; `extra` (…, 4H) is added to the gates before their squashing.

        With `rest`, the second part of a `Table`, the inputs lack the words, whose share is in `extra`; None where the
        words were all.
        """
        h, c = state
        given = h if inputs is None else torch.cat([inputs, h], dim=-1)
        gates = self.gates(given) if rest is None else given @ rest
        if extra is not None:
            gates = gates + extra
        i, f, g, o = gates.chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class GRUCell(nn.Module):
    """One step of a gated recurrent unit (Cho et al. 2014), reset after the matrix product as in torch.

    Inputs (…, I) and a state ``(h,)`` of (…, H) give the next state. Gates in torch's order r, z, n.
    """

    factor = 3
    states = 1

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.from_inputs = nn.Linear(inputs, self.factor * hidden)
        self.from_hidden = nn.Linear(hidden, self.factor * hidden)
        bound = 1 / math.sqrt(hidden)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def table(self, vectors: Tensor) -> Table:
        """See `LSTMCell.table`."""
        weight, width = self.from_inputs.weight.t(), vectors.shape[1]
        return vectors @ weight[:width] + self.from_inputs.bias, weight[width:]

    def forward(
        self, inputs: Tensor | None, state: State, extra: Tensor | None = None, rest: Tensor | None = None
    ) -> State:
        """The next ``(h,)``; `extra` (…, 3H) is added to the input's share of the gates. See `LSTMCell.forward`."""
        (h,) = state
        given = None if inputs is None else self.from_inputs(inputs) if rest is None else inputs @ rest
        given = extra if given is None else given if extra is None else given + extra
        assert given is not None  # noqa: S101 - where there are no inputs there is an extra
        r_in, z_in, n_in = given.chunk(3, dim=-1)
        r_hidden, z_hidden, n_hidden = self.from_hidden(h).chunk(3, dim=-1)
        r, z = (r_in + r_hidden).sigmoid(), (z_in + z_hidden).sigmoid()
        n = (n_in + r * n_hidden).tanh()
        return (n + z * (h - n),)


Cell = LSTMCell | GRUCell


def cell_of(name: CellName, inputs: int, hidden: int) -> Cell:
    """The cell of that name."""
    return LSTMCell(inputs, hidden) if name == "lstm" else GRUCell(inputs, hidden)
