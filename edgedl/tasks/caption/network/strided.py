"""A small encoder that finds things by name: evidence for each visual word, and where it lies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 64
GRID = 8
LOGITS = 8.0
"""Divides a logit, so that it is about as large as the other features."""

_CHANNELS = (24, 48, 64, 64)
_STRIDES = (2, 2, 1, 1)


class StridedEncoder(nn.Module):
    """Frames (N, 3, 64, 64), levels 0..255 -> visual words (N, F, 1, W): what a frame shows, in which row and column.

    After Fang et al. 2015, "From captions to visual concepts and back", section 3: a detector of words that is taught
    by whole pictures with their words, without boxes. Four convolutions give the evidence for each of W words at each
    place of a grid of g × g; a word's features are its probability in each row and in each column, its largest logit,
    and which word it is: F = 2g + 1 + W. A decoder sees a grid of one row of W places.

    Args:
        words: W.
    """

    size = SIZE

    def __init__(self, words: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for index, (wide, stride) in enumerate(zip(_CHANNELS, _STRIDES, strict=True)):
            kernel = 3 if index else 5
            layers += [
                nn.Conv2d(channels, wide, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(),
            ]
            channels = wide
        self.layers = nn.Sequential(*layers)
        self.words = nn.Conv2d(channels, words, 1)
        self.register_buffer("names", torch.eye(words).unsqueeze(0), persistent=False)  # (1, W, W)
        self.names: Tensor
        self.features = 2 * GRID + 1 + words

    def evidence(self, frames: Tensor) -> Tensor:
        """Logit of each word at each place: levels (N, 3, 64, 64) -> (N, W, g, g)."""
        light = F.avg_pool2d(frames.mean(dim=1, keepdim=True), 2) / 64
        logits: Tensor = self.words(self.layers(light))
        return logits

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        evidence = self.evidence(frames)  # (N, W, g, g)
        rows, columns = evidence.amax(dim=3), evidence.amax(dim=2)  # (N, W, g)
        # Two words may both be as good as certain; which is the more so can only be told from the logits.
        strongest = rows.amax(dim=2, keepdim=True) / LOGITS
        names = self.names.expand(frames.shape[0], -1, -1)
        features = torch.cat([rows.sigmoid(), columns.sigmoid(), strongest, names], dim=2)  # (N, W, F)
        return features.transpose(1, 2).unsqueeze(2)
