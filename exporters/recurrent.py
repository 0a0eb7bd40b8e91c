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
from contextlib import ExitStack, contextmanager
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
def lowered() -> Iterator[None]:
    """While it lasts, the recurrent layers of torch run through the operators of this module, packing included.

    So do subclasses, in what their own ``forward`` calls of the layer's.
    """
    with ExitStack() as stack:
        for kind in _LAYERS:
            stack.enter_context(mock.patch.object(kind, "forward", _run))
        stack.enter_context(mock.patch.object(rnn, "_VF", _Packing()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


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
    for given in inputs.unbind():  # indexing would fill a gradient of all steps at each of them
        output, state = step(given, state)
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
    if not state and type(x.shape[0]) is int and x.shape[0] == 1:  # a step of a loop has a state, the first one too
        state = _zeros(layer, x)
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


def _zeros(layer: nn.RNNBase, x: Tensor) -> State:
    """What a layer begins with if nobody says so: (layers·D, B, …) each."""
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    widths = [layer.hidden_size]
    if isinstance(layer, nn.LSTM):
        widths.insert(0, layer.proj_size or layer.hidden_size)
    return tuple(x.new_zeros(count, x.shape[1], width) for width in widths)


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
        step = _projected_lstm(parts)
    else:
        step = _elman(parts, torch.tanh if layer.nonlinearity == "tanh" else torch.relu)
    state = state or tuple(part[:directions] for part in _zeros(layer, x))
    return _both_ways(step, [from_inputs(x, part) for part in parts], lengths, state)


def _joined(matrices: Sequence[Tensor]) -> Tensor:
    """Matrices transposed for multiplying from the right: (I, O) for one direction, (2, I, O) for two."""
    return matrices[0].t() if len(matrices) == 1 else torch.stack([matrix.t() for matrix in matrices])


_Fixed = tuple["_OwnStep", State]
_OwnStep = Callable[..., tuple[Tensor, State]]
"""A step that is given the matrices it needs, behind its input and its state."""


def _elman(parts: Sequence[Sequence[Tensor]], squash: Callable[[Tensor], Tensor]) -> _Fixed:
    """The next hidden state is squash(given + h·W)."""

    def step(given: Tensor, state: State, matrix: Tensor) -> tuple[Tensor, State]:
        hidden = squash(given + state[0] @ matrix)
        return hidden, (hidden,)

    return step, (_joined([part[1] for part in parts]),)


def _projected_lstm(parts: Sequence[Sequence[Tensor]]) -> _Fixed:
    """An LSTM whose output is projected (Sak et al. 2014): the state is (P, H) wide."""

    def step(given: Tensor, state: State, matrix: Tensor, projection: Tensor) -> tuple[Tensor, State]:
        i, f, g, o = (given + state[0] @ matrix).chunk(4, dim=-1)
        cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        hidden = (o.sigmoid() * cell.tanh()) @ projection
        return hidden, (hidden, cell)

    return step, (_joined([part[1] for part in parts]), _joined([part[-1] for part in parts]))


def _both_ways(own: _Fixed, given: list[Tensor], lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
    """Scans one direction, or two as one batch.

    The loop knows nothing of lengths, every operator in it costs: each row goes on through its padding, backwards it
    begins with its own last step, and afterwards the outputs of the padding become zero and the final state is looked
    up where the row ended.

    Args:
        own: the step for rows (B, …), or (2, B, …) where there are two directions, and its matrices.
        given: the inputs' shares (T, B, G) of each direction.
        lengths: (B,), or None where all rows have T steps.
        state: (D, B, …) each.
    """
    step, fixed = own
    two = len(given) == 2
    turned = partial(_turned, order=None if lengths is None else _backwards(lengths, given[0].shape[0]))
    xs = torch.stack([given[0], turned(given[1])], dim=1) if two else given[0]  # (T, 2, B, G) or (T, B, G)
    if not two:
        state = tuple(part.squeeze(0) for part in state)
    if lengths is None and type(xs.shape[0]) is int and xs.shape[0] == 1:
        outputs, state = step(xs[0], state, *fixed)
        outputs = outputs.unsqueeze(0)
    elif lengths is None:

        def last(now: State, before: State, *matrices: Tensor) -> tuple[State, State]:
            output, after = step(now[0], before, *matrices)
            return after, (output,)

        *final, outputs = scan_steps(last, [xs], state, fixed)
        state = tuple(final)
    else:

        def every(now: State, before: State, *matrices: Tensor) -> tuple[State, State]:
            _, after = step(now[0], before, *matrices)
            return after, after

        parts = scan_steps(every, [xs], state, fixed)[len(state) :]
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
    """The scan of torch, which becomes ONNX's; it forbids an output to be the very tensor that is carried."""
    from torch._higher_order_ops.scan import scan

    def body(carried: State, given: Tensor) -> tuple[State, Tensor]:
        output, after = step(given, carried)
        return after, output.clone()

    state, outputs = scan(body, state, inputs, dim=0)
    return outputs, tuple(state)


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
    step: Callable[..., tuple[State, State]],
    given: Sequence[Tensor],
    state: Sequence[Tensor],
    fixed: Sequence[Tensor] = (),
) -> tuple[Tensor, ...]:
    """A step of any number of inputs, states and outputs over time: a Python loop in torch, ``Scan`` in the graph.

    Args:
        step: takes what is given at a step, the state, and each of what is fixed; gives the next state and the outputs.
            It must read no other tensor.
        given: (T, …) each.
        state: before the first step.
        fixed: the same at every step.

    Returns:
        The state after the last step, and the outputs (T, …).
    """
    state = tuple(state)
    if torch.compiler.is_compiling():
        # What `torch.scan` calls in the end; it would compile the step first, which takes a second.
        from torch._higher_order_ops.scan import scan_op

        # torch wants a state, no two parts of it to be one tensor, and none to be what was given.
        begin = tuple(part.clone(memory_format=torch.contiguous_format) for part in state) or (given[0].new_zeros(1),)

        def body(*arguments: Tensor) -> list[Tensor]:
            before, now = arguments[: len(begin)], arguments[len(begin) : len(begin) + len(given)]
            after, kept = step(now, before[: len(state)], *arguments[len(begin) + len(given) :])
            return [part.clone(memory_format=torch.contiguous_format) for part in (*(after or before), *kept)]

        found = scan_op(body, begin, tuple(given), tuple(_apart(fixed)))
        return tuple(found[: len(state)]) + tuple(found[len(begin) :])
    collected = []
    for now in zip(*given, strict=True):
        state, kept = step(now, state, *fixed)
        collected.append(kept)
    return *state, *(torch.stack(parts) for parts in zip(*collected, strict=True))


def _apart(fixed: Sequence[Any]) -> Iterator[Any]:
    """The same tensors, none of which is a view of another: torch takes that for a change that could be seen."""
    storages = set()
    for tensor in fixed:
        storage = tensor.untyped_storage()._cdata if isinstance(tensor, Tensor) else id(tensor)
        yield tensor.clone() if storage in storages and isinstance(tensor, Tensor) else tensor
        storages.add(storage)


def _cell_kind(cell: nn.RNNCellBase) -> str:
    if isinstance(cell, nn.RNNCell):
        return cell.nonlinearity
    return "gru" if isinstance(cell, nn.GRUCell) else "lstm"


def _cell_step(cell: nn.RNNCellBase, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    after = cell(inputs, state) if isinstance(cell, nn.LSTMCell) else (cell(inputs, state[0]),)
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
        data = torch.where(_there(lengths, data.shape[0]).unsqueeze(-1), data, padding_value) if padding_value else data
        return data.transpose(0, 1) if batch_first else data, lengths
