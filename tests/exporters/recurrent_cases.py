"""Recurrent networks as people write them in torch, and those that have to be refused.

Each case is a function of some layers and its inputs. `Together` runs several cases as one module, so that one export
serves them all.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

INPUTS, HIDDEN, WORDS = 4, 6, 9

ARRAYS: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "x": ("float32", ("B", "T", INPUTS)),
    "lengths": ("int64", ("B",)),
    "tokens": ("int64", ("B", "T")),
    "memory": ("float32", ("B", "S", INPUTS)),
    "frames": ("float32", ("B", "T", 1, 4, 4)),
}
"""The inputs that there are: dtype and shape."""


def draw(name: str, sizes: dict[str, int], chance: np.random.Generator) -> NDArray[Any]:
    """An input; lengths from 1 to T, none of which need be T."""
    dtype, declared = ARRAYS[name]
    shape = [sizes[size] if isinstance(size, str) else size for size in declared]
    if name == "lengths":
        return chance.integers(1, sizes["T"] + 1, shape)
    if dtype == "int64":
        return chance.integers(0, WORDS, shape)
    return chance.standard_normal(shape).astype(np.float32)


class Layers(nn.Module):
    """The layers that a case may use.

    Attributes:
        used: The names of those that it has used.
    """

    def __init__(self) -> None:
        super().__init__()
        self.used: set[str] = set()
        self.gru, self.upper = nn.GRUCell(INPUTS, HIDDEN), nn.GRUCell(HIDDEN, HIDDEN)
        self.lstm, self.elman = nn.LSTMCell(INPUTS, HIDDEN), nn.RNNCell(INPUTS, HIDDEN)
        self.stack = nn.ModuleList(nn.GRUCell(INPUTS if n == 0 else HIDDEN, HIDDEN) for n in range(3))
        self.lstm_layer = nn.LSTM(INPUTS, HIDDEN, batch_first=True)
        self.two_layers = nn.LSTM(INPUTS, HIDDEN, 2, batch_first=True)
        self.gru_layer, self.rnn_layer = (kind(INPUTS, HIDDEN, batch_first=True) for kind in (nn.GRU, nn.RNN))
        self.projected = nn.LSTM(INPUTS, HIDDEN, batch_first=True, proj_size=3)
        self.own_layer, self.own_cell = OutputsOnly(INPUTS, HIDDEN, batch_first=True), Dropping(INPUTS, HIDDEN)
        self.into, self.over, self.back = (
            nn.Linear(INPUTS, HIDDEN),
            nn.Linear(HIDDEN, HIDDEN),
            nn.Linear(HIDDEN, INPUTS),
        )
        self.query, self.score = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, 1)
        self.gates, self.words = nn.Linear(INPUTS + HIDDEN, 4 * HIDDEN), nn.Linear(HIDDEN, WORDS)
        self.embed, self.places = nn.Embedding(WORDS, INPUTS), nn.Embedding(80, INPUTS)
        self.norm, self.gate_norm = nn.LayerNorm(HIDDEN), nn.LayerNorm(4 * HIDDEN)
        self.batch_norm = nn.BatchNorm1d(HIDDEN)
        self.convolution = nn.Conv2d(1 + 2, 8, 3, padding=1)
        self.picture = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        self.causal = nn.Conv1d(INPUTS, 3 * HIDDEN, 2)
        self.weight, self.rate = nn.Parameter(torch.randn(HIDDEN) / 2), nn.Parameter(torch.rand(INPUTS))
        self.transition, self.observed = nn.Parameter(torch.randn(3, 3) / 3), nn.Parameter(torch.randn(1, 3))
        self.of_each_step = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN) for _ in range(80))

    def __getattr__(self, name: str) -> Any:
        self.used.add(name)
        return super().__getattr__(name)

    def zeros(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], HIDDEN)


class OutputsOnly(nn.LSTM):
    """A layer that keeps its state to itself."""

    def forward(self, x: Tensor, hx: Any = None) -> Any:
        return super().forward(x, hx)[0]


class Dropping(nn.LSTMCell):
    """A cell with dropout behind it."""

    def forward(self, x: Tensor, hx: Any = None) -> Any:
        hidden, cell = super().forward(x, hx)
        return F.dropout(hidden, 0.5, self.training), cell


Network = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """A network.

    Attributes:
        run: (layers, inputs …) -> a tensor or a tuple of tensors.
        needs: Names of its inputs, see `ARRAYS`.
        refused: What a refusal has to say (a regular expression); None if it is to be exported.
        quick: Whether it is among the tests that always run.
    """

    run: Network
    needs: tuple[str, ...]
    refused: str | None
    quick: bool

    def __str__(self) -> str:
        return self.run.__name__


CASES: list[Case] = []


def case(*needs: str, refused: str | None = None, quick: bool = False) -> Callable[[Network], Network]:
    """Notes a function as a case; without ``needs`` it reads ``x``."""

    def noted(run: Network) -> Network:
        CASES.append(Case(run, needs or ("x",), refused, quick))
        return run

    return noted


class Together(nn.Module):
    """Several cases, each with weights of its own."""

    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cases = tuple(cases)
        self.layers = nn.ModuleList(Layers() for _ in cases)
        self.needs = tuple(name for name in ARRAYS if any(name in one.needs for one in cases))
        chance = np.random.default_rng(0)
        arrays = {name: torch.from_numpy(draw(name, {"B": 2, "T": 5, "S": 3}, chance)) for name in self.needs}
        with torch.no_grad():
            self.eval()(*arrays.values())
        for layers in self.layers:
            for name in {*layers._modules, *layers._parameters} - layers.used:
                delattr(layers, name)  # what is not used costs time in every trace

    def forward(
        self, a: Tensor, b: Tensor | None = None, c: Tensor | None = None, d: Tensor | None = None
    ) -> list[Tensor]:
        given = dict(zip(self.needs, (a, b, c, d), strict=False))
        found: list[Tensor] = []
        for layers, one in zip(self.layers, self.cases, strict=True):
            answer = one.run(layers, *(given[name] for name in one.needs))
            found += answer if isinstance(answer, tuple) else [answer]
        return found


# Which elements are read


@case(quick=True)
def differences(net: Layers, x: Tensor) -> Tensor:
    h = net.zeros(x)
    states = [h]
    for t in range(1, x.shape[1]):
        h = net.gru(x[:, t] - x[:, t - 1], h)
        states.append(h)
    return torch.stack(states, 1)


@case()
def errors_of_prediction(net: Layers, x: Tensor) -> Tensor:
    h, errors = net.zeros(x), [torch.zeros_like(x[:, 0])]
    for t in range(x.size(1) - 1):
        h = net.gru(x[:, t], h)
        errors.append(x[:, t + 1] - net.back(h))
    return torch.stack(errors, 1)


@case(quick=True)
def every_other_element(net: Layers, x: Tensor) -> Tensor:
    h, states = net.zeros(x), []
    for t in range(0, x.size(1), 2):
        h = net.gru(x[:, t], h)
        states.append(h)
    return torch.stack(states, 1)


@case()
def from_the_end(net: Layers, x: Tensor) -> Tensor:
    h, states = net.zeros(x), []
    for t in range(x.size(1) - 1, -1, -1):
        h = net.elman(x[:, t], h)
        states.append(h)
    return torch.stack(states[::-1], 1)


@case(quick=True)
def with_the_element_before(net: Layers, x: Tensor) -> Tensor:
    """At the first step this is the last element, as Python counts."""
    h, states = net.zeros(x), []
    for t in range(x.size(1)):
        h = net.gru(x[:, t] * x[:, t - 1], h)
        states.append(h)
    return torch.stack(states, 1)


@case()
def smoothed(net: Layers, x: Tensor) -> Tensor:
    """An exponential moving average with a learnt rate; the first element is as it is."""
    rate = torch.sigmoid(net.rate)
    level = x[:, 0]
    levels = [level]
    for t in range(1, x.size(1)):
        level = rate * x[:, t] + (1 - rate) * level
        levels.append(level)
    return torch.stack(levels, dim=1)


@case(quick=True)
def windows(net: Layers, x: Tensor) -> Tensor:
    padded, h, states = F.pad(x, (0, 0, 1, 1)), net.zeros(x), []
    for t in range(x.size(1)):
        h = net.gru(padded[:, t : t + 3].mean(1), h)
        states.append(h)
    return torch.stack(states, 1)


@case()
def two_back_or_the_first(net: Layers, x: Tensor) -> Tensor:
    h, last = net.zeros(x), x.size(1) - 1
    for t in range(x.size(1)):
        h = net.gru(x[:, max(0, t - 2)] + x[:, min(t + 1, last)], h)
    return h


@case()
def shorter_windows_first(net: Layers, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.size(1)):
        h = net.gru(x[:, max(0, t - 2) : t + 1].mean(1), h)
    return h


@case()
def split_into_steps(net: Layers, x: Tensor) -> Tensor:
    h, states = net.zeros(x), []
    for part, again in zip(x.split(1, dim=1), torch.chunk(x, x.size(1), 1), strict=True):
        h = net.gru(part.squeeze(1) + again[:, 0], h)
        states.append(h.unsqueeze(1))
    return torch.cat(states, 1)


@case()
def enumerated(net: Layers, x: Tensor) -> Tensor:
    h, out = net.zeros(x), torch.zeros(x.size(1), x.size(0), HIDDEN, dtype=x.dtype)
    for t, element in enumerate(x.transpose(0, 1)):
        h = net.gru(element, h)
        out[t] = h
    return out


@case()
def along_the_last_axis(net: Layers, x: Tensor) -> Tensor:
    h, turned, states = net.zeros(x), x.transpose(1, 2), []
    for t in range(turned.shape[-1]):
        h = net.gru(turned[..., t], h)
        states.append(h)
    return torch.stack(states, dim=-1)


@case()
def by_index_tensors(net: Layers, x: Tensor) -> Tensor:
    h, states = net.zeros(x), []
    for t in range(x.size(1)):
        h = net.gru(x.index_select(1, torch.tensor([t])).squeeze(1) + x.narrow(1, t, 1)[:, 0], h)
        states.append(h)
    return torch.stack(states, 1)


# Which number of steps, and no element read


@case()
def forecast(net: Layers, x: Tensor) -> Tensor:
    h, y, answers = net.gru_layer(x)[1][0], x[:, -1], []
    for _ in range(x.size(1)):
        h = net.gru(y, h)
        y = y + net.back(h)
        answers.append(y)
    return torch.stack(answers, 1)


@case()
def forecast_of_twenty_steps(net: Layers, x: Tensor) -> Tensor:
    h, y, answers = net.gru_layer(x)[1][0], x[:, -1], []
    for _ in range(20):
        h = net.gru(y, h)
        y = net.back(h)
        answers.append(y)
    return torch.stack(answers, 1)


@case()
def three_thoughts_a_step(net: Layers, x: Tensor) -> Tensor:
    h, states = net.zeros(x), []
    for t in range(x.size(1)):
        for _ in range(3):
            h = h + 0.3 * torch.tanh(net.over(h))
        h = net.gru(x[:, t], h)
        states.append(h)
    return torch.stack(states, 1)


@case("tokens", quick=True)
def greedy(net: Layers, tokens: Tensor) -> tuple[Tensor, Tensor]:
    h = net.gru_layer(net.embed(tokens))[1].squeeze(0)
    token, found, scores = torch.zeros(tokens.size(0), dtype=torch.long), [], []
    for _ in range(tokens.size(1)):
        h = net.gru(net.embed(token), h)
        logits = net.words(h)
        token = logits.argmax(-1)
        found.append(token)
        scores.append(F.log_softmax(logits, -1))
    return torch.stack(found, 1), torch.stack(scores, 1)


@case()
def given_for_three_steps(net: Layers, x: Tensor) -> Tensor:
    """Then its own answer is read."""
    h, y, answers = net.zeros(x), x[:, 0], []
    for t in range(x.size(1)):
        h = net.gru(x[:, t] if t < 3 else y, h)
        y = net.back(h)
        answers.append(y)
    return torch.stack(answers, 1)


# Numbers that depend on the step


@case("x", "lengths", quick=True)
def kept_behind_the_end(net: Layers, x: Tensor, lengths: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.size(1)):
        h = torch.where((t < lengths).unsqueeze(1), net.gru(x[:, t], h), h)
    return h


@case("x", "lengths")
def masked_outputs(net: Layers, x: Tensor, lengths: Tensor) -> Tensor:
    h, states = net.zeros(x), []
    for t in range(x.size(1)):
        there = (lengths > t).to(x.dtype).unsqueeze(1)
        h = there * net.elman(x[:, t], h) + (1 - there) * h
        states.append(h * there)
    return torch.stack(states, 1)


@case(quick=True)
def share_of_the_time(net: Layers, x: Tensor) -> Tensor:
    h, states, steps = net.zeros(x), [], x.size(1)
    for t in range(steps):
        clock = torch.full((x.size(0), INPUTS), t / steps, dtype=x.dtype)
        h = net.gru(x[:, t] * (t / max(steps - 1, 1)) + clock, h)
        states.append(h)
    return torch.stack(states, 1)


@case()
def sine_of_the_time(net: Layers, x: Tensor) -> Tensor:
    h, states = net.zeros(x), []
    for t in range(x.size(1)):
        both = torch.tensor([math.sin(t / 10), math.cos(t / 10)]).to(x.dtype)
        h = net.gru(x[:, t] + math.sin(0.3 * t) + both.sum(), h) * math.exp(-0.01 * t)
        states.append(h)
    return torch.stack(states, 1)


@case()
def powers_and_roots_of_the_time(net: Layers, x: Tensor) -> Tensor:
    h, states = net.zeros(x), []
    for t in range(x.size(1)):
        h = h + (1 / (t + 1) ** 0.5) * torch.tanh(net.into(x[:, t] * 0.9**t) + net.over(h))
        states.append(h / (1 + t * t))
    return torch.stack(states, 1)


@case()
def embedded_time(net: Layers, x: Tensor) -> Tensor:
    h, states = net.zeros(x), []
    for t in range(x.size(1)):
        h = net.gru(x[:, t] + net.places(torch.tensor(t)) + net.places.weight[t + 1], h)
        states.append(h)
    return torch.stack(states, 1)


@case()
def running_mean(net: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    """Welford 1962."""
    mean, spread, means = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0]), []
    for t in range(x.size(1)):
        step = x[:, t] - mean
        mean = mean + step / (t + 1)
        spread = spread + step * (x[:, t] - mean)
        means.append(mean)
    return torch.stack(means, 1), spread / x.size(1)


# Steps that differ


@case(quick=True)
def first_step_differs(net: Layers, x: Tensor) -> Tensor:
    states: list[Tensor] = []
    for t in range(x.size(1)):
        given = torch.tanh(x[:, t] * net.rate)
        states.append(torch.tanh(net.into(given)) if t == 0 else net.gru(given, states[-1]))
    return torch.stack(states, 1)


@case()
def no_state_at_first(net: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    h, state = None, None
    for element in x.unbind(1):
        h, state = net.gru(element, h), net.lstm(element, state)
    return h, state[0] * state[1]


@case()
def last_step_differs(net: Layers, x: Tensor) -> Tensor:
    h, states = net.zeros(x), []
    for t in range(x.size(1)):
        h = net.gru(x[:, t], h)
        if t < x.size(1) - 1:
            h = net.norm(h)
        states.append(h)
    return torch.stack(states, 1)


@case()
def one_step_differs(net: Layers, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.size(1)):
        h = (net.elman if t == 3 else net.gru)(x[:, t], h)
    return h


@case(quick=True)
def two_scales_of_time(net: Layers, x: Tensor) -> Tensor:
    h, slow, states = net.zeros(x), net.zeros(x), []
    for t in range(x.size(1)):
        h = net.gru(x[:, t], h)
        if t % 2 == 0:
            slow = net.upper(h, slow)
        states.append(h + slow)
    return torch.stack(states, 1)


@case()
def cells_take_turns(net: Layers, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.size(1)):
        h = net.gru(x[:, t], h) if t % 2 == 0 else net.elman(x[:, t], h)
    return h


@case()
def clockwork(net: Layers, x: Tensor) -> Tensor:
    """Koutník et al. 2014."""
    parts, states = [net.zeros(x) for _ in range(3)], []
    for t in range(x.size(1)):
        for number, period in enumerate((1, 2, 4)):
            if t % period == 0:
                parts[number] = torch.tanh(net.into(x[:, t]) + net.over(parts[number]) / (number + 1))
        states.append(parts[0] + parts[1] + parts[2])
    return torch.stack(states, 1)


@case()
def every_third_output(net: Layers, x: Tensor) -> Tensor:
    h, states = net.zeros(x), []
    for t in range(x.size(1)):
        h = net.gru(x[:, t], h)
        if t % 3 == 0:
            states.append(h)
    return torch.stack(states, 1)


@case()
def seasons(net: Layers, x: Tensor) -> Tensor:
    season, answers = [torch.zeros_like(x[:, 0]) for _ in range(4)], []
    for t in range(x.size(1)):
        answers.append(season[t % 4])
        season[t % 4] = 0.7 * season[t % 4] + 0.3 * x[:, t]
    return torch.stack(answers, 1)


# States of more than one step before


@case(quick=True)
def two_steps_back(net: Layers, x: Tensor) -> Tensor:
    h, states = net.zeros(x), []
    for t in range(x.size(1)):
        h = net.gru(x[:, t], h)
        if t >= 2:
            h = h + 0.5 * states[-2]
        states.append(h)
    return torch.stack(states, 1)


@case()
def dilated(net: Layers, x: Tensor) -> Tensor:
    states: list[Tensor] = []
    for t in range(x.size(1)):
        states.append(net.gru(x[:, t], states[t - 2] if t >= 2 else net.zeros(x)))
    return torch.stack(states, 1)


@case()
def filter_of_second_order(net: Layers, x: Tensor) -> Tensor:
    x1 = x2 = y1 = y2 = torch.zeros_like(x[:, 0])
    answers = []
    for t in range(x.size(1)):
        y = 0.2 * x[:, t] + 0.3 * x1 + 0.2 * x2 + 0.4 * y1 - 0.2 * y2
        x2, x1, y2, y1 = x1, x[:, t], y1, y
        answers.append(y)
    return torch.stack(answers, 1)


@case()
def trend(net: Layers, x: Tensor) -> Tensor:
    """Holt 1957."""
    level, slope, answers = x[:, 0], torch.zeros_like(x[:, 0]), [x[:, 0]]
    for t in range(1, x.size(1)):
        new = net.rate[0] * x[:, t] + (1 - net.rate[0]) * (level + slope)
        slope = net.rate[1] * (new - level) + (1 - net.rate[1]) * slope
        level = new
        answers.append(level + slope)
    return torch.stack(answers, 1)


# How outputs are gathered


@case()
def grown_by_cat(net: Layers, x: Tensor) -> Tensor:
    h, states = net.zeros(x), None
    for t in range(x.size(1)):
        h = net.gru(x[:, t], h)
        states = h.unsqueeze(1) if states is None else torch.cat([states, h.unsqueeze(1)], dim=1)
    return states


@case()
def grown_from_nothing(net: Layers, x: Tensor) -> Tensor:
    h, states = net.zeros(x), x.new_zeros(x.size(0), 0, HIDDEN)
    for t in range(x.size(1)):
        h = net.gru(x[:, t], h)
        states = torch.cat([states, h[:, None]], 1)
    return states


@case(quick=True)
def filled_from_the_end(net: Layers, x: Tensor) -> Tensor:
    steps = x.size(1)
    h, out = net.zeros(x), x.new_zeros(x.size(0), steps, HIDDEN)
    for t in range(steps):
        h = net.gru(x[:, steps - 1 - t], h)
        out[:, steps - 1 - t, :] = h
    return out


@case()
def buffer_is_the_state(net: Layers, x: Tensor) -> Tensor:
    out = x.new_zeros(x.size(0), x.size(1) + 1, HIDDEN)
    for t in range(x.size(1)):
        out[:, t + 1] = net.gru(x[:, t], out[:, t])
    return out[:, 1:]


@case()
def filled_by_slices(net: Layers, x: Tensor) -> Tensor:
    h, out = net.zeros(x), torch.empty(x.size(0), x.size(1), HIDDEN, dtype=x.dtype)
    for t in range(x.size(1)):
        h = net.gru(x[:, t], h)
        out[:, t : t + 1] = h.unsqueeze(1)
    return out


@case(quick=True)
def penalty_beside_the_outputs(net: Layers, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    h, penalty, change = net.zeros(x), 0.0, torch.zeros(x.size(0), dtype=x.dtype)
    for t in range(x.size(1)):
        new = net.gru(x[:, t], h)
        penalty = penalty + new.pow(2).mean()
        change += (new - h).abs().sum(1)
        h = new
    return h, penalty / x.size(1), change


@case()
def early_and_middle_states(net: Layers, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    h, states = net.zeros(x), []
    for t in range(x.size(1)):
        h = net.gru(x[:, t], h)
        states.append(h)
    return states[0], states[len(states) // 2], sum(states) / len(states)


@case("x", "lengths")
def last_of_each_row(net: Layers, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    h, states = net.zeros(x), []
    for t in range(x.size(1)):
        h = net.gru(x[:, t], h)
        states.append(h)
    whole = torch.stack(states, 1)
    by_gather = whole.gather(1, (lengths - 1).view(-1, 1, 1).expand(-1, 1, HIDDEN)).squeeze(1)
    return by_gather, torch.stack(states)[lengths - 1, torch.arange(x.size(0))]


@case()
def largest_so_far(net: Layers, x: Tensor) -> Tensor:
    h, best = net.zeros(x), None
    for t in range(x.size(1)):
        h = net.gru(x[:, t], h)
        best = h if best is None else torch.maximum(best, h)
    return best


@case()
def worked_on_afterwards(net: Layers, x: Tensor) -> Tensor:
    h, states = net.zeros(x), []
    for element in x.unbind(1):
        h = net.gru(element, h)
        states.append(h)
    return torch.stack([net.norm(state) + net.over(state) for state in states], 1)


# How a loop is written


@case()
def while_there_are_more(net: Layers, x: Tensor) -> Tensor:
    t, h = 0, net.zeros(x)
    while t < x.size(1):
        h = net.gru(x[:, t], h)
        t += 1
    return h


@case(quick=True)
def reduced(net: Layers, x: Tensor) -> Tensor:
    return functools.reduce(lambda h, element: net.gru(element, h), x.unbind(1), net.zeros(x))


@case()
def mapped_with_a_closure(net: Layers, x: Tensor) -> Tensor:
    h = net.zeros(x)

    def step(element: Tensor) -> Tensor:
        nonlocal h
        h = net.gru(element, h)
        return h

    return torch.stack(list(map(step, x.unbind(1))), dim=1)


@case()
def layers_inside(net: Layers, x: Tensor) -> Tensor:
    """Nothing is computed in the outer loop but by the inner one."""
    states, top = [net.zeros(x) for _ in net.stack], []
    for element in x.unbind(1):
        for number, cell in enumerate(net.stack):
            states[number] = cell(states[number - 1] if number else element, states[number])
        top.append(states[-1])
    return torch.stack(top, 1)


@case()
def layers_outside(net: Layers, x: Tensor) -> Tensor:
    sequence = [x[:, t] for t in range(x.size(1))]
    for cell in net.stack:
        h, states = net.zeros(x), []
        for element in sequence:
            h = cell(element, h)
            states.append(h)
        sequence = states
    return torch.stack(sequence, 1)


@case()
def state_as_one_tensor(net: Layers, x: Tensor) -> Tensor:
    state, top = x.new_zeros(3, x.size(0), HIDDEN), []
    for t in range(x.size(1)):
        given, new = x[:, t], []
        for number, cell in enumerate(net.stack):
            given = cell(given, state[number])
            new.append(given)
        state = torch.stack(new)
        top.append(given)
    return torch.stack(top, 1)


@dataclass(frozen=True)
class State:
    hidden: Tensor
    cell: Tensor


@case()
def state_as_an_object(net: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    state, named, states = State(net.zeros(x), net.zeros(x)), {"upper": net.zeros(x)}, []
    for t in range(x.size(1)):
        hidden, cell = net.lstm(x[:, t], (state.hidden, state.cell))
        state = replace(state, hidden=hidden, cell=cell)
        named["upper"] = net.upper(hidden, named["upper"])
        states.append(named["upper"])
    return torch.stack(states, 1), state.cell


@case()
def both_directions(net: Layers, x: Tensor) -> Tensor:
    h, forwards, backwards = net.zeros(x), [], []
    for t in range(x.size(1)):
        h = net.gru(x[:, t], h)
        forwards.append(h)
    h = net.zeros(x)
    for t in reversed(range(x.size(1))):
        h = net.elman(x[:, t], h)
        backwards.append(h)
    return torch.stack([torch.cat(pair, -1) for pair in zip(forwards, backwards[::-1], strict=True)], 1)


@case("x", "memory")
def one_sequence_after_another(net: Layers, x: Tensor, memory: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.size(1)):
        h = net.gru(x[:, t], h)
    for s in range(memory.size(1)):
        h = net.elman(memory[:, s], h)
    return h


@case("x", "memory")
def one_sequence_within_another(net: Layers, x: Tensor, memory: Tensor) -> Tensor:
    h, states = net.zeros(x), []
    for t in range(x.size(1)):
        h = net.gru(x[:, t], h)
        for s in range(memory.size(1)):
            h = net.elman(memory[:, s], h)
        states.append(h)
    return torch.stack(states, 1)


# Layers of torch, and subclasses


@case()
def layer_step_by_step(net: Layers, x: Tensor) -> Tensor:
    state, outputs = None, []
    for t in range(x.size(1)):
        output, state = net.lstm_layer(x[:, t : t + 1], state)
        outputs.append(output)
    return torch.cat(outputs, 1)


@case()
def two_layers_step_by_step(net: Layers, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    hidden, cell = x.new_zeros(2, x.size(0), HIDDEN), x.new_zeros(2, x.size(0), HIDDEN)
    outputs = []
    for t in range(x.size(1)):
        output, (hidden, cell) = net.two_layers(x[:, t].unsqueeze(1), (hidden, cell))
        outputs.append(output[:, 0])
    return torch.stack(outputs, 1), hidden, cell


@case()
def elman_layer_step_by_step(net: Layers, x: Tensor) -> Tensor:
    state, outputs = None, []
    for t in range(x.size(1)):
        output, state = net.rnn_layer(x[:, t : t + 1], state)
        outputs.append(output)
    return torch.cat(outputs, 1)


@case(quick=True)
def subclasses(net: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    state, states = (net.zeros(x), net.zeros(x)), []
    for element in x.unbind(1):
        state = net.own_cell(element, state)
        states.append(state[0])
    return net.own_layer(x), torch.stack(states, 1)


@case("x", "lengths")
def packed(net: Layers, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    rows = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    outputs, (hidden, _) = net.projected(rows)
    return pad_packed_sequence(outputs, batch_first=True, total_length=x.size(1))[0], hidden


# Cells of one's own


def gated(net: Layers, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    return net.gates(torch.cat([x, h], 1)).chunk(4, 1)


@case()
def peepholes(net: Layers, x: Tensor) -> Tensor:
    h = c = net.zeros(x)
    for t in range(x.size(1)):
        i, f, g, o = gated(net, x[:, t], h)
        c = torch.sigmoid(f + net.weight * c) * c + torch.sigmoid(i + net.weight * c) * torch.tanh(g)
        h = torch.sigmoid(o + net.weight * c) * torch.tanh(c)
    return h


@case()
def normalised_gates(net: Layers, x: Tensor) -> Tensor:
    h = c = net.zeros(x)
    for t in range(x.size(1)):
        i, f, g, o = net.gate_norm(net.gates(torch.cat([x[:, t], h], 1))).split(HIDDEN, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * net.norm(c).tanh()
    return h


@case()
def simple_cells(net: Layers, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A minimal GRU, an independent one, a simple recurrent unit, a leaky reservoir."""
    minimal = independent = unit = leaky = net.zeros(x)
    forget = torch.sigmoid(net.into(x))
    for t in range(x.size(1)):
        f = torch.sigmoid(net.into(x[:, t]) + net.over(minimal))
        minimal = (1 - f) * minimal + f * torch.tanh(net.into(x[:, t]) + net.query(f * minimal))
        independent = F.relu(net.into(x[:, t]) + net.weight * independent)
        unit = forget[:, t] * unit + (1 - forget[:, t]) * net.into(x)[:, t]
        leaky = 0.7 * leaky + 0.3 * torch.tanh(x[:, t] @ net.into.weight.T + leaky @ net.over.weight.T)
    return minimal, independent, unit, leaky


@case()
def multiplicative_with_zoneout(net: Layers, x: Tensor) -> Tensor:
    h, c = net.zeros(x), net.zeros(x)
    for t in range(x.size(1)):
        i, f, g, o = gated(net, x[:, t], net.into(x[:, t]) * net.over(h))
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        new = o.sigmoid() * c.tanh()
        h = h * torch.bernoulli(torch.full_like(h, 0.1)) + new if net.training else 0.1 * h + 0.9 * new
    return h


@case()
def quasi_recurrent(net: Layers, x: Tensor) -> Tensor:
    z, f, o = net.causal(F.pad(x.transpose(1, 2), (1, 0))).chunk(3, 1)
    z, f, o = z.tanh(), f.sigmoid(), o.sigmoid()
    c, states = torch.zeros_like(z[:, :, 0]), []
    for t in range(x.shape[1]):
        c = f[..., t] * c + (1 - f[..., t]) * z[..., t]
        states.append(o[..., t] * c)
    return torch.stack(states, -1)


@case("frames")
def convolutional(net: Layers, frames: Tensor) -> tuple[Tensor, Tensor]:
    """A convolutional LSTM, and a network on each frame by itself."""
    h = c = frames.new_zeros(frames.size(0), 2, 4, 4)
    for t in range(frames.size(1)):
        i, f, o, g = torch.split(net.convolution(torch.cat([frames[:, t], h], dim=1)), 2, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    return h, torch.stack([net.picture(frames[:, t]) for t in range(frames.size(1))], 1)


@case()
def normalised_over_the_batch(net: Layers, x: Tensor) -> Tensor:
    h, states = net.zeros(x), []
    for t in range(x.size(1)):
        h = torch.tanh(net.batch_norm(net.into(x[:, t]) + net.over(h)))
        states.append(net.batch_norm(h))
    return torch.stack(states, 1)


@case()
def spiking(net: Layers, x: Tensor) -> Tensor:
    voltage, spikes = net.zeros(x), []
    for t in range(x.size(1)):
        voltage = 0.9 * voltage + net.into(x[:, t])
        spike = (voltage > 0.5).to(voltage.dtype)
        voltage = voltage * (1 - spike)
        spikes.append(spike)
    return torch.stack(spikes, 1)


# Attention and memory


@case(quick=True)
def weights_before_the_input_is_read(net: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    keys, h, states, weights = net.into(x), net.zeros(x), [], []
    for _ in range(x.size(1)):
        weight = F.softmax((keys * net.query(h).unsqueeze(1)).sum(2), 1)
        weights.append(weight)
        h = net.gru((weight.unsqueeze(2) * x).sum(1), h)
        states.append(h)
    return torch.stack(states, 1), torch.stack(weights, 1)


@case("tokens", "memory")
def decoder_with_attention(net: Layers, tokens: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bahdanau et al. 2015, the coverage of See et al. 2017, teacher forcing."""
    keys, h = net.into(memory), net.into(memory.mean(1))
    covered = torch.zeros(memory.shape[:2], dtype=memory.dtype)
    logits, weights = [], []
    for t in range(tokens.size(1)):
        scores = net.score(torch.tanh(keys + net.query(h).unsqueeze(1) + covered.unsqueeze(2))).squeeze(2)
        weight = torch.softmax(scores, dim=1)
        covered = covered + weight
        context = torch.bmm(weight.unsqueeze(1), memory).squeeze(1)
        h = net.gru(net.embed(tokens[:, t]) + context, h)
        logits.append(net.words(h))
        weights.append(weight)
    return torch.stack(logits, 1), torch.stack(weights, 1), covered


@case("x", "memory")
def pointer_to_what_is_left(net: Layers, x: Tensor, memory: Tensor) -> Tensor:
    keys = net.into(memory)
    h, taken = keys.mean(1), torch.zeros(memory.size(0), memory.size(1), dtype=torch.bool)
    given, logits = x[:, 0], []
    for t in range(x.size(1)):
        h = net.gru(given + x[:, t], h)
        scores = net.score(torch.tanh(keys + net.query(h).unsqueeze(1))).squeeze(-1).masked_fill(taken, -1e4)
        chosen = scores.argmax(1)
        taken = taken | F.one_hot(chosen, memory.size(1)).bool()
        given = memory.gather(1, chosen.view(-1, 1, 1).expand(-1, 1, INPUTS)).squeeze(1)
        logits.append(scores)
    return torch.stack(logits, 1)


@case()
def fast_weights(net: Layers, x: Tensor) -> Tensor:
    """Ba et al. 2016."""
    h, fast, states = net.zeros(x), x.new_zeros(x.size(0), HIDDEN, HIDDEN), []
    for t in range(x.size(1)):
        given = net.into(x[:, t]) + net.over(h)
        h = torch.tanh(net.norm(given + torch.bmm(fast, h.unsqueeze(2)).squeeze(2)))
        fast = 0.9 * fast + 0.5 * torch.bmm(h.unsqueeze(2), h.unsqueeze(1))
        states.append(h)
    return torch.stack(states, 1)


@case()
def linear_attention(net: Layers, x: Tensor) -> Tensor:
    sums, norms, answers = x.new_zeros(x.size(0), INPUTS, INPUTS), x.new_zeros(x.size(0), INPUTS), []
    for t in range(x.size(1)):
        query, key = F.elu(x[:, t]) + 1, F.elu(x[:, t] * net.rate) + 1
        sums, norms = sums + torch.einsum("bi,bj->bij", key, x[:, t]), norms + key
        answers.append(torch.einsum("bi,bij->bj", query, sums) / (query * norms).sum(-1, keepdim=True))
    return torch.stack(answers, 1)


@case()
def selective_state_space(net: Layers, x: Tensor) -> Tensor:
    """Gu and Dao 2023."""
    width, states = F.softplus(x * net.rate), x.new_zeros(x.size(0), INPUTS, 3)
    answers = []
    for t in range(x.shape[1]):
        kept = torch.exp(-width[:, t, :, None] * net.rate[:, None])
        states = kept * states + width[:, t, :, None] * x[:, t, None, :3] * x[:, t, :, None]
        answers.append((states * x[:, t, None, 1:]).sum(-1))
    return torch.stack(answers, dim=1)


@case()
def ring_of_memories(net: Layers, x: Tensor) -> Tensor:
    h, ring, shifted, states = net.zeros(x), x.new_zeros(x.size(0), 4, HIDDEN), x.new_zeros(x.size(0), 3, HIDDEN), []
    for t in range(x.size(1)):
        h = net.gru(x[:, t], h + ring.mean(1) + shifted[:, 0])
        ring = ring.clone()
        ring[:, t % 4] = h
        shifted = torch.cat([shifted[:, 1:], h.unsqueeze(1)], 1)
        states.append(h)
    return torch.stack(states, 1)


# States that depend on no input, other algebras


@case()
def kalman(net: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    state, spread, states = x.new_zeros(x.size(0), 3), torch.eye(3, dtype=x.dtype), []
    for t in range(x.size(1)):
        state = state @ net.transition.T
        spread = net.transition @ spread @ net.transition.T + 0.1 * torch.eye(3, dtype=x.dtype)
        gain = spread @ net.observed.T / (net.observed @ spread @ net.observed.T + 0.5)
        state = state + (x[:, t, :1] - state @ net.observed.T) @ gain.T
        spread = spread - gain @ net.observed @ spread
        states.append(state)
    return torch.stack(states, 1), spread


@case()
def viterbi(net: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    """The best path through the states, and the log-likelihood of all."""
    scores, steps = net.transition.repeat(2, 2)[:INPUTS, :INPUTS], []
    best = total = x[:, 0]
    for t in range(1, x.size(1)):
        best, step = (best.unsqueeze(2) + scores).max(1)
        best, total = best + x[:, t], torch.logsumexp(total.unsqueeze(2) + scores, 1) + x[:, t]
        steps.append(step)
    tag = best.argmax(1)
    tags = [tag]
    for step in reversed(steps):
        tag = step.gather(1, tag.unsqueeze(1)).squeeze(1)
        tags.append(tag)
    return torch.stack(tags[::-1], 1), torch.logsumexp(total, 1)


@case()
def counted_and_compared(net: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    count, high = torch.zeros(x.size(0), dtype=torch.long), x.new_zeros(x.size(0))
    for t in range(x.size(1)):
        above = x[:, t, 0] > high
        count = count + above
        high = torch.where(above, x[:, t, 0], high * 0.9)
    return count, high


# What has to be refused


# More of the literature's


@case()
def euler_steps(net: Layers, x: Tensor) -> Tensor:
    """A differential equation in as many steps as there are inputs; the times come from ``linspace``."""
    times = torch.linspace(0, 1, x.size(1), dtype=x.dtype)
    state, states = x[:, 0], [x[:, 0]]
    for before, now in zip(times[:-1], times[1:], strict=True):  # noqa: RUF007 - as people write it
        state = state + (now - before) * torch.tanh(net.back(net.into(state)) - before)
        states.append(state)
    return torch.stack(states, 1)


@case()
def when_it_was_largest(net: Layers, x: Tensor) -> Tensor:
    largest, when = torch.full_like(x[:, 0], -math.inf), torch.zeros(x.shape[0], INPUTS, dtype=torch.long)
    for t in range(x.shape[1]):
        is_larger = x[:, t] > largest
        largest = torch.where(is_larger, x[:, t], largest)
        when = torch.where(is_larger, torch.full_like(when, t), when)
    return when


@case("x", "memory")
def warped(net: Layers, x: Tensor, memory: Tensor) -> Tensor:
    """Dynamic time warping with steps down and across the diagonal."""
    distances = torch.cdist(x, memory)
    row = distances[:, 0].cumsum(1)
    for t in range(1, x.size(1)):
        first = row[:, :1] + distances[:, t, :1]
        row = torch.cat([first, torch.minimum(row[:, 1:], row[:, :-1]) + distances[:, t, 1:]], 1)
    return row[:, -1]


@case(quick=True)
def looks_ahead(net: Layers, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.size(1)):
        h = net.gru(x[:, t] - x[:, min(t + 2, x.size(1) - 1)], h)
    return h


@case()
def stabilised_gates(net: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    """Exponential gates with their maximum carried along (Beck et al. 2024)."""
    h = c = n = net.zeros(x)
    m, outputs = x.new_full((x.shape[0], HIDDEN), -10.0), []
    for t in range(x.shape[1]):
        i, f, z, o = net.gates(torch.cat([x[:, t], h], 1)).chunk(4, 1)
        before, m = m, torch.maximum(f + m, i)
        c = torch.exp(f + before - m) * c + torch.exp(i - m) * torch.tanh(z)
        n = torch.exp(f + before - m) * n + torch.exp(i - m)
        h = torch.sigmoid(o) * c / n.clamp(min=1e-6)
        outputs.append(h)
    return torch.stack(outputs, dim=1), h


@case()
def phases(net: Layers, x: Tensor) -> Tensor:
    """Neil et al. 2016: a state opens for a part of its period only."""
    h, c = net.zeros(x), net.zeros(x)
    for t in range(x.size(1)):
        phase = ((t - net.weight) % 5.0) / 5.0
        is_open = torch.where(phase < 0.1, 20 * phase, torch.where(phase < 0.2, 4 - 20 * phase, 0.001 * phase))
        hidden, cell = net.lstm(x[:, t], (h, c))
        h, c = is_open * hidden + (1 - is_open) * h, is_open * cell + (1 - is_open) * c
    return h


@case()
def partition_of_a_field(net: Layers, x: Tensor) -> Tensor:
    scores = x[:, :, :3]
    alpha = net.observed + scores[:, 0]
    for t in range(1, scores.size(1)):
        alpha = torch.logsumexp(alpha.unsqueeze(2) + net.transition + scores[:, t].unsqueeze(1), dim=1)
    return torch.logsumexp(alpha, dim=1)


@case()
def missing_values_decay(net: Layers, x: Tensor) -> Tensor:
    """Che et al. 2018, with what is negative taken as missing."""
    is_there = (x > 0).to(x.dtype)
    mean = (x * is_there).sum(1) / is_there.sum(1).clamp(min=1)
    h, last = net.zeros(x), torch.zeros_like(x[:, 0])
    for t in range(x.size(1)):
        there, decay = is_there[:, t], torch.exp(-F.relu(net.rate))
        last = there * x[:, t] + (1 - there) * last
        h = net.gru(there * x[:, t] + (1 - there) * (decay * last + (1 - decay) * mean), h)
    return h


@case(refused=r"stack .*gives .*must not grow")
def attention_over_the_past(net: Layers, x: Tensor) -> Tensor:
    states = [net.zeros(x)]
    for t in range(x.size(1)):
        states.append(net.gru(x[:, t], torch.stack(states, 1).mean(1)))
    return states[-1]


@case(refused=r"mean .*reads .*must not grow")
def mean_of_the_past(net: Layers, x: Tensor) -> Tensor:
    return torch.stack([net.into(x[:, : t + 1].mean(1)) for t in range(x.size(1))], 1)


@case(refused=r"weights? of its own at each step|different ones")
def weights_of_each_step(net: Layers, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.size(1)):
        h = net.of_each_step[t](h) + net.into(x[:, t])
    return h


@case("tokens", refused=r"value|data")
def ended_by_a_value(net: Layers, tokens: Tensor) -> Tensor:
    h, token, found = net.gru_layer(net.embed(tokens))[1][0], tokens[:, 0], []
    for _ in range(tokens.size(1)):
        h = net.gru(net.embed(token), h)
        token = net.words(h).argmax(1)
        found.append(token)
        if bool((token == 0).all()):
            break
    return torch.stack(found, 1)


@case(refused=r"formula|number")
def number_of_no_formula(net: Layers, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.size(1)):
        h = net.gru(x[:, t] * math.gamma(1 + t / 7), h)
    return h


@case(refused=r"with T = \d+ the loop|something else")
def otherwise_when_long(net: Layers, x: Tensor) -> Tensor:
    h = net.zeros(x)
    for t in range(x.size(1)):
        h = net.gru(x[:, t], h if x.size(1) < 12 else 0.5 * h)
    return h
