"""How a caption came about: the frames that were used and, with attention, where each word looked."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import isqrt
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.media.clip import Frames
from runtime.media.clips import read_frames
from runtime.pipelines.caption import Caption, CaptionPipeline

if TYPE_CHECKING:
    from torch import Tensor

    from edgedl.tasks.caption.network.caption_network import CaptionNetwork
    from runtime.vocabulary import Vocabulary

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """A caption and where its words looked.

    Attributes:
        captions: what was said, the best first.
        attention: (L, T, h, w) of the L words of the best one, over a grid on each of T frames; each word's sums to
            one. None where the decoder has no attention.
    """

    captions: tuple[Caption, ...]
    attention: NDArray[np.float64] | None


def plot_caption(path: str | PathLike[str], clip: str, output: str | PathLike[str] | None) -> Path:
    """Draws the caption of a clip and gives the picture's path, by default ``CLIP-caption.png`` in the current folder.

    Args:
        path: a run, or a bundle: its graph gives no attention, so that only frames and sentences are drawn.
        clip: what `runtime.media.clips.read_frames` takes by name.
        output: the picture.

    Raises:
        InputError: the clip cannot be read, or the run has no network yet.
        BundleError: the bundle is damaged.
    """
    from edgedl.figures.caption import save_caption

    source = Path(path)
    if (source / "config.json").is_file():
        frames, looked = _by_run(source, clip)
    else:
        with CaptionPipeline.open(source) as pipeline:
            frames = pipeline.read(clip)
            looked = Looked(pipeline.captions([frames.pixels])[0], None)
        log.warning("a bundle's graph keeps its attention to itself: where the words looked, its run can show")
    target = Path(output) if output else Path(f"{_stem(clip)}-caption.png")
    save_caption(frames.pixels, frames.seconds, looked.captions, looked.attention, target)
    return target


def look(network: CaptionNetwork, vocabulary: Vocabulary, pixels: NDArray[np.uint8]) -> Looked:
    """Captions a clip and follows the attention of the best caption.

    Args:
        network: in evaluation mode.
        vocabulary: its words.
        pixels: (T, H, W, 3) uint8 RGB.
    """
    import torch

    from exporters.denormals import flush_denormals

    with torch.no_grad(), flush_denormals():
        frames = torch.from_numpy(np.ascontiguousarray(pixels))
        features = network.frame_features(frames)  # (T, P, F)
        memory = network.decoder.remember(features.unsqueeze(0), torch.tensor([len(frames)]))
        tokens, lengths, scores = (answer[0] for answer in network.search(memory))
        captions = tuple(
            Caption(vocabulary.decode(row[:length].tolist()), float(score))
            for row, length, score in zip(tokens, lengths, scores, strict=True)
        )
        attention = network.decoder.attention(tokens[None, :1], memory)
        if attention is None:
            return Looked(captions, None)
        where = attention[0, 0, : lengths[0]]  # (L, T·P), or (L, P) of the mean; the end is no word
        grids = _grids(network, frames, features.shape[1])  # (T, P, h, w)
        places = grids.shape[1]
        shares = where.reshape(len(where), where.shape[1] // places, places).expand(-1, len(frames), -1)  # (L, T, P)
        seen = torch.einsum("ltp,tphw->lthw", shares.double(), grids.double())
        seen /= seen.sum(dim=(1, 2, 3), keepdim=True)
    return Looked(captions, seen.numpy())


def _grids(network: CaptionNetwork, frames: Tensor, places: int) -> Tensor:
    """Where each place of an encoder's features lies in the frames: (T, P, h, w).

    A place of most encoders is a cell of a grid. One of the embedded encoder is a word, which lies where there is
    evidence for it.
    """
    import torch

    from edgedl.tasks.caption.network.strided import StridedEncoder
    from exporters.image import resize_images

    if isinstance(network.encoder, StridedEncoder):
        levels = resize_images(frames, (network.size, network.size), torch.float32)
        return network.encoder.evidence(levels).sigmoid()
    side = isqrt(places)
    if side * side != places:
        raise InputError(f"the encoder gives {places} places a frame, which make no square grid to draw")
    return torch.eye(places).reshape(1, places, side, side).expand(len(frames), -1, -1, -1)


def _by_run(path: Path, clip: str) -> tuple[Frames, Looked]:
    from edgedl.tasks.caption.training import captioner_of
    from edgedl.training.run import Run

    network, vocabulary, settings = captioner_of(Run.open(path))
    frames = read_frames(clip, settings.frames, shorter=settings.shorter)
    return frames, look(network, vocabulary, frames.pixels)


def _stem(clip: str) -> str:
    """A file name without suffix; of a camera its number."""
    return clip.replace(":", "-") if clip.startswith("camera:") else Path(clip).resolve().stem
