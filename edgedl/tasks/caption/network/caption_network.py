"""The captioner as it is exported: uint8 clips in, the best captions out, the whole search inside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgedl.tasks.caption.network.captioning import Decoder, Memory
from edgedl.tasks.caption.network.cells import State
from exporters.decoding import beam_search, decision_margins
from exporters.image import resize_images
from runtime.vocabulary import END, UNKNOWN


class CaptionNetwork(nn.Module):
    """The graph that is exported: uint8 clips in, the best captions out.

    Args:
        encoder: maps levels 0..255 (N, 3, S, S) to features (N, F, g, g); has the attributes ``features`` and ``size``.
        decoder: any `Decoder` of F features.
        beam: K, hypotheses that are followed; 1 is the greedy search.
        max_length: L, most words of a caption.
        length_penalty: exponent of the length in a caption's score, see `exporters.decoding`.
    """

    def __init__(
        self, encoder: nn.Module, decoder: Decoder, *, beam: int = 3, max_length: int = 20, length_penalty: float = 0.7
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.beam, self.max_length, self.length_penalty = beam, max_length, length_penalty
        self.size = int(encoder.size)  # type: ignore[arg-type]  # a plain int attribute
        self.encoder_is_frozen = False

    def freeze_encoder(self, frozen: bool) -> None:
        """Whether the encoder stays as it is; a frozen one is not trained, and its batch statistics are kept."""
        self.encoder.requires_grad_(not frozen)
        self.encoder_is_frozen = frozen
        self.train(self.training)

    def train(self, mode: bool = True) -> CaptionNetwork:
        """As `nn.Module.train`, but a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.encoder_is_frozen:
            self.encoder.eval()
        return self

    def frame_features(self, frames: Tensor) -> Tensor:
        """uint8 RGB frames (N, H, W, 3) -> features (N, P, F)."""
        dtype = self.decoder.dtype
        maps = self.encoder(resize_images(frames, (self.size, self.size), dtype))  # (N, F, g, g)
        features: Tensor = maps.flatten(2).transpose(1, 2)
        return features

    def forward(self, clips: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Describes clips.

        Args:
            clips: (B, T, H, W, 3) uint8 RGB.
            counts: (B,) int64, frames of each clip that count, 1 to T.

        Returns:
            Tokens (B, K, L) int64, `END` after the last word; lengths (B, K) int64; scores (B, K), best first.
        """
        frames = self.frame_features(clips.flatten(0, 1))  # (B·T, P, F)
        features = frames.reshape(clips.shape[0], clips.shape[1], *frames.shape[1:])  # (B, T, P, F)
        return self.search(self.decoder.remember(features, counts))

    def search(self, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """The best captions for a memory, see `forward`."""
        return beam_search(**self._search(memory))

    def margins(self, memory: Memory) -> Tensor:
        """How far each search is from another answer, see `exporters.decoding.decision_margins`: (B,)."""
        return decision_margins(**self._search(memory))

    def _search(self, memory: Memory) -> dict[str, Any]:
        """What the search is called with."""
        # Constants of the graph, so they are worked out once, before the loop; a step would do it at every word.
        matrix, bias = self.decoder.word_matrix()
        bias = bias.index_fill(0, torch.tensor([UNKNOWN], device=bias.device), float("-inf"))
        tables = self.decoder.word_tables()

        def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
            hidden, state = self.decoder.advance(tokens, state, memory, tables)
            return hidden @ matrix + bias, state

        return {
            "step": step,
            "state": self.decoder.begin(memory, self.beam),
            "batch": memory[0].shape[0],
            "width": self.beam,
            "max_length": self.max_length,
            "length_penalty": self.length_penalty,
            "end": END,
            "suppressed": (),
        }
