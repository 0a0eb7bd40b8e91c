"""Decoders that look at the places of all frames' grids, so that a word can come from any of them.

Anderson et al. 2018, "Bottom-up and top-down attention", section 3.2: one recurrent layer looks, the other speaks, and
what was said enters the first again. Lu et al. 2017, "Knowing when to look", section 2.2 (spatial attention): one
recurrent layer; what it looks at is joined to it behind the recurrence and never returns. So all words of a known
caption can be worked out at once, which makes its training cost a third.

Fang et al. 2015, "From captions to visual concepts and back", section 3: each place says how likely it shows each of
the most frequent words, and a word is told unless no place shows it. Wu et al. 2016, "What value do explicit high level
concepts have in vision to language problems?": what is told helps to choose the words of the caption.

Shapes as in `edgedl.tasks.caption.network.captioning`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.tasks.caption.network.captioning import Decoder, Memory, frames_that_count, mean_over_frames
from edgedl.tasks.caption.network.cells import CellName, LSTMCell, State, Table, cell_of
from edgedl.tasks.caption.network.packed_lstm import Packing, packed_lstm

SELDOM = -7.0
"""Logit by which a place tells a concept at the beginning: a hundred places tell one in ten."""

FAR_BELOW = -1e9
"""Added to the attention score of a place that does not exist; -inf would make a row without places NaN."""


class AttendingDecoder(Decoder):
    """What both have in common: a value and a key for each place.

    The attention is a scaled product of a recurrent layer's output with a key of each place, over the grids of all
    frames at once.

    Args:
        features: F.
        vocabulary: V.
        embedding: width of the word vectors.
        hidden: H.
        cell: ``lstm`` or ``gru``.
        dropout: see `Decoder`.
        memory_dropout: see `Decoder`.
        places: P, where the network is to know the places of the grid apart; 0 where it need not.
        concepts: C, so many of the most frequent words are told from the places before any is chosen; 0 for none.
        pooled: attend to the mean of the frames instead of to each of them: the trace of what moves.
        spread: see `Decoder`.
        layers: recurrent layers.
        top: the last blocks of the encoder, (N, F, h, w) -> (N, `features`, h, w), where the decoder has them for
            itself. What they are given stays beside what they make of it. Their batch statistics are kept.
    """

    from_clip: nn.Linear
    top: nn.Module | None

    def __init__(
        self,
        features: int,
        vocabulary: int,
        *,
        embedding: int = 512,
        hidden: int = 512,
        cell: CellName = "lstm",
        dropout: float = 0.3,
        memory_dropout: float = 0.0,
        places: int = 0,
        concepts: int = 0,
        pooled: bool = False,
        spread: float = 0.08,
        layers: int = 2,
        top: nn.Module | None = None,
    ) -> None:
        super().__init__(
            vocabulary,
            embedding,
            hidden,
            cell=cell,
            dropout=dropout,
            memory_dropout=memory_dropout,
            spread=spread,
            layers=layers,
        )
        self.places, self.pooled, self.top = places, pooled, top
        if top is not None:
            self.given = nn.LayerNorm(features)
            features += int(top.features)  # type: ignore[arg-type]  # a plain int attribute
        self.project = nn.Linear(features, hidden)
        if places:
            self.where = nn.Parameter(torch.randn(places, hidden) * 0.02)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.concepts = concepts
        if concepts:
            self.tell = nn.Linear(hidden, concepts)
            nn.init.constant_(self.tell.bias, SELDOM)
            self.told = nn.Linear(concepts, hidden, bias=False)

    def remember(self, features: Tensor, counts: Tensor) -> Memory:
        """Values (B, H, T·P), keys (B, T·P, H), what is added to the scores (B, 1, T·P), the clip's share in the gates.

        With concepts a fifth: (B, C), the nats of each being told by no place of a frame, the mean over the frames.

        Values lie transposed: ONNX Runtime multiplies few rows with a transposed matrix in three quarters of the time.
        """
        features = features.flatten(2, -2) if self.top is None else self._through_top(features)
        if self.pooled:
            features, counts = mean_over_frames(features, counts).unsqueeze(1), torch.ones_like(counts)
        values = self.project(self._without_channels(features))
        if self.places:
            values = values + self.where
        values = self._without_channels(values.relu())  # (B, T, P, H)
        counted = frames_that_count(counts, features.shape[1], features.dtype)  # (B, T)
        untold: Memory = ()
        if self.concepts:
            nats = F.softplus(self.tell(values)).sum(dim=2, dtype=features.dtype)  # (B, T, C)
            # The mean over the frames: a clip of thirty frames tells no more than a photo.
            untold = (mean_over_frames(nats.unsqueeze(2), counts).squeeze(1),)  # (B, C)
            # Shares of attention sum to one, so what is added to all values is added to what is seen.
            values = values + self.told(-torch.expm1(-untold[0]))[:, None, None]
        mean = mean_over_frames(values, counts).mean(dim=1)  # (B, H)
        absent = ((1 - counted) * FAR_BELOW).unsqueeze(2).expand(values.shape[:3])  # (B, T, P)
        values = values.flatten(1, 2)
        return (
            values.transpose(1, 2),
            self.key(values) / math.sqrt(self.hidden),
            absent.flatten(1).unsqueeze(1),
            self.from_clip(mean).unsqueeze(1),
            *untold,
        )

    def _through_top(self, features: Tensor) -> Tensor:
        """What the top makes of the grids, and what it was given: (B, T, P, F) or (B, T, h, w, F) -> (B, T, P, F')."""
        assert self.top is not None  # noqa: S101 - narrows the type
        if features.dim() == 4:
            side = math.isqrt(features.shape[2])
            features = features.reshape(*features.shape[:2], side, side, features.shape[3])
        maps = features.flatten(0, 1).permute(0, 3, 1, 2)  # (B·T, F, h, w)
        if self.top_rests:
            with torch.no_grad():
                seen = self.top(maps)
        else:
            seen = self.top(maps)
        given = self.given(features.flatten(2, 3))  # (B, T, P, F)
        seen = seen.flatten(2).transpose(1, 2).reshape(*given.shape[:3], -1)
        return torch.cat([seen.to(given.dtype), given], dim=-1)

    def train(self, mode: bool = True) -> AttendingDecoder:
        """As `nn.Module.train`, but the top keeps its batch statistics."""
        super().train(mode)
        if self.top is not None:
            self.top.eval()
        return self

    def _without_channels(self, values: Tensor) -> Tensor:
        """Dropout of whole channels of (B, T, P, …)."""
        if not (self.memory_dropout.training and self.memory_dropout.p):
            return values
        kept: Tensor = self.memory_dropout(values.new_ones(values.shape[0], 1, 1, values.shape[3]))
        return values * kept

    @property
    def attends(self) -> bool:
        """It does."""
        return True

    def untold(self, memory: Memory) -> Tensor | None:
        """See `Decoder.untold`."""
        return memory[4] if self.concepts else None

    @property
    def parts(self) -> int:
        """See `Decoder.parts`."""
        return 5 if self.concepts else 4

    def attend(self, query: Tensor, memory: Memory) -> Tensor:
        """Where to look: (B, R, H) -> (B, R, T·P), rows summing to one."""
        keys, absent = memory[1:3]
        return (query @ keys.transpose(1, 2) + absent).softmax(dim=-1)

    def seen(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """The mean of the values at where is looked, (B, R, H) -> (B, R, H), and the shares of `attend`."""
        where = self.attend(query, memory)
        return where @ memory[0].transpose(1, 2), where

    def advance(
        self, tokens: Tensor, state: State, memory: Memory, tables: tuple[Table, ...] = ()
    ) -> tuple[Tensor, State]:
        """See `Decoder.advance`."""
        hidden, _, state = self.look(tokens, state, memory, tables)
        return hidden, state


class AttentionDecoder(AttendingDecoder):
    """Two recurrent layers with attention between: the first says where to look, the second what to say."""

    def __init__(self, features: int, vocabulary: int, **shape: Any) -> None:
        super().__init__(features, vocabulary, layers=2, **shape)
        embedding, hidden = self.embedding.embedding_dim, self.hidden
        self.first = cell_of(self.cell, embedding + hidden, hidden)
        self.second = cell_of(self.cell, 2 * hidden, hidden)
        self.from_clip = nn.Linear(hidden, self.first.factor * hidden, bias=False)

    def look(
        self, tokens: Tensor, state: State, memory: Memory, tables: tuple[Table, ...] = ()
    ) -> tuple[Tensor, Tensor, State]:
        """As `advance`, with the attention (B, R, T·P) of the step in the middle."""
        clip = memory[3]
        first, second = self._split(state)
        if tables:
            ((shares, rest),) = tables
            first = self.first(second[0], first, F.embedding(tokens, shares) + clip, rest)
        else:
            words = self.dropout(self.embedding(tokens))
            first = self.first(torch.cat([words, second[0]], dim=-1), first, clip)
        seen, where = self.seen(first[0], memory)
        second = self.second(torch.cat([seen, first[0]], dim=-1), second)
        return second[0], where, (*first, *second)


class SpatialDecoder(AttendingDecoder):
    """One recurrent layer, and attention behind it: what was seen is joined to it for the next word only."""

    def __init__(self, features: int, vocabulary: int, **shape: Any) -> None:
        super().__init__(features, vocabulary, layers=1, **shape)
        self.first = cell_of(self.cell, self.embedding.embedding_dim, self.hidden)
        self.from_clip = nn.Linear(self.hidden, self.first.factor * self.hidden, bias=False)
        self.join = nn.Linear(2 * self.hidden, self.hidden)

    def look(
        self, tokens: Tensor, state: State, memory: Memory, tables: tuple[Table, ...] = ()
    ) -> tuple[Tensor, Tensor, State]:
        """As `advance`, with the attention (B, R, T·P) of the step in the middle."""
        clip = memory[3]
        if tables:
            ((shares, rest),) = tables
            state = self.first(None, state, F.embedding(tokens, shares) + clip, rest)
        else:
            state = self.first(self.dropout(self.embedding(tokens)), state, clip)
        seen, where = self.seen(state[0], memory)
        return self._joined(seen, state[0]), where, state

    @property
    def at_once(self) -> bool:
        """Where the layer is an LSTM."""
        return isinstance(self.first, LSTMCell)

    def captions(self, before: Tensor, lengths: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """See `Decoder.captions`."""
        gates = self.first.gates
        assert isinstance(gates, nn.Linear)  # noqa: S101 - narrows the type
        clips, rows, length = before.shape
        packing = Packing.of(lengths.flatten())
        places = packing.rows * length + packing.times
        width = self.embedding.embedding_dim
        words, state = gates.weight[:, :width], gates.weight[:, width:]
        said = self.dropout(self.embedding(before.flatten()[places]))
        clip = memory[3].squeeze(1).index_select(0, packing.rows // rows)
        hidden = packed_lstm(F.linear(said, words, gates.bias) + clip, state, packing)
        return self._read(hidden, places, (clips, rows * length), memory), places

    def advance_some(
        self, tokens: Tensor, state: State, memory: Memory, tables: tuple[Table, ...], rows: Tensor, of: int
    ) -> tuple[Tensor, State]:
        """See `Decoder.advance_some`."""
        ((shares, rest),) = tables
        clip = memory[3].squeeze(1).index_select(0, rows // of)
        state = self.first(None, state, F.embedding(tokens, shares) + clip, rest)
        return self._read(state[0], rows, (memory[3].shape[0], of), memory), state

    def _read(self, hidden: Tensor, places: Tensor, shape: tuple[int, int], memory: Memory) -> Tensor:
        """What is read out (n, H) of hidden states (n, H) that stand at some of the places of (B, R).

        What a clip remembers is multiplied once for all its rows, so those that are not there are zeros for a moment.
        """
        whole = hidden.new_zeros(shape[0] * shape[1], self.hidden).index_copy(0, places, hidden)
        seen, _ = self.seen(whole.view(*shape, self.hidden), memory)
        return self._joined(seen.flatten(0, 1).index_select(0, places), hidden)

    def _joined(self, seen: Tensor, hidden: Tensor) -> Tensor:
        """What is read out of what was seen (…, H) and of hidden states (…, H)."""
        read: Tensor = self.join(torch.cat([seen, hidden], dim=-1)).tanh()
        return read


ATTENDING: Mapping[str, type[AttendingDecoder]] = {"spatial": SpatialDecoder, "attention": AttentionDecoder}
"""By the names that runs and command lines have for them."""
