"""A captioner for tests: small and never trained, yet as sure as a trained one, since its weights are large.

Seeds and the weight of the end were chosen so that its sentences are many and of all lengths.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.tasks.caption.network.attention import ATTENDING, AttendingDecoder
from edgedl.tasks.caption.network.caption_network import CaptionNetwork
from edgedl.tasks.caption.network.captioning import Decoder, MeanPoolDecoder
from runtime.vocabulary import Vocabulary

_SPOKEN = "a the man dog boy ball runs plays with on in red blue grass field small big"
WORDS = ("</s>", "<unk>", *_SPOKEN.split())
VOCABULARY = Vocabulary(WORDS)


class SmallEncoder(nn.Module):
    """Levels (N, 3, 32, 32) -> (N, 12, 4, 4)."""

    features, size = 12, 32

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 5, stride=4, padding=2)
        self.second = nn.Conv2d(8, self.features, 3, stride=2, padding=1)

    def forward(self, levels: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first((levels - 127) / 128))))


class SmallTop(nn.Module):
    """(N, 12, h, w) -> (N, 6, h, w)."""

    features = 6

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(SmallEncoder.features, self.features, 3, padding=1)

    def forward(self, grid: Tensor) -> Tensor:
        return F.relu(self.layer(grid))


def captioner(kind: str = "mean", *, beam: int = 3) -> CaptionNetwork:
    """The same network for the same arguments; at most eight words. The kind "top" is "spatial" with a top
    and concepts.
    """
    seed, end = {"attention": (10, 2.0), "spatial": (10, 2.0), "top": (10, 2.0), "mean": (14, 2.5)}[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder: Decoder
        if kind != "mean":
            top = SmallTop() if kind == "top" else None
            attending = ATTENDING["spatial" if top else kind]
            shape = {"embedding": 10, "hidden": 16, "places": 16, "concepts": 5 if top else 0}
            decoder = attending(SmallEncoder.features, len(WORDS), top=top, **shape)
        else:
            decoder = MeanPoolDecoder(SmallEncoder.features, len(WORDS), embedding=10, hidden=16)
        network = CaptionNetwork(SmallEncoder(), decoder, beam=beam, max_length=8)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter *= 3
        decoder.embedding.weight *= 8
        if isinstance(decoder, AttendingDecoder):
            decoder.where *= 20
            if decoder.concepts:
                decoder.tell.bias.fill_(-3)
        decoder.word_bias[0] = end
    return network.eval()
