"""Greedy and beam search as one graph: the same search in torch and, as an ONNX ``Loop``, in the exported graph.

The rule, for every item of a batch by itself (``width`` K hypotheses, ``max_length`` L, ``length_penalty`` α):

- A hypothesis is a sequence of tokens with the sum of their log-probabilities (log-softmax over the vocabulary without
  the suppressed tokens, which are never emitted). The search begins with one, the empty one.
- In each step a live hypothesis is continued by every token; emitting ``end`` finishes it. A finished hypothesis has
  one continuation, itself.
- Continuations are ranked by ``sum / length ** α``; the length counts the token ``end``. The best K are kept, in
  falling order. Of equal ones that which continues the earlier hypothesis goes first, then the lower token.
- The search ends when all K are finished, or after L steps: what is unfinished then has L tokens.

Greedy search is K = 1. Where fewer than K sequences exist, the missing ones are empty and have a score of -inf.

Only the best K continuations of one hypothesis can be among the best K of all, so each is cut to its K first; within
one hypothesis the order of the logits is the order of the sums. `TopK` of ONNX puts the lower index first where values
are equal; ``torch.topk`` promises nothing, so `largest` stands in for it.

The bookkeeping of a step is one operator of torch and, in the graph, 30 small nodes beside the decoder's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

State = tuple[Tensor, ...]
Step = Callable[[Tensor, State], tuple[Tensor, State]]
"""(tokens (B, K) int64, state of tensors (B, K, …)) -> (logits (B, K, V), the state after these tokens)."""

LOWEST = float("-inf")


def beam_search(
    step: Step,
    state: Sequence[Tensor],
    *,
    batch: int,
    width: int,
    max_length: int,
    length_penalty: float,
    end: int = 0,
    suppressed: Sequence[int] = (1,),
) -> tuple[Tensor, Tensor, Tensor]:
    """The best ``width`` sequences that ``step`` can go through; see the module's docstring for the rule.

    Runs as a Python loop, and while it is being exported as ``torch.while_loop``, which becomes an ONNX ``Loop`` with
    the stop as its condition and a batch of any size. There ``step`` may use parameters of modules and other tensors
    from around it; they stay outside the loop's body.

    Args:
        step: one step of the decoder; first called with ``end`` as the token, which also begins a sequence.
        state: what ``step`` carries before the first token, each tensor (B, K, …). Sums have the dtype of the first
            float tensor among them, else torch's default.
        batch: B.
        width: K, how many hypotheses are kept.
        max_length: L, after so many tokens a hypothesis is cut.
        length_penalty: α; 0 ranks by the sum, 1 by the mean.
        end: the token that begins and ends a sequence.
        suppressed: tokens that are never emitted.

    Returns:
        tokens (B, K, L) int64, ``end`` after the end; lengths (B, K) int64 without the end; scores (B, K), the sum
        divided by the length (with the end) to the power of α, falling.

    Raises:
        ValueError: width or max_length is below 1, or ``end`` is suppressed.
    """
    search = _Search(step, batch, width, max_length, float(length_penalty), end, tuple(suppressed))
    run = search.exported if torch.compiler.is_compiling() else search.eager
    return search.conclude(run(tuple(state)))


def decision_margins(step: Step, state: Sequence[Tensor], **rule: Any) -> Tensor:
    """How far each search is from another answer: for choosing inputs whose tokens other arithmetic must reproduce.

    Args:
        step: see `beam_search`.
        state: see `beam_search`.
        **rule: all that `beam_search` takes by name.

    Returns:
        (B,): the smallest gap between the last continuation that was kept and the first that was dropped in any step,
        and between neighbours in the final order. Scores that are off by less than half of it change no token.
    """
    search = _Search(step, **{"end": 0, "suppressed": (1,), **rule})
    margins: list[Tensor] = []
    _, _, scores = search.conclude(search.eager(tuple(state), margins))
    margins.append(_gaps(scores).amin(dim=1))
    return torch.stack(margins).amin(dim=0)


@cache
def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The ``custom_translation_table`` of `torch.onnx.export` for the operators of this module."""
    import onnx
    import onnxscript

    op: Any = onnxscript.opset18  # its own type hints only fit values, not the graph values seen while tracing

    def constant(array: NDArray[Any]) -> Any:
        return op.Constant(value=onnx.numpy_helper.from_array(array))

    def ints(*values: int) -> Any:
        return constant(np.array(values, np.int64))

    def take(values: Any, rows: Any) -> Any:
        # Rows (B, K) of (B·K, …) give (B, K, …) again. Of -1 and numbers, so that no shape is computed in the loop.
        return op.Gather(op.Reshape(values, ints(-1, *list(values.shape)[2:])), rows, axis=0)

    def beam_step(
        logits: Any,
        sums: Any,
        finished: Any,
        tokens: Any,
        position: Any,
        penalties: Any,
        offsets: Any,
        end: int,
        suppressed: Sequence[int],
    ) -> tuple[Any, ...]:
        width, vocabulary = int(logits.shape[1]), int(logits.shape[2])
        length, cut = int(tokens.shape[2]), min(width, vocabulary)
        dtype = logits.dtype.numpy()
        if len(suppressed):
            mask = np.zeros(vocabulary, dtype)
            mask[list(suppressed)] = LOWEST
            logits = op.Add(logits, constant(mask))
        gains, choices = op.TopK(op.LogSoftmax(logits, axis=-1), ints(cut), axis=-1)  # (B, K, cut)
        closed = op.Unsqueeze(finished, ints(-1))  # (B, K, 1)
        stay = np.full(cut, LOWEST, dtype)
        stay[0] = 0
        totals = op.Add(op.Unsqueeze(sums, ints(-1)), op.Where(closed, constant(stay), gains))
        choices = op.Where(closed, ints(end), choices)
        divisor = op.Where(closed, constant(np.array(1, dtype)), op.Gather(penalties, position))
        flat = ints(-1, width * cut)
        ranks, best = op.TopK(op.Reshape(op.Div(totals, divisor), flat), ints(width), axis=-1)  # (B, K)
        chosen = op.GatherElements(op.Reshape(choices, flat), best, axis=1)
        sums = op.GatherElements(op.Reshape(totals, flat), best, axis=1)
        # A continuation of probability 0 is none: going on from it would only give NaN.
        finished = op.Or(op.Equal(chosen, ints(end)), op.Equal(ranks, constant(np.array(LOWEST, dtype))))
        sums = op.Where(finished, ranks, sums)
        rows = op.Add(op.Div(best, ints(cut)), offsets)
        here = op.Equal(constant(np.arange(length)), position)
        tokens = op.Where(here, op.Unsqueeze(chosen, ints(-1)), take(tokens, rows))
        return chosen, rows, sums, finished, tokens

    def unfinished(finished: Any, position: Any, length: int) -> Any:
        all_finished = op.ReduceMin(op.Cast(finished, to=onnx.TensorProto.INT32), keepdims=0)
        return op.And(
            op.Less(position, constant(np.array(length))), op.Not(op.Cast(all_finished, to=onnx.TensorProto.BOOL))
        )

    operators = torch.ops.edgedl
    return {
        operators.beam_step.default: beam_step,
        operators.beam_take.default: take,
        operators.beam_unfinished.default: unfinished,
    }


@dataclass(frozen=True, slots=True)
class _Search:
    """One search: its rule, and what is carried from step to step."""

    step: Step
    batch: int
    width: int
    max_length: int
    length_penalty: float
    end: int
    suppressed: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.width < 1 or self.max_length < 1:
            raise ValueError(f"width is {self.width} and max_length {self.max_length}; both must be at least 1")
        if self.end in self.suppressed:
            raise ValueError(f"the token {self.end} ends a sequence and is suppressed: no sequence could end")

    def begin(self, state: State) -> tuple[Tensor, ...]:
        """Before the first step: tokens (B, K, L), sums, finished and the tokens to go on from (B, K).

        Hypotheses that do not exist yet are finished ones with a sum of -inf.
        """
        dtype = next((tensor.dtype for tensor in state if tensor.is_floating_point()), torch.get_default_dtype())
        device = state[0].device if state else None
        shape = (self.batch, self.width)
        first = torch.arange(self.width, device=device) == 0
        sums = torch.where(first, 0.0, LOWEST).to(dtype).expand(shape).clone()
        finished = (~first).expand(shape).clone()
        tokens = torch.full((*shape, self.max_length), self.end, dtype=torch.int64, device=device)
        return tokens, sums, finished, torch.full(shape, self.end, dtype=torch.int64, device=device)

    def penalties(self, like: Tensor) -> Tensor:
        """Length ** α of a continuation in step t, whose length is t + 1: (L,)."""
        lengths = torch.arange(1, self.max_length + 1, dtype=torch.float64)
        return (lengths**self.length_penalty).to(like)

    def eager(self, state: State, margins: list[Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """A Python loop; adds the margin of each step's choice (B,) to ``margins``."""
        tokens, sums, finished, last = self.begin(state)
        penalties, offsets = self.penalties(sums), _offsets(self.batch, self.width, sums.device)
        for position in range(self.max_length):
            logits, state = self.step(last, state)
            if margins is not None:
                margins.append(_step_margin(logits, sums, finished, penalties[position], self.suppressed))
            last, rows, sums, finished, tokens = _choose(
                logits, sums, finished, tokens, position, penalties[position], offsets, self.end, self.suppressed
            )
            if bool(finished.all()):
                break
            state = tuple(tensor.flatten(0, 1)[rows] for tensor in state)
        return tokens, sums, finished

    def exported(self, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """The same as ``torch.while_loop``; the carried values are one tuple, since it takes nothing else."""
        operators = torch.ops.edgedl
        start = self.begin(state)
        penalties, offsets = self.penalties(start[1]), _offsets(self.batch, self.width, start[1].device)

        def goes_on(position: Tensor, tokens: Tensor, sums: Tensor, finished: Tensor, *_: Tensor) -> Tensor:
            going: Tensor = operators.beam_unfinished(finished, position, self.max_length)
            return going

        def body(
            position: Tensor, tokens: Tensor, sums: Tensor, finished: Tensor, last: Tensor, *state: Tensor
        ) -> tuple[Tensor, ...]:
            logits, state = self.step(last, state)
            last, rows, sums, finished, tokens = operators.beam_step(
                logits, sums, finished, tokens, position, penalties, offsets, self.end, self.suppressed
            )
            taken = tuple(operators.beam_take(tensor, rows) for tensor in state)
            return position + 1, tokens, sums, finished, last, *taken

        position = torch.zeros((), dtype=torch.int64, device=start[1].device)
        found = torch.while_loop(goes_on, body, (position, *start, *state))  # type: ignore[no-untyped-call]
        return found[1], found[2], found[3]

    def conclude(self, found: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Lengths, the scores of what is unfinished, and nothing but ends where there is no sequence."""
        tokens, sums, finished = found
        scores = torch.where(finished, sums, sums / self.penalties(sums)[-1])
        tokens = torch.where((scores == LOWEST).unsqueeze(-1), self.end, tokens)
        return tokens, (tokens != self.end).sum(dim=-1), scores


def largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest along the last axis, falling; of equal ones the lower index first.

    ``torch.topk`` finds them, but leaves open which of equal values it takes and in which order. So where there are
    equal ones, all is sorted.
    """
    top, index = values.topk(count, dim=-1)
    at_least = (values >= top[..., -1:]).sum(dim=-1)
    if bool((at_least > count).any()) or bool((top[..., 1:] == top[..., :-1]).any()):
        top, index = values.sort(dim=-1, descending=True, stable=True)
    return top[..., :count], index[..., :count]


def _offsets(batch: int, width: int, device: torch.device) -> Tensor:
    """The row of each item's first hypothesis when all hypotheses stand in one line: (B, 1)."""
    return (torch.arange(batch, device=device) * width).unsqueeze(1)


def _ranked(
    logits: Tensor, sums: Tensor, finished: Tensor, penalty: Tensor, suppressed: Sequence[int], cut: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The ``cut`` best continuations of each hypothesis (B, K, cut): tokens, sums and ranks."""
    if suppressed:
        logits = logits.index_fill(-1, torch.tensor(list(suppressed), device=logits.device), LOWEST)
    gains, choices = largest(logits.log_softmax(dim=-1), cut)
    closed = finished.unsqueeze(-1)
    stay = torch.where(torch.arange(cut, device=logits.device) == 0, 0.0, LOWEST).to(gains)
    totals = sums.unsqueeze(-1) + torch.where(closed, stay, gains)
    # The sum of a finished hypothesis was divided when it ended.
    return choices, totals, torch.where(closed, totals, totals / penalty)


def _choose(
    logits: Tensor,
    sums: Tensor,
    finished: Tensor,
    tokens: Tensor,
    position: int,
    penalty: Tensor,
    offsets: Tensor,
    end: int,
    suppressed: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One step's choice: the tokens chosen (B, K), the rows they continue, and the new sums, finished and tokens."""
    width, cut = logits.shape[1], min(logits.shape[1], logits.shape[2])
    choices, totals, ranks = _ranked(logits, sums, finished, penalty, suppressed, cut)
    choices = torch.where(finished.unsqueeze(-1), end, choices)
    best_ranks, best = largest(ranks.flatten(1), width)  # (B, K) of K·cut
    chosen = choices.flatten(1).gather(1, best)
    finished = (chosen == end) | (best_ranks == LOWEST)
    sums = torch.where(finished, best_ranks, totals.flatten(1).gather(1, best))
    rows = best // cut + offsets
    tokens = tokens.flatten(0, 1)[rows]
    tokens[:, :, position] = chosen
    return chosen, rows, sums, finished, tokens


def _step_margin(logits: Tensor, sums: Tensor, finished: Tensor, penalty: Tensor, suppressed: Sequence[int]) -> Tensor:
    """The gap between the last continuation that is kept and the first that is not: (B,)."""
    width, cut = logits.shape[1], min(logits.shape[1] + 1, logits.shape[2])
    ranks = _ranked(logits, sums, finished, penalty, suppressed, cut)[2].flatten(1)
    return _gaps(ranks.sort(dim=1, descending=True).values[:, : width + 1])[:, -1]


def _gaps(falling: Tensor) -> Tensor:
    """Differences of neighbours (B, N) -> (B, N - 1 or more); without bound where there is nothing to confuse."""
    endless = torch.full_like(falling[:, :1], -LOWEST)
    gaps = falling[:, :-1] - falling[:, 1:]
    return torch.cat([endless, torch.where(falling[:, 1:] == LOWEST, endless, gaps)], dim=1)


@torch.library.custom_op("edgedl::beam_step", mutates_args=())
def _beam_step(
    logits: Tensor,
    sums: Tensor,
    finished: Tensor,
    tokens: Tensor,
    position: Tensor,
    penalties: Tensor,
    offsets: Tensor,
    end: int,
    suppressed: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    at = int(position)
    return _choose(logits, sums, finished, tokens, at, penalties[at], offsets, end, suppressed)


@_beam_step.register_fake
def _(
    logits: Tensor,
    sums: Tensor,
    finished: Tensor,
    tokens: Tensor,
    position: Tensor,
    penalties: Tensor,
    offsets: Tensor,
    end: int,
    suppressed: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    whole = torch.empty_like(sums, dtype=torch.int64)
    return whole, torch.empty_like(whole), torch.empty_like(sums), torch.empty_like(finished), torch.empty_like(tokens)


@torch.library.custom_op("edgedl::beam_take", mutates_args=())
def _beam_take(values: Tensor, rows: Tensor) -> Tensor:
    return values.flatten(0, 1)[rows]


@_beam_take.register_fake
def _(values: Tensor, rows: Tensor) -> Tensor:
    return torch.empty_like(values)


@torch.library.custom_op("edgedl::beam_unfinished", mutates_args=())
def _beam_unfinished(finished: Tensor, position: Tensor, length: int) -> Tensor:
    return ~finished.all() & (position < length)


@_beam_unfinished.register_fake
def _(finished: Tensor, position: Tensor, length: int) -> Tensor:
    return finished.new_empty(())
