"""Decoders for the tests of the search, and an independent search in numpy: lists, loops and the rule word for word."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exporters.decoding import Step, beam_search, decision_margins
from exporters.spec import Input, Output

Floats = NDArray[np.float64]
Follow = Callable[[Sequence[int]], Floats]
"""Words so far, without the start -> logits (V,) of the next."""


@dataclass(frozen=True, slots=True)
class Rule:
    width: int = 3
    max_length: int = 7
    length_penalty: float = 0.7
    end: int = 0
    suppressed: tuple[int, ...] = (1,)


def log_probabilities(logits: Floats, rule: Rule) -> Floats:
    logits = logits.astype(np.float64).copy()
    logits[list(rule.suppressed)] = -np.inf
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def reference_search(follow: Follow, rule: Rule) -> list[tuple[list[int], float]]:
    """Words without the end, and score, of the best hypotheses of one item, in order."""
    alive: list[tuple[list[int], float]] = [([], 0.0)]  # every hypothesis: tokens with the end, sum
    for step in range(rule.max_length):
        candidates = []
        for row, (tokens, total) in enumerate(alive):
            if tokens and tokens[-1] == rule.end:
                candidates.append((-total / len(tokens) ** rule.length_penalty, row, rule.end, tokens, total))
                continue
            assert len(tokens) == step
            for token, gain in enumerate(log_probabilities(follow(tokens), rule)):
                if gain > -np.inf:
                    rank = (total + gain) / (step + 1) ** rule.length_penalty
                    candidates.append((-rank, row, token, [*tokens, token], total + gain))
        candidates.sort(key=lambda candidate: candidate[:3])
        alive = [(tokens, total) for *_, tokens, total in candidates[: rule.width]]
        if len(alive) == rule.width and all(tokens[-1] == rule.end for tokens, _ in alive):
            break
    return [
        ([token for token in tokens if token != rule.end], total / len(tokens) ** rule.length_penalty)
        for tokens, total in alive
    ]


def every_sequence(follow: Follow, rule: Rule, vocabulary: int) -> list[tuple[list[int], float]]:
    """All that can be said in at most ``max_length`` tokens, best first: no search at all."""
    found = []
    words = [token for token in range(vocabulary) if token != rule.end and token not in rule.suppressed]
    for length in range(rule.max_length + 1):
        for sentence in itertools.product(words, repeat=length):
            tokens = [*sentence, rule.end] if length < rule.max_length else list(sentence)
            total = sum(log_probabilities(follow(tokens[:at]), rule)[token] for at, token in enumerate(tokens))
            found.append((list(sentence), total / len(tokens) ** rule.length_penalty))
    return sorted(found, key=lambda answer: -answer[1])


def as_arrays(answers: Sequence[list[tuple[list[int], float]]], rule: Rule) -> tuple[NDArray, NDArray, Floats]:
    """The answers of a batch as `beam_search` gives them."""
    shape = (len(answers), rule.width)
    tokens = np.full((*shape, rule.max_length), rule.end, np.int64)
    lengths, scores = np.zeros(shape, np.int64), np.full(shape, -np.inf)
    for item, hypotheses in enumerate(answers):
        for row, (words, score) in enumerate(hypotheses[: rule.width]):
            tokens[item, row, : len(words)] = words
            lengths[item, row], scores[item, row] = len(words), score
    return tokens, lengths, scores


class Searching(nn.Module):
    """A module that searches: ``x`` (B, …) in; tokens, lengths and scores out."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule

    def begin(self, x: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def stepping(self, x: Tensor) -> Step:
        """One step of the decoder for this ``x``."""
        raise NotImplementedError

    def follow(self, x: Floats) -> Follow:
        """The decoder for one item in numpy and float64."""
        raise NotImplementedError

    def _named(self, x: Tensor) -> dict[str, object]:
        rule = self.rule
        return {
            "batch": x.shape[0],
            "width": rule.width,
            "max_length": rule.max_length,
            "length_penalty": rule.length_penalty,
            "end": rule.end,
            "suppressed": rule.suppressed,
        }

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return beam_search(self.stepping(x), self.begin(x), **self._named(x))

    def margins(self, x: Tensor) -> Tensor:
        return decision_margins(self.stepping(x), self.begin(x), **self._named(x))

    def reference(self, x: Floats) -> tuple[NDArray, NDArray, Floats]:
        return as_arrays([reference_search(self.follow(item), self.rule) for item in x], self.rule)

    def outputs(self) -> tuple[Output, ...]:
        width, length = self.rule.width, self.rule.max_length
        return (
            Output("tokens", "int64", ("B", width, length), decision="exact"),
            Output("lengths", "int64", ("B", width), decision="exact"),
            Output("scores", "float32", ("B", width)),
        )


class LSTMSearch(Searching):
    """An LSTM whose first hidden state is made from ``x`` (B, 5); its weights are large, so that it is decided."""

    VECTOR = Input("x", "float32", ("B", 5))

    def __init__(self, rule: Rule, *, vocabulary: int = 11, scale: float = 3.0) -> None:
        super().__init__(rule)
        hidden = 16
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embedding = nn.Embedding(vocabulary, 8)
            self.gates = nn.Linear(8 + hidden, 4 * hidden)
            self.head = nn.Linear(hidden, vocabulary)
            self.project = nn.Linear(5, hidden)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter *= scale
        self.eval()

    def begin(self, x: Tensor) -> tuple[Tensor, ...]:
        h = self.project(x).unsqueeze(1).expand(-1, self.rule.width, -1).clone()
        return h, torch.zeros_like(h)

    def stepping(self, x: Tensor) -> Step:
        return self.step

    def step(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        h, c = state
        i, f, g, o = self.gates(torch.cat([self.embedding(tokens), h], dim=-1)).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return self.head(h), (h, c)

    def follow(self, x: Floats) -> Follow:
        weights = {name: tensor.detach().double().numpy() for name, tensor in self.named_parameters()}

        def sigmoid(value: Floats) -> Floats:
            return 1 / (1 + np.exp(-value))

        def follow(words: Sequence[int]) -> Floats:
            h = weights["project.weight"] @ x.astype(np.float64) + weights["project.bias"]
            c = np.zeros_like(h)
            for word in (self.rule.end, *words):
                column = np.concatenate([weights["embedding.weight"][word], h])
                i, f, g, o = np.split(weights["gates.weight"] @ column + weights["gates.bias"], 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            return weights["head.weight"] @ h + weights["head.bias"]

        return follow


class TableSearch(Searching):
    """The next word depends on the last one only: ``x`` (B, V, V) is the table of logits, row = last word."""

    def __init__(self, rule: Rule, vocabulary: int) -> None:
        super().__init__(rule)
        self.vocabulary = vocabulary
        self.eval()

    @property
    def table(self) -> Input:
        return Input("x", "float32", ("B", self.vocabulary, self.vocabulary))

    def begin(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x.new_zeros((x.shape[0], self.rule.width, 1)),)

    def stepping(self, x: Tensor) -> Step:
        def step(tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
            return x.gather(1, tokens.unsqueeze(-1).expand(-1, -1, self.vocabulary)), (state[0] + 1,)

        return step

    def follow(self, x: Floats) -> Follow:
        return lambda words: x[words[-1] if words else self.rule.end]
