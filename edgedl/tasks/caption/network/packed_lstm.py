"""A layer of LSTM over captions whose words are all known, without the cost of a step by step graph.

Words of many captions are packed: one time step after the other, the longest captions first, so that the captions that
go on are always the first rows and nothing is copied as others end. The input's share in the gates is one product for
all words; only the hidden state's share has to wait for the step before. Its gradient, too, is one product at the end
instead of a sum over steps.

100 captions of 11 words on average, 384 units, forward and backward on one thread (AVX2): 124 ms, which is what the
products alone take; ``nn.LSTM`` 175 ms, padded or packed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the n words of N captions lie: step after step, the longest captions first.

    Attributes:
        rows: (n,) which caption a word belongs to.
        times: (n,) which of its words it is.
        sizes: how many captions have a word at each step; never grows.
    """

    rows: Tensor
    times: Tensor
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, lengths: Tensor) -> Packing:
        """Of captions with so many words each, (N,) int64; at least one must have a word."""
        order = torch.argsort(lengths, descending=True, stable=True)
        sizes = tuple(int((lengths > time).sum()) for time in range(int(lengths.max())))
        rows = torch.cat([order[:size] for size in sizes])
        times = torch.repeat_interleave(torch.tensor(sizes)).to(lengths.device)
        return cls(rows, times, sizes)


def packed_lstm(given: Tensor, weight: Tensor, packing: Packing) -> Tensor:
    """Hidden states of an LSTM that begins with zeros, as `edgedl.tasks.caption.network.cells.LSTMCell` has them.

    Computed in the weights' precision, under autocast too: a memory cell adds up small shares for many steps.

    Args:
        given: (n, 4H) packed: the share of inputs and bias in the gates i, f, g, o.
        weight: (4H, H), of the hidden state.
        packing: where the words lie.

    Returns:
        (n, H) packed.
    """
    with torch.autocast(given.device.type, enabled=False):
        return cast("Tensor", _PackedLSTM.apply(given.to(weight.dtype), weight, packing.sizes))  # type: ignore[no-untyped-call]


class _PackedLSTM(torch.autograd.Function):
    """Back-propagation through time by hand, on what the forward pass kept."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """See `packed_lstm`."""
        width = weight.shape[1]
        gates = torch.empty_like(given)
        hidden = given.new_empty(len(given), width)
        cells = torch.empty_like(hidden)
        h, c = given.new_zeros(2, sizes[0], width)
        for here in _steps(sizes):
            count = here.stop - here.start
            now = torch.addmm(given[here], h[:count], weight.t(), out=gates[here])
            now[:, : 2 * width].sigmoid_()
            now[:, 2 * width : 3 * width].tanh_()
            now[:, 3 * width :].sigmoid_()
            i, f, g, o = now.chunk(4, dim=1)
            c = torch.mul(f, c[:count], out=cells[here]).addcmul_(i, g)
            h = torch.tanh(c, out=hidden[here]).mul_(o)
        ctx.save_for_backward(gates, hidden, cells, weight)
        ctx.sizes = sizes
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """From ∂/∂(hidden states) to ∂/∂(shares in the gates) and ∂/∂(weight)."""
        gates, hidden, cells, weight = ctx.saved_tensors
        before, by_gates = torch.zeros_like(hidden), torch.zeros_like(gates)
        by_h, by_c = grad.new_zeros(2, 0, weight.shape[1])  # what the step after hands back; it has fewer captions
        steps = list(_steps(ctx.sizes))
        for index in reversed(range(len(steps))):
            here = steps[index]
            i, f, g, o = gates[here].chunk(4, dim=1)
            by_i, by_f, by_g, by_o = by_gates[here].chunk(4, dim=1)
            squashed = cells[here].tanh()
            down = grad[here].clone()
            down[: len(by_h)] += by_h
            torch.mul(down, squashed, out=by_o).mul_(o * (1 - o))
            down.mul_(o).mul_(1 - squashed * squashed)
            down[: len(by_c)] += by_c
            torch.mul(down, g, out=by_i).mul_(i * (1 - i))
            torch.mul(down, i, out=by_g).mul_(1 - g * g)
            if index:  # before the first word there was nothing
                start, count = steps[index - 1].start, here.stop - here.start
                before[here] = hidden[start : start + count]
                torch.mul(down, cells[start : start + count], out=by_f).mul_(f * (1 - f))
                by_c, by_h = down * f, by_gates[here] @ weight
        return by_gates, by_gates.t() @ before, None


def _steps(sizes: tuple[int, ...]) -> list[slice]:
    """Where the words of each step lie."""
    return [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]
