"""What a captioner in training looks at: features of clips where the encoder is frozen, pixels where it learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from edgedl.data.unreadable import Unreadable
from edgedl.tasks.caption.batches import ClipInputs, FeatureInputs, PixelInputs, SomeInputs
from edgedl.tasks.caption.config import CaptionConfig
from edgedl.tasks.caption.data.bouncing_digits import BouncingDigits
from edgedl.tasks.caption.data.clip_features import VIEWS, Clips, clip_features
from edgedl.tasks.caption.digits import features_of
from edgedl.tasks.caption.network.attention import ATTENDING
from edgedl.tasks.caption.network.caption_network import CaptionNetwork
from edgedl.tasks.caption.network.strided import StridedEncoder
from edgedl.training.progress import Progress
from edgedl.weights.fetch import cache_folder
from exporters.image import resize_images
from runtime.errors import InputError

MOST_PIXEL_BYTES = 8 << 30
"""Of the frames that an encoder learns from."""


class CaptionedClips(Clips, Protocol):
    """Clips of a data set with what people said of them."""

    def captions(self, index: int) -> tuple[str, ...]:
        """Everything that was said of a clip, at least one sentence."""
        ...


@dataclass(frozen=True, slots=True)
class ReadClips:
    """The clips of a part of a data set that can be read.

    Attributes:
        clips: all clips of the part.
        rows: (n,) which of them can be read, ascending.
        inputs: the network's side of these n.
    """

    clips: CaptionedClips
    rows: NDArray[np.int64]
    inputs: ClipInputs

    def take(self, chosen: NDArray[np.int64]) -> ReadClips:
        """Some of the n clips."""
        return ReadClips(self.clips, self.rows[chosen], SomeInputs(self.inputs, chosen))

    def captions(self) -> list[tuple[str, ...]]:
        """Everything that was said of each of the n clips."""
        return [self.clips.captions(row) for row in self.rows.tolist()]


def divided(part: ReadClips, count: int, seed: int) -> dict[str, ReadClips]:
    """The parts "train" and "val" of the training's clips, so many of them in the latter, others for each seed.

    Raises:
        InputError: nothing would be left to learn from.
    """
    total = len(part.rows)
    if count >= total:
        raise InputError(f"--set-apart {count} of {total} training clips leaves none to learn from")
    apart = np.zeros(total, np.bool_)
    apart[np.random.default_rng(seed).permutation(total)[:count]] = True
    return {"train": part.take(np.flatnonzero(~apart)), "val": part.take(np.flatnonzero(apart))}


def read_clips(
    network: CaptionNetwork,
    config: CaptionConfig,
    parts: Mapping[str, CaptionedClips],
    unreadable: Unreadable,
    *,
    varied: bool,
    cached: bool,
) -> dict[str, ReadClips]:
    """Reads every clip of the parts "train" and "val".

    Args:
        network: whose encoder looks at the frames.
        config: of the run.
        parts: the clips.
        unreadable: takes what cannot be read; checked here.
        varied: training sees mirrored frames and parts of them.
        cached: keep a frozen encoder's features in the user's cache.

    Raises:
        InputError: too many clips cannot be read, or their frames do not fit into the memory.
    """
    read = {name: _read(network, config, name, part, unreadable, varied, cached) for name, part in parts.items()}
    unreadable.check({f"clips in split {name}": len(part.rows) for name, part in read.items()})
    return read


def _read(
    network: CaptionNetwork,
    config: CaptionConfig,
    name: str,
    part: CaptionedClips,
    unreadable: Unreadable,
    varied: bool,
    cached: bool,
) -> ReadClips:
    varied = varied and name == "train"
    if isinstance(network.encoder, StridedEncoder) and isinstance(part, BouncingDigits):
        features = features_of(network.encoder, part, recombined=name == "train")
        return ReadClips(part, np.arange(len(part)), FeatureInputs(features))
    if not config.frozen:
        pixels, offsets = _pixels(part, network.size, unreadable)
        rows = np.flatnonzero(np.diff(offsets))
        drawn = config.drawn if name == "train" else None
        return ReadClips(part, rows, PixelInputs(pixels, np.unique(offsets), drawn=drawn, mirrored=varied))
    features = clip_features(
        part,
        network.encoder,
        cache=cache_folder() / "features" if cached else None,
        views=VIEWS[: config.views if varied else 1],
        pool=config.decoder not in ATTENDING and not config.places,
        unreadable=unreadable,
        progress=Progress(f"features of {name}"),
    )
    # Where the places are to be known apart, they have to stay where they are.
    window = config.window if varied and not config.places else None
    return ReadClips(part, np.flatnonzero(features.counts), FeatureInputs(features.readable(), window=window))


def _pixels(part: CaptionedClips, size: int, unreadable: Unreadable) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All frames in memory, at the size that the encoder looks at, and where each clip begins; see `PixelInputs`.

    A clip that cannot be read has no frame.

    Raises:
        InputError: they would not fit.
    """
    progress = Progress(f"reading {len(part)} clips")
    frames = [np.empty((0, size, size, 3), np.uint8)]
    offsets = [0]
    for index in range(len(part)):
        seen = unreadable.attempt(part.clip_name(index), partial(part.frames, index))
        if seen is not None:
            levels = resize_images(torch.from_numpy(seen), (size, size), torch.float32)
            frames.append(levels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy())
        offsets.append(offsets[-1] + (0 if seen is None else len(seen)))
        if offsets[-1] * size * size * 3 > MOST_PIXEL_BYTES:
            raise InputError(
                f"an encoder that learns needs its frames in memory: after {index + 1} of {len(part)} clips they take "
                f"{MOST_PIXEL_BYTES >> 30} GiB; give fewer clips or frames (--frames), or leave --fine-tune out"
            )
        progress(index + 1, len(part))
    return np.concatenate(frames), np.array(offsets)
