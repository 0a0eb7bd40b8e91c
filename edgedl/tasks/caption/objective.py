"""How captioning networks learn: teacher forcing, what softens it, and self-critical learning on CIDEr-D.

===================  ==========================================================================  ======================
what                 how                                                                         source
===================  ==========================================================================  ======================
teacher forcing      cross-entropy of each next word, given the true words before it             Williams, Zipser 1989
label smoothing      a share of each target is spread over all words                             Szegedy et al. 2016
scheduled sampling   some of the words before are the network's own                              Bengio et al. 2015
word dropout         some of the words before are hidden, so that the picture has to be looked   Bowman et al. 2016
                     at
concepts             beside the words, which of them some caption of the clip has                Fang et al. 2015
self-critical        the log-probability of sampled captions, weighted by how much better each   Rennie et al. 2017,
                     scores on CIDEr-D than the other samples of the same clip                   Luo 2020
===================  ==========================================================================  ======================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgedl.tasks.caption.config import CaptionOptions
from edgedl.tasks.caption.network.caption_network import CaptionNetwork
from edgedl.tasks.caption.network.captioning import Decoder, Memory
from edgedl.tasks.caption.network.cells import State
from exporters.decoding import beam_search
from runtime.errors import InputError
from runtime.vocabulary import END, UNKNOWN

ABSENT = -1
"""Target of the positions after a caption's end: they are not learnt from."""

LEAST_NATS = 1e-6
"""A concept that is told less likely than this teaches no more than one that is told so."""

MOST_ALIVE = 0.8
"""Of the captions that a decoder works on; where fewer are not over yet, the others leave."""


class Reward(Protocol):
    """Scores captions against the references of their clips, as `edgedl.tasks.caption.cider.CiderD` does."""

    def scores(self, candidates: list[list[int]], indices: list[int]) -> NDArray[np.float64]:
        """Candidates (N token lists) and the numbers (N) of their clips -> (N,) scores."""
        ...


@dataclass(frozen=True, slots=True)
class CaptionLearning:
    """How a `CaptionNetwork` learns, and how it is judged: by its greedy captions.

    A batch holds ``features`` (B, T, P, F) or (B, T, h, w, F) of a frozen encoder, or ``clips`` (B, T, H, W, 3) uint8
    for an encoder that learns as well; ``counts`` (B,); ``words`` (B, R, L) int64, each caption with its `END`, then
    `ABSENT`; ``targets``, the same with `ABSENT` for what is not to be learnt; ``clip`` (B,), the clip's number for the
    reward; and ``progress``, the share of the training that is over.

    Attributes:
        options: See `CaptionOptions`.
        epochs: Of the whole training, self-critical ones included.
        max_length: Most words of a sampled caption.
        reward: CIDEr-D against the training captions; needed for self-critical learning only.
        judge: CIDEr-D against the validation captions.
    """

    options: CaptionOptions
    epochs: int
    max_length: int
    judge: Reward
    reward: Reward | None = None
    monitor: str = "CIDEr-D"
    mode: Literal["min", "max"] = field(default="max")

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The mean loss of a batch."""
        assert isinstance(network, CaptionNetwork)  # noqa: S101 - narrows the type
        progress = float(batch["progress"])
        epoch = round(progress * self.epochs)
        self_critical = epoch >= self.epochs - self.options.self_critical
        rests = epoch < self.options.top_from or (self_critical and not self.options.self_critical_top)
        network.decoder.top_rests = rests
        if self_critical:
            with sampling(network, self.options.self_critical_dropout):
                return self._self_critical(network, remembered(network, batch), batch)
        memory = remembered(network, batch)
        targets = batch["targets"]
        before = shifted(batch["words"])
        hidden_words = self.options.word_dropout
        if hidden_words:
            hide = (torch.rand(before.shape, device=before.device) < hidden_words) & (before != END)
            before = before.masked_fill(hide, UNKNOWN)
        own = self.options.scheduled_sampling * progress
        logits, places = spoken(network.decoder, memory, before, batch["words"] != ABSENT, own)
        loss = F.cross_entropy(
            logits.float(),
            targets.flatten()[places],
            ignore_index=ABSENT,
            label_smoothing=self.options.label_smoothing,
        )
        untold = network.decoder.untold(memory)
        if untold is not None and self.options.concept_weight:
            loss = loss + self.options.concept_weight * concept_nats(untold, batch["words"])
        return loss

    def measure(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, int]]:
        """Sums over the batch, with counts: nats a word; of greedy captions, CIDEr-D and whether each is exact; nats
        of a clip's concepts.
        """
        assert isinstance(network, CaptionNetwork)  # noqa: S101 - narrows the type
        memory = remembered(network, batch)
        targets = batch["targets"]
        logits, places = spoken(network.decoder, memory, shifted(batch["words"]), batch["words"] != ABSENT, 0.0)
        words = int((targets != ABSENT).sum())
        nats = F.cross_entropy(logits.float(), targets.flatten()[places], ignore_index=ABSENT, reduction="sum")
        tokens, lengths, _ = greedy(network, memory, self.max_length)
        said = as_lists(tokens[:, 0], lengths[:, 0])
        scores = self.judge.scores(said, batch["clip"].tolist())
        references = [[[w for w in line if w > END] for line in lines] for lines in batch["words"].tolist()]
        exact = sum(line in lines for line, lines in zip(said, references, strict=True))
        untold = network.decoder.untold(memory)
        concepts = {} if untold is None else {"concepts": (concept_nats(untold, batch["words"]) * len(said), len(said))}
        return {
            "loss": (nats, words),
            "CIDEr-D": (torch.as_tensor(scores).sum(), len(said)),
            "accuracy": (torch.tensor(exact), len(said)),
            **concepts,
        }

    def _self_critical(self, network: CaptionNetwork, memory: Memory, batch: Mapping[str, Tensor]) -> Tensor:
        """-(reward - mean reward of the clip's other samples) · log-probability, a mean over the words.

        Luo 2020, "A better variant of self-critical sequence training": the other samples are the baseline. The end
        counts as a word of the reward, or captions that break off would pay.

        The log-probabilities are those by which the words were drawn: a sample from another distribution than the one
        that is changed would leave the loss without a lower bound.
        """
        if self.reward is None:
            raise InputError("self-critical learning needs the training captions as its reward")
        count = self.options.samples
        drawn, nats = sampled(network, memory, count, self.max_length)  # (B, S, L)
        clips = batch["clip"].repeat_interleave(count)
        said = [[token for token in row if token != ABSENT] for row in drawn.flatten(0, 1).tolist()]
        rewards = torch.as_tensor(self.reward.scores(said, clips.tolist()), device=nats.device).float()
        rewards = rewards.reshape(-1, count)  # (B, S)
        others = (rewards.sum(dim=1, keepdim=True) - rewards) / (count - 1)
        return ((rewards - others).unsqueeze(2) * nats).sum() / (drawn != ABSENT).sum()


@contextmanager
def sampling(network: CaptionNetwork, rate: float) -> Iterator[None]:
    """Evaluation mode for a while, but for the dropout of what is remembered, which has another rate.

    Gradients flow as before.
    """
    training, dropout = network.training, network.decoder.memory_dropout
    usual = dropout.p
    network.eval()
    dropout.p = rate
    dropout.train(rate > 0)
    try:
        yield
    finally:
        dropout.p = usual
        network.train(training)


def remembered(network: CaptionNetwork, batch: Mapping[str, Tensor]) -> Memory:
    """What the decoder remembers of a batch, from features or from pixels."""
    counts = batch["counts"]
    if "features" in batch:
        return network.decoder.remember(batch["features"].to(network.decoder.dtype), counts)
    clips = batch["clips"]
    frames = network.frame_features(clips.flatten(0, 1))  # (B·T, P, F)
    return network.decoder.remember(frames.reshape(*clips.shape[:2], *frames.shape[1:]), counts)


def concept_nats(untold: Tensor, words: Tensor) -> Tensor:
    """Cross-entropy of which concepts a clip shows, the sum over them and the mean over the clips.

    What is to be told is the share of the clip's captions that have the word.

    Args:
        untold: (B, C), nats of not being told, see `edgedl.tasks.caption.network.attention.AttendingDecoder.remember`.
        words: (B, R, L), captions; the concepts are the first words behind `UNKNOWN`.
    """
    first, count = UNKNOWN + 1, untold.shape[1]
    has = untold.new_zeros(*words.shape[:2], first + count)
    of_concepts = torch.where(words < first + count, words, END).clamp(min=END)
    share = has.scatter_(2, of_concepts, 1.0).mean(dim=1)[:, first:]  # (B, C)
    told = torch.log(-torch.expm1(-untold.clamp(min=LEAST_NATS)))
    return ((1 - share) * untold - share * told).sum(dim=1).mean()


def shifted(targets: Tensor) -> Tensor:
    """The words before each target: (B, R, L) moved by one, `END` first."""
    return F.pad(targets[:, :, :-1].clamp(min=END), (1, 0), value=END)


def spoken(decoder: Decoder, memory: Memory, before: Tensor, there: Tensor, own: float) -> tuple[Tensor, Tensor]:
    """What a decoder makes of captions: all words at once where it can, else word by word.

    Args:
        decoder: any.
        memory: of B clips.
        before: (B, R, L), the word before each word.
        there: (B, R, L), whether a caption has such a word, the first ones of each; only those are worked on.
        own: share of the words before that are replaced by what the decoder draws itself.

    Returns:
        Logits (N, V) of the N words that are there, and where each stands in (B·R·L).
    """
    if decoder.at_once and own == 0:
        read_at_once, where = decoder.captions(before, there.sum(dim=2), memory)
        return decoder.logits(read_at_once), where
    length = before.shape[2]
    words, there = before.flatten(0, 1), there.flatten(0, 1)
    lines = _Lines.of(decoder, memory, before.shape[1])
    read: list[Tensor] = []
    places: list[Tensor] = []
    hidden = memory[0].new_empty(len(lines.numbers), 0)
    for index in range(length):
        alive = there[lines.numbers, index]
        if not bool(alive.any()):
            break
        kept = lines.leave(alive)
        if kept is not None:
            alive, hidden = alive[kept], hidden.index_select(0, kept)
        tokens = words[lines.numbers, index].unsqueeze(1)
        if own > 0 and index > 0:
            with torch.no_grad():
                guess = drawn_from(decoder.logits(hidden))
            tokens = torch.where(torch.rand(tokens.shape, device=tokens.device) < own, guess, tokens)
        hidden, lines.state = decoder.advance(tokens, lines.state, lines.memory)  # (n, 1, H)
        now = alive.nonzero().squeeze(1)
        read.append(hidden.squeeze(1).index_select(0, now))
        places.append(lines.numbers[now] * length + index)
    return decoder.logits(torch.cat(read)), torch.cat(places)


def sampled(network: CaptionNetwork, memory: Memory, rows: int, max_length: int) -> tuple[Tensor, Tensor]:
    """Captions drawn word by word, by a decoder without dropout.

    Returns:
        The words (B, R, L) int64, `END` included, then `ABSENT`; and -log of the probability by which each was drawn
        (B, R, L), through which gradients flow, 0 for what is absent. `UNKNOWN` is never drawn and is not among the
        words that share the probability: left there, it takes what bad samples lose and never gives it back; the
        validation loss rose from 2.9 to 525 nats within four epochs.
    """
    decoder, clips = network.decoder, memory[0].shape[0]
    if decoder.at_once:
        said = _drawn(decoder, memory, rows, max_length)
        logits, places = spoken(decoder, memory, shifted(said), said != ABSENT, 0.0)
        costs = F.cross_entropy(without_unknown(logits.float()), said.flatten()[places], reduction="none")
        return said, costs.new_zeros(said.numel()).index_copy(0, places, costs).view_as(said)
    lines = _Lines.of(decoder, memory, rows)
    tokens = torch.full((clips * rows, 1), END, device=memory[0].device)
    alive = torch.ones_like(tokens.squeeze(1), dtype=torch.bool)
    drawn: list[Tensor] = []
    nats: list[Tensor] = []
    for _ in range(max_length):
        logits, lines.state = decoder.step(tokens, lines.state, lines.memory)
        logits = without_unknown(logits.float())  # (n, 1, V)
        tokens = drawn_from(logits.detach())
        cost = F.cross_entropy(logits.squeeze(1), tokens.squeeze(1), reduction="none")
        now = alive.nonzero().squeeze(1)
        numbers = lines.numbers[now]
        drawn.append(tokens.new_full((clips * rows,), ABSENT).index_copy(0, numbers, tokens.squeeze(1)[now]))
        nats.append(cost.new_zeros(clips * rows).index_copy(0, numbers, cost.index_select(0, now)))
        alive = alive & (tokens.squeeze(1) != END)
        if not bool(alive.any()):
            break
        kept = lines.leave(alive)
        if kept is not None:
            alive, tokens = alive[kept], tokens[kept]
    return torch.stack(drawn, dim=1).reshape(clips, rows, -1), torch.stack(nats, dim=1).reshape(clips, rows, -1)


@torch.no_grad()
def _drawn(decoder: Decoder, memory: Memory, rows: int, max_length: int) -> Tensor:
    """The words of `sampled`, with what depends on weights alone multiplied beforehand, as in a search."""
    clips = memory[0].shape[0]
    memory = tuple(part.detach() for part in memory)
    matrix, bias = decoder.word_matrix()
    tables = decoder.word_tables()
    alive = torch.arange(clips * rows, device=memory[0].device)
    tokens = torch.full_like(alive, END)
    state = tuple(part.flatten(0, 1) for part in decoder.begin(memory, rows))
    drawn: list[Tensor] = []
    for _ in range(max_length):
        hidden, state = decoder.advance_some(tokens, state, memory, tables, alive, rows)
        tokens = drawn_from(without_unknown((hidden @ matrix + bias).float()))
        drawn.append(torch.full((clips * rows,), ABSENT, device=alive.device).index_copy(0, alive, tokens))
        on = (tokens != END).nonzero().squeeze(1)
        if not len(on):
            break
        alive, tokens, state = alive[on], tokens[on], tuple(part[on] for part in state)
    return torch.stack(drawn, dim=1).view(clips, rows, -1)


@dataclass(slots=True)
class _Lines:
    """Captions under way: the decoder works on n rows of one caption each, and those that are over leave.

    Captions are half as long on average as the longest of a hundred. Rows leave in groups, because each time what all
    others remember is copied.

    Attributes:
        numbers: (n,), which captions they are.
        memory: of each row's clip.
        state: of each row.
    """

    numbers: Tensor
    memory: Memory
    state: State

    @classmethod
    def of(cls, decoder: Decoder, memory: Memory, rows: int) -> _Lines:
        """Captions that have not begun, R of each of B clips, a clip's behind each other."""
        numbers = torch.arange(memory[0].shape[0] * rows, device=memory[0].device)
        memory = tuple(part.index_select(0, numbers // rows) for part in memory)
        return cls(numbers, memory, decoder.begin(memory, 1))

    def leave(self, alive: Tensor) -> Tensor | None:
        """Lets those go that are not alive (n,), if they are many: which ones stay, or None where nothing happened."""
        if int(alive.sum()) > MOST_ALIVE * len(alive):
            return None
        kept = alive.nonzero().squeeze(1)
        self.numbers = self.numbers[kept]
        self.memory = tuple(part.index_select(0, kept) for part in self.memory)
        self.state = tuple(part.index_select(0, kept) for part in self.state)
        return kept


def without_unknown(logits: Tensor) -> Tensor:
    """Logits (…, V) by which `UNKNOWN` is never said."""
    return logits.index_fill(-1, torch.tensor([UNKNOWN], device=logits.device), -torch.inf)


def drawn_from(logits: Tensor) -> Tensor:
    """One token of each row by its soft-max: (B, R, V) -> (B, R), one random number a row.

    Inversion takes an eighth of the time of the Gumbel-max trick, which draws V numbers a row; of a self-critical step
    that was a third. Words of less than 1e-7 may be passed over: a sum in float32 does not notice them.
    """
    up_to = logits.float().softmax(dim=-1).cumsum(dim=-1)  # (B, R, V)
    chance = torch.rand((*logits.shape[:-1], 1), device=logits.device) * up_to[..., -1:]
    return torch.searchsorted(up_to, chance, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)


def greedy(network: CaptionNetwork, memory: Memory, max_length: int) -> tuple[Tensor, Tensor, Tensor]:
    """The most likely word at every step: tokens (B, 1, L), lengths (B, 1), scores (B, 1)."""
    return beam_search(
        lambda tokens, state: network.decoder.step(tokens, state, memory),
        network.decoder.begin(memory, 1),
        batch=memory[0].shape[0],
        width=1,
        max_length=max_length,
        length_penalty=0.0,
        end=END,
        suppressed=(UNKNOWN,),
    )


def as_lists(tokens: Tensor, lengths: Tensor) -> list[list[int]]:
    """Rows of tokens (N, L) cut to their lengths (N,)."""
    return [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
