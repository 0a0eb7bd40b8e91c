"""The operators that recurrent layers are traced as, `torch.ops.edgedl.lstm_layer` and ``gru_layer``.

`exporters.recurrent` writes them into the program. Here is what they compute in torch, for the program that mutants run
in, what shapes come out, and what they become in ONNX. Shapes are named as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

State = tuple[Tensor, ...]

ONNX_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}
"""Where each gate of the ONNX operator lies in torch's order."""

PEEPHOLES = (0, 2, 1)
"""Where each row of ONNX's P lies in i, f, o."""


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


@cache
def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The ``custom_translation_table`` of `torch.onnx.export` for the operators of this module."""
    import onnx
    import onnxscript

    op: Any = onnxscript.opset18  # its own type hints only fit values, not the graph values seen while tracing

    def ints(*values: int) -> Any:
        return op.Constant(value=onnx.numpy_helper.from_array(np.array(values, np.int64)))

    def ordered(weight: Any, operator: str) -> Any:
        rows = int(weight.shape[0])
        gates = ONNX_GATES[operator]
        return op.Gather(weight, ints(*np.arange(rows).reshape(len(gates), -1)[list(gates)].ravel().tolist()), axis=0)

    def stacked(parts: Sequence[Any]) -> Any:
        rows = [op.Unsqueeze(part, ints(0)) for part in parts]
        return rows[0] if len(rows) == 1 else op.Concat(*rows, axis=0)

    def layer(operator: str, x: Any, lengths: Any, state: Any, weights: Any, directions: int, **more: Any) -> list[Any]:
        each = [weights[k :: len(weights) // directions] for k in range(len(weights) // directions)]
        input_weights, hidden_weights, *biases = [[ordered(w, operator) for w in part] for part in each]
        bias = stacked([op.Concat(*pair, axis=0) for pair in zip(*biases, strict=True)]) if biases else None
        outputs, *final = getattr(op, operator)(
            x,
            stacked(input_weights),
            stacked(hidden_weights),
            bias,
            None if lengths is None else op.Cast(lengths, to=onnx.TensorProto.INT32),
            *(state or ()),
            direction="bidirectional" if directions == 2 else "forward",
            hidden_size=int(weights[1].shape[1]),
            **more,
        )  # (T, D, B, H), final states (D, B, H)
        if directions == 1:
            return [op.Squeeze(outputs, ints(1)), *final]
        return [op.Reshape(op.Transpose(outputs, perm=[0, 2, 1, 3]), ints(0, 0, -1)), *final]

    def lstm(x: Any, lengths: Any, state: Any, weights: Any, directions: int, peepholes: Any = None) -> list[Any]:
        if peepholes is None:
            return layer("LSTM", x, lengths, state, weights, directions)
        seen = op.Reshape(op.Gather(peepholes, ints(*PEEPHOLES), axis=0), ints(1, -1))
        return layer("LSTM", x, lengths, [*state, seen], weights, directions)

    def gru(x: Any, lengths: Any, state: Any, weights: Any, directions: int) -> list[Any]:
        return layer("GRU", x, lengths, state, weights, directions, linear_before_reset=1)

    operators = torch.ops.edgedl
    return {operators.lstm_layer.default: lstm, operators.gru_layer.default: gru}
