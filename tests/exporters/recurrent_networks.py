"""Every way to write a recurrent network in torch that the exporter promises to take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from exporters.recurrent import over_time
from exporters.spec import Input, Output

INPUTS, HIDDEN, PROJECTED = 12, 16, 5

LAYERS = {
    "rnn-tanh": (nn.RNN, {"nonlinearity": "tanh"}),
    "rnn-relu": (nn.RNN, {"nonlinearity": "relu"}),
    "gru": (nn.GRU, {}),
    "lstm": (nn.LSTM, {}),
    "lstm-projected": (nn.LSTM, {"proj_size": PROJECTED}),
}
CELLS = {
    "cell-tanh": (nn.RNNCell, {"nonlinearity": "tanh"}),
    "cell-relu": (nn.RNNCell, {"nonlinearity": "relu"}),
    "cell-gru": (nn.GRUCell, {}),
    "cell-lstm": (nn.LSTMCell, {}),
}
LOOPS = {kind.replace("cell", "loop"): made for kind, made in CELLS.items()}
"""The same cells, all in one Python loop."""


@dataclass(frozen=True)
class Combination:
    """One choice of every option."""

    kind: str
    layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    batch_first: bool = False
    states: bool = False
    lengths: bool = False

    def __str__(self) -> str:
        said = {name: getattr(self, name) for name in ("bidirectional", "batch_first", "states", "lengths")}
        options = [name for name, value in said.items() if value] + ["no-bias"] * (not self.bias)
        return "-".join([self.kind, str(self.layers), *options])

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def widths(self) -> dict[str, int]:
        """Width of each carried state by its name; the first is the output's too."""
        first = PROJECTED if self.kind == "lstm-projected" else HIDDEN
        return {"h": first, "c": HIDDEN} if "lstm" in self.kind else {"h": first}

    @property
    def operators(self) -> dict[str, int]:
        """What the graph must hold: one operator a layer."""
        name = "LSTM" if self.kind in ("lstm", "cell-lstm", "loop-lstm") else "GRU" if "gru" in self.kind else "Scan"
        return {"LSTM": 0, "GRU": 0, "Scan": 0, "RNN": 0, "Loop": 0} | {name: self.layers}

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        made = Cells(self) if self.kind in CELLS else InLoop(self) if self.kind in LOOPS else Layers(self)
        return made.eval().requires_grad_(False)

    def inputs(self) -> list[Input]:
        x = Input("x", "float32", ("B", "T", INPUTS) if self.batch_first else ("T", "B", INPUTS))
        lengths = [Input("lengths", "int64", ("B",))] if self.lengths else []
        return [x, *lengths, *(Input(f"{n}0", "float32", s) for n, s in self._states() if self.states)]

    def outputs(self) -> list[Output]:
        width = self.directions * self.widths["h"]
        shape = ("B", "T", width) if self.batch_first else ("T", "B", width)
        return [Output("y", "float32", shape), *(Output(f"{n}n", "float32", s) for n, s in self._states())]

    def arrays(self, batch: int, steps: int, seed: int = 0) -> dict[str, NDArray[Any]]:
        """Inputs by name; rows of every length from 1, none of which need be the longest."""
        chance = np.random.default_rng([seed, batch, steps])
        sizes = {"B": batch, "T": steps}
        return {
            tensor.name: chance.integers(1, steps + 1, batch)
            if tensor.name == "lengths"
            else chance.standard_normal([sizes.get(size, size) for size in tensor.shape]).astype(np.float32)
            for tensor in self.inputs()
        }

    def _states(self) -> list[tuple[str, tuple[int | str, ...]]]:
        return [(name, (self.layers * self.directions, "B", width)) for name, width in self.widths.items()]


class Layers(nn.Module):
    """A recurrent layer somewhere inside, packed where rows have lengths."""

    def __init__(self, options: Combination) -> None:
        super().__init__()
        self.options = options
        kind, more = LAYERS[options.kind]
        self.inner = nn.ModuleDict(
            {
                "recurrent": kind(
                    INPUTS,
                    HIDDEN,
                    options.layers,
                    bias=options.bias,
                    batch_first=options.batch_first,
                    bidirectional=options.bidirectional,
                    **more,
                )
            }
        )

    def forward(
        self, x: Tensor, a: Tensor | None = None, b: Tensor | None = None, c: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        given = [part for part in (a, b, c) if part is not None]
        lengths = given.pop(0) if self.options.lengths else None
        hx: Any = None if not given else tuple(given) if len(given) == 2 else given[0]
        time, first = (1 if self.options.batch_first else 0), self.options.batch_first
        steps = x.shape[time]
        packed = x if lengths is None else pack_padded_sequence(x, lengths, first, enforce_sorted=False)
        y, final = self.inner["recurrent"](packed, hx)
        if lengths is not None:
            y = pad_packed_sequence(y, first, total_length=steps)[0]
        return (y, *final) if isinstance(final, tuple) else (y, final)


class Cells(nn.Module):
    """A stack of cells, each over time."""

    def __init__(self, options: Combination) -> None:
        super().__init__()
        self.options = options
        kind, more = CELLS[options.kind]
        self.cells = nn.ModuleList(
            kind(INPUTS if index == 0 else HIDDEN, HIDDEN, bias=options.bias, **more) for index in range(options.layers)
        )

    def forward(self, x: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> tuple[Tensor, ...]:
        given = [part for part in (a, b) if part is not None]
        if self.options.batch_first:
            x = x.transpose(0, 1)
        finals = []
        for index, cell in enumerate(self.cells):
            zeros = x.new_zeros(x.shape[1], HIDDEN)
            state = [part[index] for part in given] or [zeros.clone() for _ in self.options.widths]
            x, final = over_time(cell, x, state)
            finals.append(final)
        y = x.transpose(0, 1) if self.options.batch_first else x
        return (y, *(torch.stack(parts) for parts in zip(*finals, strict=True)))


class InLoop(nn.Module):
    """Cells one above the other in a Python loop."""

    def __init__(self, options: Combination) -> None:
        super().__init__()
        self.options = options
        kind, more = LOOPS[options.kind]
        self.cells = nn.ModuleList(
            kind(INPUTS if index == 0 else HIDDEN, HIDDEN, bias=options.bias, **more) for index in range(options.layers)
        )

    def forward(self, x: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> tuple[Tensor, ...]:
        time = 1 if self.options.batch_first else 0
        zeros = x.new_zeros(self.options.layers, x.shape[1 - time], HIDDEN)
        given = [part for part in (a, b) if part is not None] or [zeros for _ in self.options.widths]
        states: list[Any] = [tuple(part[index] for part in given) for index in range(self.options.layers)]
        outputs = []
        for step in x.unbind(time):
            value = step
            for index, cell in enumerate(self.cells):
                after = cell(value, states[index] if len(given) == 2 else states[index][0])
                states[index] = after if len(given) == 2 else (after,)
                value = states[index][0]
            outputs.append(value)
        return (torch.stack(outputs, time), *(torch.stack(parts) for parts in zip(*states, strict=True)))


def combinations() -> Iterator[Combination]:
    """All of them."""
    yes = (False, True)
    for kind, layers, bidirectional, bias, first, states, lengths in product(LAYERS, (1, 2), yes, yes, yes, yes, yes):
        yield Combination(kind, layers, bidirectional, bias, first, states, lengths)
    for kind, layers, bias, first, states in product((*CELLS, *LOOPS), (1, 3), yes, yes, yes):
        yield Combination(kind, layers, False, bias, first, states, False)


def truth_of(
    network: nn.Module, arrays: dict[str, NDArray[Any]], dtype: torch.dtype = torch.float64
) -> list[NDArray[Any]]:
    """What torch itself answers."""
    given = [torch.from_numpy(array) for array in arrays.values()]
    found = network.to(dtype)(*(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in given))
    network.to(torch.float32)
    return [tensor.numpy() for tensor in found]
