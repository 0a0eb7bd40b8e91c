"""The operators that recurrent layers are traced as, `torch.ops.edgedl.lstm_layer` and ``gru_layer``.

`exporters.recurrent` writes them into the program and translates them to ONNX. Here is what they compute in torch, for
the program that mutants run in, and what shapes come out. Shapes are named as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

State = tuple[Tensor, ...]


def from_inputs(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The inputs' share in all gates at once, and both biases: (T, B, I) -> (T, B, gates·H)."""
    bias = weights[2] + weights[3] if has_bias(weights) else None
    return nn.functional.linear(x, weights[0], bias)


def has_bias(weights: Sequence[Tensor]) -> bool:
    """Whether a layer's weights are followed by its two biases, not at once by a projection or by nothing."""
    return len(weights) > 2 and weights[2].dim() == 1


def peephole_step(
    weights: Sequence[Tensor], peepholes: Tensor, given: Tensor, state: State
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One step of `peephole_lstm`, from the inputs' share in the gates (B, 4H)."""
    hidden, cell = state
    i, f, g, o = (given + hidden @ weights[1].t()).chunk(4, dim=-1)
    see_i, see_f, see_o = peepholes.unbind(0)
    after = (f + see_f * cell).sigmoid() * cell + (i + see_i * cell).sigmoid() * g.tanh()
    hidden = (o + see_o * after).sigmoid() * after.tanh()
    return hidden, (hidden, after)


def lengths_of(batch_sizes: Tensor, rows: int) -> Tensor:
    """How long each of the sorted rows is: (T,) -> (B,)."""
    return (batch_sizes > torch.arange(rows).unsqueeze(1)).sum(dim=1)


def _torch_layer(
    run: Callable[..., Any],
    x: Tensor,
    lengths: Tensor | None,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    directions: int,
    states: int,
) -> tuple[Tensor, ...]:
    """A layer by torch itself, for the program that mutants run in."""
    each, hidden = len(weights) // directions, weights[1].shape[1]
    hx = tuple(state) or (x.new_zeros(directions, x.shape[1], hidden),) * states
    last = (each == 4, 1, 0.0, False, directions == 2)
    if lengths is None:
        return tuple(run(x, hx if states == 2 else hx[0], list(weights), *last, False))
    packed = rnn.pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False)
    sort, unsort = packed.sorted_indices, packed.unsorted_indices
    assert sort is not None  # noqa: S101 - narrows the type
    assert unsort is not None  # noqa: S101
    hx = tuple(part.index_select(1, sort) for part in hx)
    data, *final = run(packed.data, packed.batch_sizes, hx if states == 2 else hx[0], list(weights), *last)
    padded = rnn.pad_packed_sequence(packed._replace(data=data), total_length=x.shape[0])[0]
    return (padded, *(part.index_select(1, unsort) for part in final))


@torch.library.custom_op("edgedl::lstm_layer", mutates_args=())
def _lstm_layer(
    x: Tensor,
    lengths: Tensor | None,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    directions: int,
    peepholes: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    if peepholes is not None:
        step = partial(peephole_step, weights, peepholes)
        after: State = tuple(part.squeeze(0) for part in state)
        seen = []
        for given in from_inputs(x, weights):
            hidden, after = step(given, after)
            seen.append(hidden)
        return torch.stack(seen), after[0].unsqueeze(0).clone(), after[1].unsqueeze(0).clone()
    outputs, hidden, cell = _torch_layer(torch._VF.lstm, x, lengths, state, weights, directions, 2)
    return outputs, hidden, cell


@torch.library.custom_op("edgedl::gru_layer", mutates_args=())
def _gru_layer(
    x: Tensor, lengths: Tensor | None, state: Sequence[Tensor], weights: Sequence[Tensor], directions: int
) -> tuple[Tensor, Tensor]:
    outputs, hidden = _torch_layer(torch._VF.gru, x, lengths, state, weights, directions, 1)
    return outputs, hidden


@_lstm_layer.register_fake
def _(
    x: Tensor,
    lengths: Tensor | None,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    directions: int,
    peepholes: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    outputs, hidden = _fake_layer(x, weights, directions)
    return outputs, hidden, torch.empty_like(hidden)


@_gru_layer.register_fake
def _(
    x: Tensor, lengths: Tensor | None, state: Sequence[Tensor], weights: Sequence[Tensor], directions: int
) -> tuple[Tensor, Tensor]:
    return _fake_layer(x, weights, directions)


def _fake_layer(x: Tensor, weights: Sequence[Tensor], directions: int) -> tuple[Tensor, Tensor]:
    hidden = weights[1].shape[1]
    return x.new_empty(x.shape[0], x.shape[1], directions * hidden), x.new_empty(directions, x.shape[1], hidden)
