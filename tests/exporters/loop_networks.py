"""Python loops over time as people write them: those that export, and those that have to be refused."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

INPUTS, HIDDEN = 3, 4

Run = Callable[["Loop", Tensor], Tensor]


class Loop(nn.Module):
    """Cells and layers, and a function of the test's that loops over them; (B, T, I) in."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.run = run
        self.gru, self.other = nn.GRUCell(INPUTS, HIDDEN), nn.GRUCell(INPUTS, HIDDEN)
        self.upper = nn.GRUCell(HIDDEN, HIDDEN)
        self.lstm, self.elman = nn.LSTMCell(INPUTS, HIDDEN), nn.RNNCell(INPUTS, HIDDEN)
        self.embed, self.read = nn.Linear(INPUTS, INPUTS), nn.Linear(HIDDEN, INPUTS)
        self.query, self.dropout = nn.Linear(HIDDEN, HIDDEN), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)

    def zeros(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], HIDDEN)


def gru(net: Loop, x: Tensor) -> Tensor:
    h, outputs = net.zeros(x), []
    for t in range(x.shape[1]):
        h = net.gru(x[:, t], h)
        outputs.append(h)
    return torch.stack(outputs, 1)


def lstm_by_unbind(net: Loop, x: Tensor) -> Tensor:
    state = None
    outputs = []
    for step in x.unbind(1):
        state = net.lstm(step, state)
        outputs.append(state[0])
    return torch.stack(outputs, 1) + state[1].unsqueeze(1)


def elman_time_first(net: Loop, x: Tensor) -> Tensor:
    h = None
    for step in x.transpose(0, 1):
        h = net.elman(step, h)
    return h


def last_state(net: Loop, x: Tensor) -> Tensor:
    h, t = net.zeros(x), 0
    while t < x.size(1):
        h = net.gru(x[:, t], h)
        t += 1
    return net.read(h)


def stacked_cells(net: Loop, x: Tensor) -> Tensor:
    lower = upper = net.zeros(x)
    outputs = []
    for t in range(x.shape[1]):
        lower = net.gru(net.embed(x[:, t]), lower)
        upper = net.upper(net.dropout(lower) + lower, upper)
        outputs.append(net.read(upper))
    return torch.stack(outputs, 1)


def feedback(net: Loop, x: Tensor) -> Tensor:
    h, y, outputs = net.zeros(x), torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        h = net.gru(x[:, t] + y, h)
        y = 0.5 * y + net.read(h)
        outputs.append(y)
    return torch.stack(outputs, 1)


def backwards(net: Loop, x: Tensor) -> Tensor:
    h, outputs = net.zeros(x), []
    for t in reversed(range(x.shape[1])):
        h = net.gru(x[:, t], h)
        outputs.insert(0, h)
    return torch.stack(outputs, 1)


def both_ways(net: Loop, x: Tensor) -> Tensor:
    return torch.cat([gru(net, x), backwards(net, x)], -1)


def one_after_the_other(net: Loop, x: Tensor) -> Tensor:
    """The second loop reads the states of the first from the end, and begins with its last."""
    h, states = net.zeros(x), []
    for t in range(x.shape[1]):
        h = net.gru(x[:, t], h)
        states.append(h)
    for state in reversed(states):
        h = net.upper(state, h)
    return h


def filled_in(net: Loop, x: Tensor) -> Tensor:
    outputs, h = torch.zeros(x.shape[0], x.shape[1], HIDDEN, dtype=x.dtype), net.zeros(x)
    for t in range(x.shape[1]):
        h = net.gru(x[:, t], h)
        outputs[:, t] = h
    return outputs / x.shape[1]


def masked(net: Loop, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.shape[1]):
        there = (x[:, t : t + 1, 0] > 0).to(x.dtype)
        h = there * net.gru(x[:, t], h) + (1 - there) * h
    return h


def attending(net: Loop, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.shape[1]):
        weights = torch.softmax((x @ net.query(h)[:, :INPUTS].unsqueeze(-1)).squeeze(-1), -1)
        h = net.gru(x[:, t] + (weights.unsqueeze(-1) * x).sum(1), h)
    return h


def by_hand(net: Loop, x: Tensor) -> Tensor:
    h = c = net.zeros(x)
    for t in range(x.shape[1]):
        gates = torch.cat([net.embed(x[:, t]), h], 1) @ torch.ones(INPUTS + HIDDEN, 4 * HIDDEN, dtype=x.dtype)
        i, f, g, o = gates.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    return h


def memory_cells(net: Loop, x: Tensor) -> Tensor:
    state, cells = None, []
    for t in range(x.shape[1]):
        state = net.lstm(x[:, t], state)
        cells.append(state[1])
    return sum(cells) / len(cells)


def carried_input(net: Loop, x: Tensor) -> Tensor:
    h, before = net.query(x.new_ones(x.shape[0], HIDDEN)), torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        h = net.gru(x[:, t] - before, h)
        before = x[:, t]
    return h


def inner_loop(net: Loop, x: Tensor) -> Tensor:
    """Three layers, one of them twice: the number of layers does not come from T."""
    states = [net.zeros(x) for _ in range(3)]
    for t in range(x.shape[1]):
        given, cells = x[:, t], (net.gru, net.upper, net.upper)
        for number, cell in enumerate(cells):
            given = states[number] = cell(given, states[number])
    return states[0] + 2 * states[1] - states[2]


def other_first(net: Loop, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.shape[1]):
        h = (net.other if t == 0 else net.gru)(x[:, t], h)
    return h


def other_last(net: Loop, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.shape[1]):
        h = (net.other if t == x.shape[1] - 1 else net.gru)(x[:, t], h)
    return h


def other_in_the_twelfth_step(net: Loop, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.shape[1]):
        h = (net.other if t == 11 else net.gru)(x[:, t], h)
    return h


def without_the_first(net: Loop, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(1, x.shape[1]):
        h = net.gru(x[:, t], h)
    return h


def every_other(net: Loop, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.shape[1]):
        h = net.gru(x[:, t], h) if t % 2 else h
    return h


def counting(net: Loop, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.shape[1]):
        h = net.gru(x[:, t] * t, h)
    return h


def one_before(net: Loop, x: Tensor) -> Tensor:
    """In the first step this is the last element, as Python counts."""
    h = net.zeros(x)
    for t in range(x.shape[1]):
        h = net.gru(x[:, t] - x[:, t - 1], h)
    return h


def two_before(net: Loop, x: Tensor) -> Tensor:
    states = [net.zeros(x), net.zeros(x) + 1]
    for t in range(x.shape[1]):
        states.append(net.gru(x[:, t], states[-1]) + states[-2] / 2)
    return states[-1]


def growing(net: Loop, x: Tensor) -> Tensor:
    states = [net.zeros(x)]
    for t in range(x.shape[1]):
        states.append(net.gru(x[:, t], torch.stack(states).mean(0)))
    return states[-1]


def reading_nothing(net: Loop, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for _ in range(x.shape[1]):
        h = net.gru(x[:, 0], h)
    return h


def beginning_smaller(net: Loop, x: Tensor) -> Tensor:
    h = x.new_zeros(1, HIDDEN)
    for t in range(x.shape[1]):
        h = torch.tanh(net.query(h) + net.gru.weight_ih[:HIDDEN, 0] * x[:, t, :1])
    return h


def rooted(net: Loop, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.shape[1]):
        h = net.gru(x[:, t] / x.shape[1] ** 0.5, h)
    return h


def last_but_one(net: Loop, x: Tensor) -> Tensor:
    """Of a single step, the one before is the beginning; of more, a step."""
    h, states = net.zeros(x), [net.zeros(x)]
    for t in range(x.shape[1]):
        h = net.gru(x[:, t], h)
        states.append(h)
    return states[-1] - states[-2] + states[1]


ROLLED: dict[Run, dict[str, int]] = {
    gru: {"GRU": 1},
    lstm_by_unbind: {"LSTM": 1},
    elman_time_first: {"Scan": 1},
    last_state: {"GRU": 1},
    stacked_cells: {"GRU": 2},
    feedback: {"Scan": 1},
    backwards: {"GRU": 1},
    both_ways: {"GRU": 2},
    one_after_the_other: {"GRU": 2},
    filled_in: {"GRU": 1},
    masked: {"Scan": 1},
    attending: {"Scan": 1},
    by_hand: {"Scan": 1},
    memory_cells: {"Scan": 1},
    carried_input: {"GRU": 1},
    inner_loop: {"GRU": 3},
    other_first: {"GRU": 1},
    other_last: {"GRU": 1},
    without_the_first: {"GRU": 1},
    every_other: {"GRU": 1},
    counting: {"GRU": 1},
    one_before: {"GRU": 1},
    two_before: {"Scan": 1},
    reading_nothing: {"Scan": 1},
    beginning_smaller: {"Scan": 1},
    last_but_one: {"GRU": 1},
    rooted: {"GRU": 1},
}
"""What becomes of each."""

RELATIVES = {both_ways, one_after_the_other, masked, other_last, every_other, two_before, last_but_one, rooted}
"""Those that have a close relative among the others."""

REFUSED: dict[Run, str] = {
    other_in_the_twelfth_step: r"the loop at loop_networks\.py:\d+: with T = 16 the loop does something else than",
    growing: r"the loop at loop_networks\.py:\d+: stack .* gives .* must not grow from step to step",
}
"""What is said of each."""
