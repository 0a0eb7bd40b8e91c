"""Captioning networks: frames -> features -> words, after Venugopalan et al. 2015.

Venugopalan et al. 2015, "Translating videos to natural language using deep recurrent neural networks": a CNN on every
frame, the mean over the frames, two LSTM layers. Decoders that look at places are in the module ``attention``.

Shapes: B clips of T frames, a grid of P places a frame, F features a place; R rows a clip (captions while learning,
hypotheses while searching), L words, V words in the vocabulary, H hidden units.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.tasks.caption.network.cells import Cell, CellName, State, Table, cell_of
from runtime.vocabulary import END

Form = Literal["factored", "paper"]
Memory = tuple[Tensor, ...]


def frames_that_count(counts: Tensor, frames: int, dtype: torch.dtype) -> Tensor:
    """1 where a frame belongs to its clip and 0 where it is padding: (B,) -> (B, T)."""
    return (torch.arange(frames, device=counts.device) < counts.unsqueeze(1)).to(dtype)


def mean_over_frames(features: Tensor, counts: Tensor) -> Tensor:
    """The mean over the frames that count: (B, T, P, F) and (B,) -> (B, P, F)."""
    counted = frames_that_count(counts, features.shape[1], features.dtype)
    shares = counted / counted.sum(dim=1, keepdim=True)  # (B, T)
    return (features * shares[:, :, None, None]).sum(dim=1)


class Decoder(nn.Module):
    """What a decoder of any kind offers: memory from features, then words one after the other.

    Args:
        vocabulary: V.
        embedding: width of the word vectors.
        hidden: H.
        layers: recurrent layers with a state.
        cell: ``lstm`` or ``gru``.
        dropout: share of word vectors and readout that is dropped while training.
        memory_dropout: share of the channels of features, and of what is made of them, that is dropped while training:
            the same for all frames and places of a clip (Tompson et al. 2015), because what is dropped at one place
            could be read off its neighbours.
        spread: bounds of the word vectors at the beginning; the author's network had 0.08.
    """

    first: Cell
    top_rests = False
    """The encoder's last blocks, where a decoder has them, do not learn for now."""

    def __init__(
        self,
        vocabulary: int,
        embedding: int,
        hidden: int,
        *,
        cell: CellName,
        dropout: float,
        memory_dropout: float = 0.0,
        layers: int = 2,
        spread: float = 0.08,
    ) -> None:
        super().__init__()
        self.words, self.hidden, self.layers, self.cell = vocabulary, hidden, layers, cell
        self.embedding = nn.Embedding(vocabulary, embedding)
        nn.init.uniform_(self.embedding.weight, -spread, spread)
        self.dropout, self.memory_dropout = nn.Dropout(dropout), nn.Dropout(memory_dropout)
        self.readout = nn.Linear(hidden, embedding)
        self.word_bias = nn.Parameter(torch.zeros(vocabulary))

    def remember(self, features: Tensor, counts: Tensor) -> Memory:
        """What the words are chosen by: features (B, T, P, F) or (B, T, h, w, F) and counts (B,) -> tensors (B, …)."""
        raise NotImplementedError

    def untold(self, memory: Memory) -> Tensor | None:
        """The nats of each concept being told by no place of a frame, (B, C); None without concepts."""
        return None

    @property
    def parts(self) -> int:
        """How many tensors `remember` gives."""
        return 1

    def begin(self, memory: Memory, rows: int) -> State:
        """The state before the first word: zeros, tensors (B, R, H)."""
        count = self.layers * (2 if self.cell == "lstm" else 1)
        return tuple(memory[0].new_zeros((memory[0].shape[0], rows, self.hidden)) for _ in range(count))

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State]:
        """One word: the previous tokens (B, R) -> logits (B, R, V) of the next, and the next state."""
        hidden, state = self.advance(tokens, state, memory)
        return self.logits(hidden), state

    def advance(
        self, tokens: Tensor, state: State, memory: Memory, tables: tuple[Table, ...] = ()
    ) -> tuple[Tensor, State]:
        """The recurrent part of a step: what is read out (B, R, H), and the next state.

        With `tables`, of `word_tables`, words are looked up as their shares in the gates and not multiplied.
        """
        raise NotImplementedError

    def word_tables(self) -> tuple[Table, ...]:
        """What the words do to the first layer's gates: it depends on weights alone, like `word_matrix`."""
        return (self.first.table(self.embedding.weight),)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of all words: (…, H) -> (…, V). Words are compared with their own vectors (Press and Wolf 2017)."""
        return F.linear(self.readout(self.dropout(hidden)), self.embedding.weight, self.word_bias)

    def word_matrix(self) -> tuple[Tensor, Tensor]:
        """The two products of `logits` as one: a matrix (H, V), and what is added, (V,)."""
        vectors = self.embedding.weight.t()
        return self.readout.weight.t() @ vectors, self.readout.bias @ vectors + self.word_bias

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        return next(self.parameters()).dtype

    @property
    def attends(self) -> bool:
        """Whether it has an attention to be looked at."""
        return False

    def look(
        self, tokens: Tensor, state: State, memory: Memory, tables: tuple[Table, ...] = ()
    ) -> tuple[Tensor, Tensor, State]:
        """As `advance`, with the attention (B, R, T·P) of the step in the middle; of decoders that attend."""
        raise NotImplementedError

    @property
    def at_once(self) -> bool:
        """Whether it has `captions` and `advance_some`."""
        return False

    def captions(self, before: Tensor, lengths: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """What `advance` reads out at all words of known captions, of decoders that need not go step by step.

        Args:
            before: (B, R, L), the word before each word.
            lengths: (B, R) int64, how many words of each caption there are.
            memory: of `remember`.

        Returns:
            (n, H) for the n words that are there, and where each stands in (B·R·L).
        """
        raise NotImplementedError

    def advance_some(
        self, tokens: Tensor, state: State, memory: Memory, tables: tuple[Table, ...], rows: Tensor, of: int
    ) -> tuple[Tensor, State]:
        """As `advance`, for captions some of which are over, of decoders that have `captions`.

        Args:
            tokens: (n,), the previous words of those that are not.
            state: of tensors (n, H).
            memory: of `remember`, of all B clips.
            tables: of `word_tables`.
            rows: (n,) which of the B·R captions they are.
            of: R.
        """
        raise NotImplementedError

    def attention(self, tokens: Tensor, memory: Memory) -> Tensor | None:
        """Where the decoder looked as it chose each word of captions; None if it does not attend.

        Args:
            tokens: (B, R, L) captions as the search gives them, without `END` before the first word.
            memory: of `remember`.

        Returns:
            (B, R, L, T·P), for each word shares that sum to one; T is 1 where the decoder attends to the mean.
        """
        if not self.attends:
            return None
        state = self.begin(memory, tokens.shape[1])
        before = F.pad(tokens[:, :, :-1], (1, 0), value=END)
        steps = []
        for index in range(tokens.shape[2]):
            _, where, state = self.look(before[:, :, index], state, memory)
            steps.append(where)
        return torch.stack(steps, dim=2)

    def forward(self, features: Tensor, counts: Tensor, tokens: Tensor) -> Tensor:
        """Teacher forcing: the words so far (B, R, L), the first being `END` -> logits (B, R, L, V) of the next."""
        memory = self.remember(features, counts)
        state = self.begin(memory, tokens.shape[1])
        read = []
        for index in range(tokens.shape[2]):
            hidden, state = self.advance(tokens[:, :, index], state, memory)
            read.append(hidden)
        return self.logits(torch.stack(read, dim=2))

    def _split(self, state: State) -> tuple[State, State]:
        """The states of the two layers."""
        half = len(state) // 2
        return state[:half], state[half:]


class MeanPoolDecoder(Decoder):
    """Mean pooling and two recurrent layers.

    Args:
        features: F.
        vocabulary: V.
        embedding: width of the word vectors; the author's was 1000.
        hidden: H; the author's was 1000.
        form: ``factored``: the mean enters the second layer, as in the author's code by default; ``paper``: the first.
        cell: ``lstm`` or ``gru``.
        dropout: see `Decoder`.
        memory_dropout: see `Decoder`.
        places: 0 pools over the grid as well; P keeps its places apart, for what is told by where things are.
        spread: see `Decoder`.
    """

    def __init__(
        self,
        features: int,
        vocabulary: int,
        *,
        embedding: int = 512,
        hidden: int = 512,
        form: Form = "factored",
        cell: CellName = "lstm",
        dropout: float = 0.3,
        memory_dropout: float = 0.3,
        places: int = 0,
        spread: float = 0.08,
    ) -> None:
        super().__init__(
            vocabulary, embedding, hidden, cell=cell, dropout=dropout, memory_dropout=memory_dropout, spread=spread
        )
        self.form, self.places = form, places
        self.project = nn.Linear(features * max(places, 1), hidden)
        self.first = cell_of(cell, embedding, hidden)
        self.second = cell_of(cell, hidden, hidden)
        self.from_clip = nn.Linear(hidden, self.first.factor * hidden, bias=False)

    def remember(self, features: Tensor, counts: Tensor) -> Memory:
        """The clip's share in the gates: (B, 1, 4H), or 3H for the GRU."""
        features = features.flatten(2, -2)
        if not self.places:
            features = features.mean(dim=2, keepdim=True)  # the grid before the frames: less to multiply
        mean = mean_over_frames(features, counts).flatten(1)  # (B, P·F) or (B, F)
        clip = self.memory_dropout(self.project(self.memory_dropout(mean)).relu())
        return (self.from_clip(clip).unsqueeze(1),)

    def advance(
        self, tokens: Tensor, state: State, memory: Memory, tables: tuple[Table, ...] = ()
    ) -> tuple[Tensor, State]:
        """See `Decoder.advance`."""
        (clip,) = memory
        first, second = self._split(state)
        early = clip if self.form == "paper" else None
        if tables:
            ((shares, rest),) = tables
            words = F.embedding(tokens, shares)
            first = self.first(None, first, words if early is None else words + early, rest)
        else:
            first = self.first(self.dropout(self.embedding(tokens)), first, early)
        second = self.second(self.dropout(first[0]), second, clip if self.form == "factored" else None)
        return second[0], (*first, *second)
