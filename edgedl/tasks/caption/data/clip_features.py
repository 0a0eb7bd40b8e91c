"""Features of a frozen encoder for the frames of clips, computed once and kept on disk.

They are computed by the graph that the encoder becomes on a device, with ONNX Runtime, so that a decoder learns from
the arithmetic that it will meet there. That is also faster than torch eager: EfficientNet-Lite0 takes 10 ms a frame of
224×224 on one thread where torch takes 26 (batch 1) and 48 (batch 8).

One folder holds the features of one data set by one encoder, one pair of files for each view (`FeatureFile`). Its name
depends on the encoder's weights and on what the data set says of itself; ``probe.npy`` in it holds the encoder's answer
to a fixed picture, so that features by the same weights with other code or preprocessing are told apart.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from edgedl.data.unreadable import Unreadable
from edgedl.tasks.caption.data.feature_files import Counts, FeatureFile, Features
from runtime.engine import Engine
from runtime.errors import InputError
from runtime.threads import default_threads

if TYPE_CHECKING:
    from torch import nn

    from edgedl.tasks.caption.network.frame_encoder import FrameEncoder

log = logging.getLogger(__name__)

CACHE_FORMAT = 1

VIEWS = ("plain", "mirrored", "varied1", "varied2", "varied3", "varied4")
"""How a frame may be seen: as it is, with left and right exchanged, or as `VARIED` has it, each time otherwise."""

VARIED = {
    "flip": 0.5,
    "translate": 0.1,
    "scale": 0.25,
    "rotate": 5.0,
    "brightness": 0.25,
    "contrast": 0.25,
    "saturation": 0.25,
    "colour": 0.06,
}
"""Strengths of `edgedl.training.augment.Augmentation`; what is not named is off."""

FRAMES_AT_ONCE = 8
"""In one call of the graph; bounds the memory. More would not be faster: 9.0 ms a frame at 1, 9.2 at 8, 10.0 at 32."""

CLIPS_AT_ONCE = 16
"""Between two writes: what an interruption costs at most."""


class Clips(Protocol):
    """What the features are computed of; a `CaptionDataset` is one."""

    @property
    def name(self) -> str:
        """The data set."""
        ...

    @property
    def identity(self) -> str:
        """Everything that the frames depend on: which files, in which state and order, and how they are sampled."""
        ...

    def __len__(self) -> int:
        """How many clips there are."""
        ...

    def clip_name(self, index: int) -> str:
        """The clip's name in the data set."""
        ...

    def frames(self, index: int) -> NDArray[np.uint8]:
        """The sampled frames of a clip, (T, H, W, 3) uint8 RGB, T at least 1."""
        ...


@dataclass(frozen=True, slots=True)
class ClipFeatures:
    """Features of n clips with T_i frames each; a grid of P places a frame, F features a place.

    Attributes:
        views: (ΣT_i, P, F) float16 for each view, the frames of all clips one after the other.
        offsets: (n + 1,) int64; clip i has the frames offsets[i] to offsets[i + 1]. One that could not be read has
            none.
    """

    views: Mapping[str, Features]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Counts:
        """Frames of each clip, (n,)."""
        return np.diff(self.offsets)

    def readable(self) -> ClipFeatures:
        """The same without the clips that have no frame."""
        return ClipFeatures(self.views, np.unique(self.offsets))

    def take(
        self, rows: Sequence[int] | NDArray[np.int64], chance: np.random.Generator | None = None
    ) -> tuple[Features, Counts]:
        """Gathers clips as one batch, padded with zeros to the longest of them.

        Args:
            rows: B clips.
            chance: chooses a view for each clip; None takes the first view of all.

        Returns:
            (B, T, P, F) float16 and (B,) int64, the frames of each that count.
        """
        seen = tuple(self.views.values())
        chosen = np.zeros(len(rows), np.int64) if chance is None else chance.integers(len(seen), size=len(rows))
        counts = self.counts[rows]
        batch = np.zeros((len(rows), int(counts.max(initial=0)), *seen[0].shape[1:]), np.float16)
        for index, (row, view) in enumerate(zip(rows, chosen, strict=True)):
            batch[index, : counts[index]] = seen[view][self.offsets[row] : self.offsets[row + 1]]
        return batch, counts

    def pooled(self) -> ClipFeatures:
        """The same, averaged over the grid and held in memory: P becomes 1. For decoders that pool anyway."""
        views = {}
        for name, view in self.views.items():
            means = np.empty((len(view), 1, view.shape[2]), np.float16)
            for start in range(0, len(view), 256):  # a part at a time: the file may be larger than the memory
                means[start : start + 256] = view[start : start + 256].mean(axis=1, keepdims=True, dtype=np.float32)
            views[name] = means
        return ClipFeatures(views, self.offsets)


def clip_features(
    dataset: Clips,
    encoder: nn.Module,
    *,
    cache: Path | None,
    views: Sequence[str] = ("plain",),
    pool: bool = False,
    unreadable: Unreadable | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ClipFeatures:
    """Computes the features of all clips, or reads those of an earlier call from the cache.

    Args:
        dataset: the clips.
        encoder: maps levels 0..255 (N, 3, S, S) to features (N, F, g, g) and has the attribute ``size``, S; used in
            evaluation mode and not changed.
        cache: holds a folder for each data set and encoder; None keeps nothing.
        views: of `VIEWS`; one that is missing is added to those that are there.
        pool: gives the averages over the grid, see `ClipFeatures.pooled`; the files are the same.
        unreadable: takes what cannot be read, and is to be checked by the caller; None: every clip must be readable.
        threads: clips that are worked on at once; None takes what the machine allows.
        progress: told the number of clips done and of all, where something has to be computed.

    Raises:
        InputError: too many clips cannot be read, or one has features beyond the range of float16.
        ParityError: the encoder's graph does not answer as torch does.
    """
    if unreadable is None:
        unreadable = Unreadable(dataset.name, len(dataset), share=0)
    if not views or len(set(views)) != len(views) or not set(views) <= set(VIEWS):
        raise InputError(f"views are {list(views)}, expected some of {', '.join(VIEWS)}, each once")
    if len(dataset) == 0:
        raise InputError(f"the data set {dataset.name} has no clips to compute features of")
    from edgedl.tasks.caption.network.frame_encoder import (  # torch only where it is needed
        FrameEncoder,
        open_frame_encoder,
        probe,
    )

    network = FrameEncoder(encoder)
    with ExitStack() as stack:
        # The files of a temporary folder are deleted on the way out; an open memory map keeps what it shows.
        root = cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgedl-")))
        folder = root / f"{dataset.name}-{_key(dataset, network)}"
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(_alone_in(folder))
        answer = probe(network)
        files = {view: FeatureFile(folder, view, *answer.shape) for view in VIEWS}
        _check_probe(folder, answer, files.values())
        _check_left_out(dataset, files.values(), unreadable)
        found = {view: files[view].read(len(dataset)) for view in views}
        missing = [view for view, data in found.items() if data is None]
        if missing:
            log.info("computing the features of %d clips in %s", len(dataset), folder)
            with open_frame_encoder(network, answer) as engine:
                _compute(dataset, engine, {view: files[view] for view in missing}, unreadable, threads, progress)
            found |= {view: files[view].read(len(dataset)) for view in missing}
    whole = {view: data for view, data in found.items() if data is not None}
    counts = [counts for _, counts in whole.values()]
    if len(whole) < len(views) or not all(np.array_equal(counts[0], other) for other in counts):
        raise InputError(f"the features in {folder}, or the clips, changed while they were in use; run it again")
    arrays = {view: data for view, (data, _) in whole.items()}
    features = ClipFeatures(arrays, np.concatenate([[0], np.cumsum(counts[0])]))
    return features.pooled() if pool else features


def _key(dataset: Clips, network: FrameEncoder) -> str:
    """The encoder's weights and the data. What the encoder does with its weights is the probe's to tell."""
    weights = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        weights.update(f"{name} {list(tensor.shape)}\n".encode())
        weights.update(tensor.contiguous().numpy().tobytes())
    encoder, data = type(network.encoder).__qualname__, [dataset.name, len(dataset), dataset.identity]
    document = [CACHE_FORMAT, encoder, network.size, weights.hexdigest(), VARIED, *data]
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()[:24]


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Lets one process at a time work in a folder; the next one waits and then finds the work done."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that computes the features in %s", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_probe(folder: Path, answer: NDArray[np.float32], files: Iterable[FeatureFile]) -> None:
    """Empties a folder whose features the encoder would no longer give."""
    from edgedl.tasks.caption.network.frame_encoder import same_answer

    path = folder / "probe.npy"
    try:
        if same_answer(np.load(path, allow_pickle=False), answer):
            return
        log.warning("the encoder no longer gives the features in %s; they are computed again", folder)
    except (OSError, ValueError, EOFError):
        pass  # a new folder, or one that was interrupted at its first step
    for file in files:
        file.discard()
    temporary = folder / ".probe.npy"
    np.save(temporary, answer)
    temporary.replace(path)


def _check_left_out(dataset: Clips, files: Iterable[FeatureFile], unreadable: Unreadable) -> None:
    """Empties a folder if a clip that an earlier call left out can be read; another decoder may be there by now."""
    files = list(files)
    known = [whole[1] if (whole := file.read(len(dataset))) else file.written() for file in files]
    left_out = sorted({index for counts in known for index in np.flatnonzero(counts == 0).tolist()})
    if any(unreadable.attempt(dataset.clip_name(i), partial(dataset.frames, i)) is not None for i in left_out):
        log.info("a clip that could not be read now can: the features are computed again")
        for file in files:
            file.discard()


def _compute(
    dataset: Clips,
    engine: Engine,
    files: Mapping[str, FeatureFile],
    unreadable: Unreadable,
    threads: int | None,
    progress: Callable[[int, int], None],
) -> None:
    """Goes through the clips once, for all views together: decoding a video takes longer than its features."""
    total = len(dataset)
    done = min(len(file.written()) for file in files.values())
    if done:
        log.info("going on after the first %d clips, which were done before an interruption", done)

    def encode(index: int) -> dict[str, Features]:
        frames = unreadable.attempt(dataset.clip_name(index), partial(dataset.frames, index))
        if frames is None:
            return {view: np.empty((0, file.places, file.features), np.float16) for view, file in files.items()}
        if frames.ndim != 4 or frames.shape[0] == 0:
            raise InputError(f"clip {index} of {dataset.name}: expected frames [T, H, W, 3], got {list(frames.shape)}")
        name = f"clip {index} of {dataset.name}"
        return {view: _features(engine, _seen(frames, view, index), name) for view in files}

    with ExitStack() as stack, ThreadPoolExecutor(threads or default_threads()) as pool:
        writers = {view: stack.enter_context(file.growing(done)) for view, file in files.items()}
        for start in range(done, total, CLIPS_AT_ONCE):
            clips = list(pool.map(encode, range(start, min(start + CLIPS_AT_ONCE, total))))
            for view, writer in writers.items():
                writer.append([clip[view] for clip in clips])
            progress(start + len(clips), total)
        if not any(file.written().any() for file in files.values()):
            unreadable.check({f"clips of {dataset.name}": 0})


def _seen(frames: NDArray[np.uint8], view: str, index: int) -> NDArray[np.uint8]:
    """The frames (T, H, W, 3) of a clip in a view, all of them varied alike; the same each time."""
    if view == "plain":
        return frames
    if view == "mirrored":
        return frames[:, :, ::-1]
    import torch

    from edgedl.training.augment import Augmentation

    vary, seed = replace(Augmentation.none(), **VARIED), len(VIEWS) * index + VIEWS.index(view)
    levels = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (T, 3, H, W)
    varied = torch.cat([vary(frame[None], None, torch.Generator().manual_seed(seed)) for frame in levels])
    return varied.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def _features(engine: Engine, frames: NDArray[np.uint8], name: str) -> Features:
    """(T, H, W, 3) -> (T, P, F)."""
    parts = [
        engine.run(frames[start : start + FRAMES_AT_ONCE])["features"]
        for start in range(0, len(frames), FRAMES_AT_ONCE)
    ]
    features = np.concatenate(parts)
    largest = np.abs(features).max()
    if not largest <= np.finfo(np.float16).max:
        raise InputError(f"{name} has features up to {largest:.3g}; they are kept as float16, which ends at 65504")
    return features.astype(np.float16)
