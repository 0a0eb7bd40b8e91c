"""A language model of characters: embedding, recurrent layers, soft-max (Graves 2013; Karpathy's char-rnn 2015)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.tasks.chars.config import Cell

State = tuple[Tensor, ...]

STATES: dict[Cell, int] = {"lstm": 2, "gru": 1}
"""Tensors of the state: hidden state and cell, or the hidden state alone."""


class CharacterNetwork(nn.Module):
    """Tokens and a state give what is expected after each token, and the state after the last.

    Args:
        size: V, how many tokens there are.
        cell: of the recurrent layers.
        hidden: H, units of a layer.
        layers: L.
        embedding: width of a token's vector.
        dropout: of what enters and leaves each layer, while training.
    """

    def __init__(
        self,
        size: int,
        *,
        cell: Cell = "lstm",
        hidden: int = 128,
        layers: int = 1,
        embedding: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.cell: Cell = cell
        self.embed = nn.Embedding(size, embedding)
        layer = nn.LSTM if cell == "lstm" else nn.GRU
        self.recurrent = layer(embedding, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.expect = nn.Linear(hidden, size)
        nn.init.uniform_(self.embed.weight, -0.5, 0.5)
        if cell == "lstm":
            for name, bias in self.recurrent.named_parameters():
                if name.startswith("bias_ih"):
                    with torch.no_grad():
                        # A memory that keeps what it has until it learns to forget (Jozefowicz et al. 2015, 3.3).
                        bias[hidden : 2 * hidden] += 1.0

    def logits(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Unnormalised log-probabilities (B, T, V) of tokens (B, T), and the state (L, B, H) each; None: zeros."""
        given = None if state is None else state if self.cell == "lstm" else state[0]
        outputs, final = self.recurrent(self.dropout(self.embed(tokens)), given)
        return self.expect(self.dropout(outputs)), tuple(final) if self.cell == "lstm" else (final,)

    def forward(self, tokens: Tensor, h0: Tensor, c0: Tensor | None = None) -> tuple[Tensor, ...]:
        """What the bundle's graph answers.

        Args:
            tokens: (B, T) int64.
            h0: (L, B, H), the hidden state before them.
            c0: (L, B, H), the cells before them; LSTM only.

        Returns:
            Log-probabilities (B, T, V) of the token after each, then the state after the last.
        """
        logits, state = self.logits(tokens, (h0,) if c0 is None else (h0, c0))
        return (F.log_softmax(logits, dim=-1), *state)
