"""Mini-batches of clips with several captions each: what a clip costs is paid once for all its captions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgedl.tasks.caption.data.clip_features import ClipFeatures
from edgedl.tasks.caption.data.feature_files import Features
from edgedl.tasks.caption.objective import ABSENT
from edgedl.training.batches import batch_count, chance_of_epoch, rows_of_epoch
from runtime.errors import InputError
from runtime.vocabulary import END

Tokens = Sequence[int]


class ClipInputs(Protocol):
    """Where the network's side of a batch comes from."""

    def __len__(self) -> int: ...

    def take(self, clips: NDArray[np.int64], chance: np.random.Generator | None) -> dict[str, Tensor]:
        """The inputs of some clips: ``counts`` (B,) and ``features`` or ``clips``; varied by `chance` if training."""
        ...


class FeatureInputs:
    """Features of a frozen encoder, computed beforehand.

    Args:
        features: of some data set; training takes one of their views by chance.
        window: training sees a rectangle of each frame's square grid, at least so many places wide and high; None: all.
            Where a photo is cut otherwise each time, its words are less easily learnt by heart.
    """

    def __init__(self, features: ClipFeatures, window: int | None = None) -> None:
        self.features, self.window = features, window

    def __len__(self) -> int:
        return len(self.features)

    def take(self, clips: NDArray[np.int64], chance: np.random.Generator | None) -> dict[str, Tensor]:
        """See `ClipInputs`: ``features`` (B, T, P, F) float16, or (B, T, h, w, F) of a window."""
        features, counts = self.features.take(clips, chance)
        if chance is not None and self.window is not None:
            features = windows(features, self.window, chance)
        return {"features": torch.from_numpy(features), "counts": torch.from_numpy(counts)}


def windows(features: Features, least: int, chance: np.random.Generator) -> Features:
    """Rectangles of the grids of a batch, of one size, each clip's somewhere else: (B, T, g², F) -> (B, T, h, w, F)."""
    clips, frames, places, width = features.shape
    side = math.isqrt(places)
    grids = features.reshape(clips, frames, side, side, width)
    height, breadth = (int(n) for n in chance.integers(min(least, side), side + 1, size=2))
    corners = chance.integers([side - height + 1, side - breadth + 1], size=(clips, 2)).tolist()
    seen = [grids[clip, :, top : top + height, left : left + breadth] for clip, (top, left) in enumerate(corners)]
    return np.stack(seen)


class PixelInputs:
    """Frames as they are, for an encoder that learns as well.

    Args:
        frames: (ΣT_i, S, S, 3) uint8, those of all n clips one after the other.
        offsets: (n + 1,) int64; clip i has the frames offsets[i] to offsets[i + 1].
        drawn: training looks at so many frames of a clip, drawn by chance; None takes all.
        mirrored: training sees every other clip as in a mirror, by chance.
    """

    def __init__(
        self,
        frames: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        *,
        drawn: int | None = None,
        mirrored: bool = False,
    ) -> None:
        self.frames, self.offsets = frames, offsets
        self.drawn, self.mirrored = drawn, mirrored

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, clips: NDArray[np.int64], chance: np.random.Generator | None) -> dict[str, Tensor]:
        """See `ClipInputs`: ``clips`` (B, T, S, S, 3) uint8, padded with zeros to the longest of them."""
        seen = []
        for clip in clips:
            chosen = np.arange(self.offsets[clip], self.offsets[clip + 1])
            if chance is not None and self.drawn is not None and self.drawn < len(chosen):
                chosen = np.sort(chance.choice(chosen, self.drawn, replace=False))
            pixels = self.frames[chosen]
            mirror = chance is not None and self.mirrored and chance.random() < 0.5
            seen.append(pixels[:, :, ::-1] if mirror else pixels)
        counts = np.array([len(pixels) for pixels in seen], np.int64)
        batch = np.zeros((len(seen), counts.max(initial=0), *self.frames.shape[1:]), np.uint8)
        for row, pixels in zip(batch, seen, strict=True):
            row[: len(pixels)] = pixels
        return {"clips": torch.from_numpy(batch), "counts": torch.from_numpy(counts)}


class SomeInputs:
    """The inputs of some clips of others.

    Args:
        inputs: of all clips.
        chosen: (n,) the numbers of those that these are.
    """

    def __init__(self, inputs: ClipInputs, chosen: NDArray[np.int64]) -> None:
        self.inputs, self.chosen = inputs, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, clips: NDArray[np.int64], chance: np.random.Generator | None) -> dict[str, Tensor]:
        """See `ClipInputs`."""
        return self.inputs.take(self.chosen[clips], chance)


class ClipBatches:
    """Batches for `edgedl.tasks.caption.objective`, see `CaptionLearning` for what is in them.

    Training shuffles the clips and draws captions; the clips that fill no batch on every process are left out, others
    each epoch. Validation takes all clips in order, each with its first captions.

    Args:
        inputs: of n clips.
        captions: token lists of each of the n clips, without the end.
        learnt: for each of them which tokens, the end included, are learnt; None: all.
        batch_size: B, clips per batch and process.
        rows: R, captions per clip.
        max_length: longer captions are cut, and their end is not learnt.
        epochs: of the whole training, for ``progress``.
        train: shuffle and draw.
        seed: of both.
    """

    def __init__(
        self,
        inputs: ClipInputs,
        captions: Sequence[Sequence[Tokens]],
        *,
        learnt: Sequence[Sequence[Sequence[bool]]] | None = None,
        batch_size: int,
        rows: int,
        max_length: int,
        epochs: int = 1,
        train: bool = True,
        seed: int = 0,
    ) -> None:
        if len(inputs) != len(captions):
            raise InputError(f"{len(inputs)} clips and captions for {len(captions)}")
        without = [number for number, lines in enumerate(captions) if not lines]
        if without:
            raise InputError(f"{len(without)} clips have no caption, the first is number {without[0]}")
        self.inputs = inputs
        self.words = [[np.array([*tokens, END][:max_length], np.int64) for tokens in lines] for lines in captions]
        self.learnt = (
            [[np.array(chosen[:max_length], np.bool_) for chosen in lines] for lines in learnt] if learnt else None
        )
        self.batch_size, self.rows, self.epochs = batch_size, rows, epochs
        self.train, self.seed, self.epoch = train, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order and the captions of an epoch; takes effect with the next ``iter``."""
        self.epoch = epoch

    def __len__(self) -> int:
        return batch_count(len(self.inputs), self.batch_size, train=self.train)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        order = rows_of_epoch(len(self.inputs), self.seed, self.epoch, train=self.train)
        chance = chance_of_epoch(self.seed, self.epoch, of_process=True) if self.train else None
        progress = torch.tensor(self.epoch / self.epochs)
        for index in range(len(self)):
            clips = order[index * self.batch_size : (index + 1) * self.batch_size]
            yield {
                **self.inputs.take(clips, chance),
                **self._said(clips, chance),
                "clip": torch.from_numpy(clips),
                "progress": progress,
            }

    def _said(self, clips: NDArray[np.int64], chance: np.random.Generator | None) -> dict[str, Tensor]:
        """``words`` and ``targets``, (B, R, L): drawn without putting back as long as a clip has captions left."""
        chosen = []
        for clip in clips:
            count = len(self.words[clip])
            order = np.arange(count) if chance is None else chance.permutation(count)
            chosen.append(np.resize(order, self.rows))
        length = max(len(self.words[clip][i]) for clip, lines in zip(clips, chosen, strict=True) for i in lines)
        words = np.full((len(clips), self.rows, length), ABSENT, np.int64)
        targets = words.copy()
        for row, (clip, lines) in enumerate(zip(clips, chosen, strict=True)):
            for column, line in enumerate(lines):
                said = self.words[clip][line]
                words[row, column, : len(said)] = said
                kept = said if self.learnt is None else np.where(self.learnt[clip][line], said, ABSENT)
                targets[row, column, : len(said)] = kept
        return {"words": torch.from_numpy(words), "targets": torch.from_numpy(targets)}
