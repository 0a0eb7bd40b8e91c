"""Recurrent layers as one ONNX operator each, for a batch and a time of any size.

What `torch.onnx` makes of a recurrent layer fails without a word: an Elman network is written out to the length of the
example, LSTM and GRU lose their dynamic time from the second export of a process on, packed sequences are refused. So
while a module is traced, its layers run through the operators of this module (`lowered`), which become

=====================  ===================================================================================
torch                  graph
=====================  ===================================================================================
``nn.LSTM``            ``LSTM``, gates reordered from i, f, g, o to i, o, f, c
``nn.GRU``             ``GRU`` with ``linear_before_reset``, gates reordered from r, z, n to z, r, n
``nn.RNN``             ``Scan`` with the inputs' product before it: ONNX Runtime's ``RNN`` is slower at any batch
``nn.LSTM(proj_size)`` ``Scan``: ONNX knows no projection
`peephole_lstm`        ``LSTM`` with its input ``P``, reordered from i, f, o to i, o, f
packed sequences       ``sequence_lens`` of the operator; of a ``Scan``, see `_both_ways`
`over_time`            ``Scan``, or what the layer of that cell becomes
Python loops           the same, see `exporters.loops`
=====================  ===================================================================================

Both directions of a layer are one operator. Final states are at the true end of each row, as packing gives them.

Shapes: T steps, B rows, I inputs, H hidden units, P of them after a projection (else P = H), D directions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn
from torch.nn.utils.rnn import PackedSequence

from exporters.recurrent_operators import State, from_inputs, lengths_of, peephole_step

Step = Callable[[Tensor, State], tuple[Tensor, State]]
"""(input of a step (B, …), state) -> (output of the step (B, …), next state)."""

_LAYERS = (nn.RNN, nn.GRU, nn.LSTM)


@contextmanager
def lowered(module: nn.Module) -> Iterator[None]:
    """While it lasts, the recurrent layers of a module run through the operators of this module, packing included.

    Subclasses that have a ``forward`` of their own are left to it.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _LAYERS) and _is_plain(layer)]
    try:
        for layer in layers:
            layer.forward = partial(_run, layer)  # type: ignore[method-assign]
        with mock.patch.object(rnn, "_VF", _Packing()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for layer in layers:
            del layer.forward


def over_time(step: Step | nn.Module, inputs: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, State]:
    """Runs a step, or a cell, over time: a Python loop in torch, one operator in the exported graph.

    A Python loop of one's own is rolled up at export if its steps are alike (`exporters.loops`). This one always is::

        outputs, (hidden, cell) = over_time(self.cell, inputs, (hidden, cell))

    Args:
        step: takes the input of a step (B, …) and the state, gives the output and the next state; or an
            ``nn.RNNCell``, ``nn.GRUCell`` or ``nn.LSTMCell``, whose output is its hidden state.
        inputs: (T, B, …), time first.
        state: before the first step; for a cell (hidden,) or (hidden, cell), each (B, H).

    Returns:
        The outputs (T, B, …) and the state after the last step.
    """
    state = tuple(state)
    exporting = torch.compiler.is_compiling()
    if isinstance(step, nn.RNNCellBase):
        if exporting:
            weights = [step.weight_ih, step.weight_hh, *((step.bias_ih, step.bias_hh) if step.bias else ())]
            return cell_layer(_cell_kind(step), inputs, state, weights)
        step = partial(_cell_step, step)
    if exporting:
        return _scan(step, inputs, state)
    outputs = []
    for index in range(inputs.shape[0]):
        output, state = step(inputs[index], state)
        outputs.append(output)
    return torch.stack(outputs), state


def peephole_lstm(
    inputs: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], peepholes: Tensor
) -> tuple[Tensor, State]:
    """A layer of LSTM whose gates see the memory cells: a Python loop in torch, ONNX's ``LSTM`` in the exported graph.

    Gers, Schraudolph, Schmidhuber 2002, "Learning precise timing with LSTM recurrent networks": the input and forget
    gates of a cell see what it held before the step, its output gate what it holds after::

        i, f = σ(… + p_i ∘ c_{t-1}), σ(… + p_f ∘ c_{t-1})    c_t = f ∘ c_{t-1} + i ∘ tanh(…)    o = σ(… + p_o ∘ c_t)

    Args:
        inputs: (T, B, I).
        state: hidden units and memory cells before the first step, (B, H) each.
        weights: as of ``nn.LSTM``, gates in torch's order i, f, g, o: (4H, I), (4H, H) and two biases (4H,).
        peepholes: (3, H) of the gates i, f, o.

    Returns:
        The hidden units at every step (T, B, H), and the state after the last one.
    """
    if torch.compiler.is_compiling():
        begun = [part.unsqueeze(0) for part in state]
        outputs, *last = torch.ops.edgedl.lstm_layer(inputs, None, begun, list(weights), 1, peepholes)
        return outputs, tuple(part.squeeze(0) for part in last)
    return over_time(partial(peephole_step, weights, peepholes), from_inputs(inputs, weights), state)


def _is_plain(layer: nn.Module) -> bool:
    return any(type(layer).forward is kind.forward for kind in _LAYERS)


def _run(layer: nn.RNNBase, inputs: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
    """Stands in for the layer's ``forward``; same arguments, same answer."""
    packed = inputs if isinstance(inputs, PackedSequence) else None
    is_lstm = isinstance(layer, nn.LSTM)
    state: State = () if hx is None else (tuple(hx) if is_lstm else (hx,))
    lengths = None
    if packed is not None:
        x = packed.data  # (T, B, I), see `_Packing`
        lengths = lengths_of(packed.batch_sizes, x.shape[1])
        if packed.sorted_indices is not None:
            state = tuple(part.index_select(1, packed.sorted_indices) for part in state)
    else:
        x = inputs  # type: ignore[assignment]
    single = x.dim() == 2
    if single:
        x, state = x.unsqueeze(1), tuple(part.unsqueeze(1) for part in state)
    elif layer.batch_first and packed is None:
        x = x.transpose(0, 1)
    directions = 2 if layer.bidirectional else 1
    finals = []
    for number in range(layer.num_layers):
        own = slice(number * directions, (number + 1) * directions)
        weights = [weight for k in range(own.start, own.stop) for weight in layer.all_weights[k]]
        x, final = _layer(layer, x, lengths, tuple(part[own] for part in state), weights, directions)
        finals.append(final)
    last = tuple(parts[0] if len(parts) == 1 else torch.cat(parts) for parts in zip(*finals, strict=True))
    if packed is not None:
        if packed.unsorted_indices is not None:
            last = tuple(part.index_select(1, packed.unsorted_indices) for part in last)
        outputs: Any = PackedSequence(x, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
    elif single:
        outputs, last = x.squeeze(1), tuple(part.squeeze(1) for part in last)
    else:
        outputs = x.transpose(0, 1) if layer.batch_first else x
    return outputs, last if is_lstm else last[0]


def _layer(
    layer: nn.RNNBase, x: Tensor, lengths: Tensor | None, state: State, weights: Sequence[Tensor], directions: int
) -> tuple[Tensor, State]:
    """One layer, both directions: (T, B, I) and states (D, B, H) -> (T, B, D·P) and the final states."""
    if isinstance(layer, nn.GRU):
        outputs, hidden = torch.ops.edgedl.gru_layer(x, lengths, list(state), weights, directions)
        return outputs, (hidden,)
    if isinstance(layer, nn.LSTM) and not layer.proj_size:
        outputs, *last = torch.ops.edgedl.lstm_layer(x, lengths, list(state), weights, directions)
        return outputs, tuple(last)
    each = len(weights) // directions
    parts = [weights[k * each : (k + 1) * each] for k in range(directions)]
    if isinstance(layer, nn.LSTM):
        step, widths = _projected_lstm(parts), [layer.proj_size, layer.hidden_size]
    else:
        squash = torch.tanh if layer.nonlinearity == "tanh" else torch.relu
        step, widths = _elman(parts, squash), [layer.hidden_size]
    if not state:
        state = tuple(x.new_zeros(directions, x.shape[1], width) for width in widths)
    return _both_ways(step, [from_inputs(x, part) for part in parts], lengths, state)


def _joined(matrices: Sequence[Tensor]) -> Tensor:
    """Matrices transposed for multiplying from the right: (I, O) for one direction, (2, I, O) for two."""
    return matrices[0].t() if len(matrices) == 1 else torch.stack([matrix.t() for matrix in matrices])


def _elman(parts: Sequence[Sequence[Tensor]], squash: Callable[[Tensor], Tensor]) -> Step:
    """The next hidden state is squash(given + h·W)."""
    matrix = _joined([part[1] for part in parts])

    def step(given: Tensor, state: State) -> tuple[Tensor, State]:
        hidden = squash(given + state[0] @ matrix)
        return hidden, (hidden,)

    return step


def _projected_lstm(parts: Sequence[Sequence[Tensor]]) -> Step:
    """An LSTM whose output is projected (Sak et al. 2014): the state is (P, H) wide."""
    matrix, projection = _joined([part[1] for part in parts]), _joined([part[-1] for part in parts])

    def step(given: Tensor, state: State) -> tuple[Tensor, State]:
        i, f, g, o = (given + state[0] @ matrix).chunk(4, dim=-1)
        cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        hidden = (o.sigmoid() * cell.tanh()) @ projection
        return hidden, (hidden, cell)

    return step


def _both_ways(step: Step, given: list[Tensor], lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
    """Scans one direction, or two as one batch.

    The loop knows nothing of lengths, every operator in it costs: each row goes on through its padding, backwards it
    begins with its own last step, and afterwards the outputs of the padding become zero and the final state is looked
    up where the row ended.

    Args:
        step: for rows (B, …), or (2, B, …) where there are two directions.
        given: the inputs' shares (T, B, G) of each direction.
        lengths: (B,), or None where all rows have T steps.
        state: (D, B, …) each.
    """
    two = len(given) == 2
    turned = partial(_turned, order=None if lengths is None else _backwards(lengths, given[0].shape[0]))
    xs = torch.stack([given[0], turned(given[1])], dim=1) if two else given[0]  # (T, 2, B, G) or (T, B, G)
    if not two:
        state = tuple(part.squeeze(0) for part in state)
    if lengths is None:
        outputs, state = _scan(step, xs, state)
    else:
        parts = _scan_all(step, xs, state)
        rows = torch.arange(xs.shape[-2], device=xs.device)
        state = tuple(part[lengths - 1, ..., rows, :] for part in parts)  # (B, …) or (B, 2, …)
        state = tuple(part.transpose(0, 1) if two else part for part in state)
        outputs = parts[0]
    if two:
        outputs = torch.cat([outputs[:, 0], turned(outputs[:, 1])], dim=-1)
    else:
        state = tuple(part.unsqueeze(0) for part in state)
    if lengths is not None:
        outputs = torch.where(_there(lengths, xs.shape[0]).unsqueeze(-1), outputs, 0.0)
    return outputs, state


def _there(lengths: Tensor, steps: int) -> Tensor:
    """Which steps a row has: (B,) -> (T, B)."""
    return torch.arange(steps, device=lengths.device).unsqueeze(1) < lengths


def _backwards(lengths: Tensor, steps: int) -> Tensor:
    """The step of each row that comes t-th from its end; padding stays where it is: (B,) -> (T, B)."""
    forwards = torch.arange(steps, device=lengths.device).unsqueeze(1)
    return torch.where(_there(lengths, steps), lengths - 1 - forwards, forwards)


def _turned(x: Tensor, order: Tensor | None) -> Tensor:
    """(T, B, …) from the end of each row to its beginning."""
    return x.flip(0) if order is None else x[order, torch.arange(x.shape[1], device=x.device)]


def _scan(step: Step, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    """The outputs at every step, and the state after the last one."""
    state, (outputs,) = _scanned(step, inputs, state, lambda output, after: (output,))
    return outputs, state


def _scan_all(step: Step, inputs: Tensor, state: State) -> State:
    """Every part of the state at every step."""
    return _scanned(step, inputs, state, lambda output, after: after)[1]


def _scanned(step: Step, inputs: Tensor, state: State, kept: Callable[[Tensor, State], State]) -> tuple[State, State]:
    """The scan of torch, which becomes ONNX's; it forbids an output to be the very tensor that is carried."""
    from torch._higher_order_ops.scan import scan

    def body(carried: State, given: Tensor) -> tuple[State, State]:
        output, after = step(given, carried)
        return after, tuple(part.clone() for part in kept(output, after))

    state, outputs = scan(body, state, inputs, dim=0)
    return tuple(state), tuple(outputs)


def cell_layer(kind: str, inputs: Tensor, state: State, weights: Sequence[Tensor]) -> tuple[Tensor, State]:
    """A cell over time is a layer with that cell's weights.

    Args:
        kind: ``tanh`` or ``relu`` of an Elman cell, ``gru`` or ``lstm``.
        inputs: (T, B, I).
        state: before the first step, (B, H) each.
        weights: of the input, of the state, and the two biases if there are any.

    Returns:
        The outputs (T, B, H) and the state after the last step.
    """
    state = tuple(part.unsqueeze(0) for part in state)
    if kind == "gru":
        outputs, *last = torch.ops.edgedl.gru_layer(inputs, None, list(state), list(weights), 1)
        state = tuple(last)
    elif kind == "lstm":
        outputs, *last = torch.ops.edgedl.lstm_layer(inputs, None, list(state), list(weights), 1)
        state = tuple(last)
    else:
        squash = torch.tanh if kind == "tanh" else torch.relu
        outputs, state = _both_ways(_elman([weights], squash), [from_inputs(inputs, weights)], None, state)
    return outputs, tuple(part.squeeze(0) for part in state)


def scan_steps(
    step: Callable[[State, State], tuple[State, State]], given: Sequence[Tensor], state: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """A step of any number of inputs, states and outputs over time: a Python loop in torch, ``Scan`` in the graph.

    Args:
        step: takes what is given at a step and the state, gives the next state and the outputs.
        given: (T, …) each.
        state: before the first step.

    Returns:
        The state after the last step, and the outputs (T, …).
    """
    if torch.compiler.is_compiling():
        from torch._higher_order_ops.scan import scan

        # torch wants a state, no two parts of it to be one tensor, and all of it laid out as it is after a step.
        begin = tuple(part.clone(memory_format=torch.contiguous_format) for part in state) or (given[0].new_zeros(1),)

        def body(carried: State, now: State) -> tuple[State, State]:
            after, kept = step(now, carried[: len(state)])
            after = tuple(part.contiguous() for part in after) or (carried[0].clone(),)
            return after, tuple(part.clone() for part in kept)

        last, outputs = scan(body, begin, tuple(given), dim=0)
        return *last[: len(state)], *outputs
    after, collected = tuple(state), []
    for now in zip(*given, strict=True):
        after, kept = step(now, after)
        collected.append(kept)
    return *after, *(torch.stack(parts) for parts in zip(*collected, strict=True))


def _cell_kind(cell: nn.RNNCellBase) -> str:
    if isinstance(cell, nn.RNNCell):
        return cell.nonlinearity
    return "gru" if isinstance(cell, nn.GRUCell) else "lstm"


def _cell_step(cell: nn.RNNCellBase, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    after = cell(inputs, state if isinstance(cell, nn.LSTMCell) else state[0])
    after = after if isinstance(cell, nn.LSTMCell) else (after,)
    return after[0], after


class _Packing:
    """Stands in for torch's packing while a module is traced: a packed sequence keeps its padding, time first.

    Everything else is as ever: rows sorted by length, ``batch_sizes`` (T,) how many rows have such a step.
    """

    @staticmethod
    def _pack_padded_sequence(inputs: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
        x = inputs.transpose(0, 1) if batch_first else inputs
        return x, _there(lengths, x.shape[0]).sum(dim=1)

    @staticmethod
    def _pad_packed_sequence(
        data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: int
    ) -> tuple[Tensor, Tensor]:
        lengths = lengths_of(batch_sizes, data.shape[1])
        if padding_value:
            data = torch.where(_there(lengths, data.shape[0]).unsqueeze(-1), data, padding_value)
        return data.transpose(0, 1) if batch_first else data, lengths
