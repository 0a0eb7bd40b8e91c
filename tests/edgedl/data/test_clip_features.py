"""Cached features against the encoder itself, and everything that may happen to the cache."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn

from edgedl.data.unreadable import Unreadable
from edgedl.tasks.caption.data import clip_features as module
from edgedl.tasks.caption.data.captions import open_captions
from edgedl.tasks.caption.data.clip_features import VIEWS, ClipFeatures, _seen, clip_features
from edgedl.tasks.caption.data.feature_files import FeatureFile
from edgedl.tasks.caption.network import frame_encoder
from exporters.errors import ParityError
from exporters.image import resize_images
from runtime.errors import InputError, MediaError
from tests.caption_sets import FLICKR, FLICKR_PHOTOS
from tests.edgedl.frame_graphs import make_each_graph_once

SIZE, GRID, FEATURES = 8, 2, 6


class SmallEncoder(nn.Module):
    """Levels (N, 3, 8, 8) -> (N, 6, 2, 2)."""

    size = SIZE

    def __init__(self, seed: int = 0, mean: float = 127.0, scale: float = 128.0) -> None:
        super().__init__()
        self.mean, self.scale = mean, scale
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, FEATURES, 4, stride=4)

    def forward(self, levels: Tensor) -> Tensor:
        return self.conv((levels - self.mean) / self.scale).relu()


@dataclass(frozen=True)
class FakeClips:
    """Clips of random frames; every clip has its own size and its own number of frames."""

    lengths: tuple[int, ...] = (1, 3, 1, 2, 9, 1)
    name: str = "fake"
    identity: str = "as it was made"
    broken_from: int = 1000
    asked: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lengths)

    def clip_name(self, index: int) -> str:
        return f"clip {index}"

    def frames(self, index: int) -> np.ndarray:
        if index >= self.broken_from:
            raise InputError(f"clip {index} cannot be read")
        self.asked.append(index)
        chance = np.random.default_rng(index)
        shape = (self.lengths[index], 5 + index % 7, 20 - index % 7, 3)
        return chance.integers(0, 256, shape, dtype=np.uint8)


def expected(clips: FakeClips, encoder: SmallEncoder, index: int, *, mirrored: bool = False) -> np.ndarray:
    """(T, P, F) by torch in float64, one frame after the other."""
    frames = clips.frames(index)[:, :, ::-1] if mirrored else clips.frames(index)
    double = SmallEncoder(mean=encoder.mean, scale=encoder.scale).double()
    double.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        grids = [double(resize_images(torch.from_numpy(f[None].copy()), (SIZE, SIZE), torch.float64)) for f in frames]
    return np.stack([grid[0].numpy().reshape(FEATURES, GRID * GRID).T for grid in grids])


def equal_to_half_precision(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=2**-11, atol=2e-5)


@pytest.fixture(autouse=True)
def _each_graph_once(monkeypatch) -> None:
    make_each_graph_once(monkeypatch)


@pytest.fixture(scope="module")
def encoder() -> SmallEncoder:
    return SmallEncoder()


@pytest.mark.parametrize("cached", [True, False])
def test_features_are_those_of_the_encoder(tmp_path, encoder, cached):
    clips = FakeClips()
    features = clip_features(clips, encoder, cache=tmp_path if cached else None, views=("plain", "mirrored"), threads=2)
    assert len(features) == len(clips)
    assert features.counts.tolist() == list(clips.lengths)
    for index in range(len(clips)):
        rows = slice(features.offsets[index], features.offsets[index + 1])
        equal_to_half_precision(features.views["plain"][rows], expected(clips, encoder, index))
        equal_to_half_precision(features.views["mirrored"][rows], expected(clips, encoder, index, mirrored=True))
    assert not np.array_equal(features.views["plain"], features.views["mirrored"])


class StillClips(FakeClips):
    """Every frame of a clip is its first."""

    def frames(self, index: int) -> np.ndarray:
        frames = super().frames(index)
        return np.repeat(frames[:1], len(frames), axis=0)


def test_varied_views_are_others_each_and_the_same_each_time(tmp_path, encoder):
    clips = StillClips((3, 2))
    features = clip_features(clips, encoder, cache=tmp_path / "once", views=VIEWS, threads=2)
    for view in features.views.values():
        for start, end in pairwise(features.offsets):
            assert np.array_equal(view[start:end], np.repeat(view[start : start + 1], end - start, axis=0)), "alike"
    for one, other in combinations(VIEWS, 2):
        for first in features.offsets[:-1]:
            assert not np.array_equal(features.views[one][first], features.views[other][first])
    again = clip_features(clips, encoder, cache=tmp_path / "again", views=VIEWS[2:4], threads=1)
    for name, view in again.views.items():
        np.testing.assert_array_equal(view, features.views[name])


def test_a_varied_view_is_lit_and_moved_as_much_as_it_may(encoder):
    frames = np.full((1, 40, 40, 3), 100, np.uint8)
    frames[:, 10:30, 10:30] = 200
    levels = np.array([_seen(frames, view, index).mean() for view in VIEWS[2:] for index in range(50)])
    assert len(np.unique(levels)) > 190
    assert 0.6 * frames.mean() < levels.min() < 0.9 * frames.mean()
    assert 1.1 * frames.mean() < levels.max() < 1.4 * frames.mean()


def test_the_encoder_is_left_as_it_was(tmp_path):
    encoder = SmallEncoder().double().train()
    with torch.no_grad():
        encoder.conv.weight[0, 0, 0, 0] = 1e-30
    clip_features(FakeClips((1,)), encoder, cache=tmp_path)
    assert encoder.training
    assert encoder.conv.weight.dtype == torch.float64
    assert encoder.conv.weight[0, 0, 0, 0] == 1e-30


def test_a_second_call_reads_what_the_first_one_wrote(tmp_path, encoder):
    first = clip_features(FakeClips(), encoder, cache=tmp_path)
    again = clip_features(FakeClips(broken_from=0), SmallEncoder(), cache=tmp_path)
    np.testing.assert_array_equal(again.views["plain"], first.views["plain"])
    np.testing.assert_array_equal(again.offsets, first.offsets)
    assert isinstance(again.views["plain"], np.memmap), "a gigabyte of features stays on disk"


def test_a_view_that_is_missing_is_added(tmp_path, encoder):
    clip_features(FakeClips(), encoder, cache=tmp_path)
    (written,) = tmp_path.glob("*/plain.float16")
    before = written.stat()
    both = clip_features(FakeClips(), encoder, cache=tmp_path, views=("mirrored", "plain"))
    assert list(both.views) == ["mirrored", "plain"]
    assert written.stat().st_mtime_ns == before.st_mtime_ns
    equal_to_half_precision(both.views["mirrored"][:1], expected(FakeClips(), encoder, 0, mirrored=True))


@pytest.mark.parametrize(
    ("clips", "other"),
    [
        (FakeClips(), SmallEncoder(seed=1)),
        (FakeClips(identity="another file"), SmallEncoder()),
        (FakeClips(name="other"), SmallEncoder()),
        (FakeClips(lengths=(1, 3, 1)), SmallEncoder()),
    ],
    ids=["weights", "identity", "name", "length"],
)
def test_other_weights_or_data_have_a_cache_of_their_own(tmp_path, encoder, clips, other):
    clip_features(FakeClips(), encoder, cache=tmp_path)
    features = clip_features(clips, other, cache=tmp_path)
    assert set(clips.asked) == set(range(len(clips)))
    equal_to_half_precision(features.views["plain"][:1], expected(clips, other, 0))
    assert len(list(tmp_path.glob("*/plain.float16"))) == 2


def test_other_preprocessing_by_the_same_weights_is_noticed(tmp_path, encoder, caplog):
    clip_features(FakeClips(), encoder, cache=tmp_path, views=("plain", "mirrored"))
    changed = SmallEncoder(mean=127.5)
    with caplog.at_level(logging.WARNING):
        features = clip_features(FakeClips(), changed, cache=tmp_path)
    assert "no longer gives" in caplog.text
    equal_to_half_precision(features.views["plain"][:1], expected(FakeClips(), changed, 0))
    assert not list(tmp_path.glob("*/mirrored.*")), "a stale view would be taken for a fresh one"


def test_a_data_set_on_disk(tmp_path, encoder):
    folder = tmp_path / "set"
    (folder / "Flicker8k_Dataset").mkdir(parents=True)
    for name, content in {**FLICKR, **FLICKR_PHOTOS}.items():
        (folder / name).write_bytes(content)
    photos = open_captions(folder)
    features = clip_features(photos, encoder, cache=tmp_path / "cache")
    batch, counts = features.take(range(len(photos)))
    assert batch.shape == (len(photos), 1, GRID * GRID, FEATURES)
    assert counts.tolist() == [1] * len(photos)
    assert len(np.unique(batch.reshape(len(photos), -1), axis=0)) == len(photos), "gray photos of different levels"


@dataclass(frozen=True)
class DamagedClips(FakeClips):
    """Some clips cannot be read."""

    damaged: frozenset[int] = frozenset({0, 3, 5})

    def frames(self, index: int) -> np.ndarray:
        if index in self.damaged:
            raise MediaError(f"clip {index} is damaged")
        return super().frames(index)


def left_out(clips: FakeClips, encoder: SmallEncoder, cache: Path | None, **options) -> tuple[ClipFeatures, Unreadable]:
    unreadable = Unreadable(clips.name, len(clips), 0.9)
    return clip_features(clips, encoder, cache=cache, unreadable=unreadable, **options), unreadable


@pytest.mark.parametrize("cached", [True, False])
def test_clips_that_cannot_be_read_have_no_frame(tmp_path, encoder, cached):
    clips = DamagedClips()
    both = ("plain", "mirrored")
    for _ in range(2):
        features, unreadable = left_out(clips, encoder, tmp_path if cached else None, views=both)
        assert features.counts.tolist() == [0, 3, 1, 0, 9, 0]
        assert unreadable.names == ("clip 0", "clip 3", "clip 5")
    readable = features.readable()
    assert readable.counts.tolist() == [3, 1, 9]
    for row, index in enumerate((1, 2, 4)):
        rows = slice(readable.offsets[row], readable.offsets[row + 1])
        equal_to_half_precision(readable.views["plain"][rows], expected(clips, encoder, index))
        equal_to_half_precision(readable.views["mirrored"][rows], expected(clips, encoder, index, mirrored=True))
    assert readable.pooled().counts.tolist() == [3, 1, 9]


def test_a_view_that_is_added_lacks_the_same_clips(tmp_path, encoder):
    left_out(DamagedClips(), encoder, tmp_path)
    features, unreadable = left_out(DamagedClips(), encoder, tmp_path, views=("plain", "mirrored"))
    assert features.counts.tolist() == [0, 3, 1, 0, 9, 0]
    assert unreadable.count == 3


def test_a_clip_that_can_be_read_by_now_is_made_up_for(tmp_path, encoder):
    left_out(DamagedClips(), encoder, tmp_path, views=("plain", "mirrored"))
    clips = DamagedClips(damaged=frozenset({3}))
    features, unreadable = left_out(clips, encoder, tmp_path)
    assert features.counts.tolist() == [1, 3, 1, 0, 9, 1]
    assert unreadable.names == ("clip 3",)
    equal_to_half_precision(features.views["plain"][:1], expected(clips, encoder, 0))
    assert not list(tmp_path.glob("*/mirrored.*")), "the other view has to be made again as well"


def test_too_many_damaged_clips_end_the_work_and_what_was_done_is_kept(tmp_path, encoder):
    clips = DamagedClips(lengths=(1,) * 60, damaged=frozenset(range(0, 60, 2)))
    with pytest.raises(InputError, match=r"at least 21 of 60 files of fake cannot be read"):
        clip_features(clips, encoder, cache=tmp_path, unreadable=Unreadable("fake", 60, 0.1), threads=1)
    asked = len(clips.asked)
    assert 15 <= asked <= 30
    features, unreadable = left_out(clips, encoder, tmp_path, threads=1)
    assert features.counts.tolist() == [0, 1] * 30
    assert unreadable.count == 30
    assert len(clips.asked) - asked <= 30 - 8, "two blocks of 16 were done, or one"


def test_a_set_of_damaged_clips_is_refused_every_time(tmp_path, encoder):
    clips = DamagedClips(damaged=frozenset(range(6)))
    for _ in range(2):
        with pytest.raises(InputError, match=r"none of the clips of fake can be read: clip 0 \(clip 0 is damaged\)"):
            clip_features(clips, encoder, cache=tmp_path, unreadable=Unreadable("fake", 6, 1))


def test_clips_that_come_and_go_are_not_mixed_up(tmp_path, encoder):
    """A disk that fails for a moment between two views: no view may be taken for the other's clips."""
    left_out(DamagedClips(), encoder, tmp_path)
    (folder,) = tmp_path.iterdir()
    counts = np.fromfile(folder / "plain.counts", np.int64)
    moved = np.array([3, 0, 1, 0, 9, 0])
    assert counts.sum() == moved.sum()
    moved.tofile(folder / "plain.counts")
    with pytest.raises(InputError, match="changed while they were in use; run it again"):
        left_out(DamagedClips(damaged=frozenset({0, 1, 3, 5})), encoder, tmp_path, views=("plain", "mirrored"))


LONG = FakeClips(lengths=tuple(1 + index % 3 for index in range(40)))


@pytest.mark.parametrize(
    ("harm", "kept"),
    [
        (lambda folder: None, 32),  # two blocks of 16
        (lambda folder: _cut(folder / "mirrored.partial", 5), 31),
        (lambda folder: _cut(folder / "plain.written", 3), 31),
        (lambda folder: _append(folder / "plain.partial", b"\0" * 100), 32),
        (lambda folder: (folder / "plain.written").unlink(), 0),
        (lambda folder: (folder / "mirrored.partial").unlink(), 0),
    ],
    ids=["clean", "torn features", "torn counts", "surplus features", "no counts", "no features"],
)
def test_an_interrupted_run_goes_on(tmp_path, encoder, harm, kept):
    views = ("plain", "mirrored")
    with pytest.raises(InputError, match=r"of 40 files of fake cannot be read.* clip 37 \(clip 37 cannot be read\)"):
        clip_features(replace(LONG, broken_from=37), encoder, cache=tmp_path, views=views, threads=1)
    (folder,) = tmp_path.iterdir()
    assert not list(folder.glob("*.counts")), "nothing may take the half for the whole"
    harm(folder)
    rest = replace(LONG, asked=[])
    told: list[tuple[int, int]] = []
    resumed = clip_features(
        rest, encoder, cache=tmp_path, views=views, threads=1, progress=lambda done, total: told.append((done, total))
    )
    assert sorted(rest.asked) == list(range(kept, 40))
    assert told[-1] == (40, 40)
    whole = clip_features(LONG, encoder, cache=tmp_path / "other", views=views, threads=1)
    np.testing.assert_array_equal(resumed.offsets, whole.offsets)
    for view in views:
        np.testing.assert_array_equal(resumed.views[view], whole.views[view])


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: _cut(folder / "plain.float16", 2),
        lambda folder: (folder / "plain.float16").unlink(),
        lambda folder: _cut(folder / "plain.counts", 8),
        lambda folder: (folder / "plain.counts").write_bytes(b""),
    ],
    ids=["cut", "gone", "a count less", "no counts"],
)
def test_damaged_features_are_computed_again(tmp_path, encoder, caplog, harm):
    first = np.array(clip_features(FakeClips(), encoder, cache=tmp_path).views["plain"])
    (folder,) = tmp_path.iterdir()
    harm(folder)
    with caplog.at_level(logging.WARNING):
        again = clip_features(FakeClips(), encoder, cache=tmp_path)
    assert "damaged" in caplog.text
    np.testing.assert_array_equal(again.views["plain"], first)


def test_a_damaged_probe_discards_the_features(tmp_path, encoder):
    clip_features(FakeClips(), encoder, cache=tmp_path)
    (probe,) = tmp_path.glob("*/probe.npy")
    probe.write_bytes(probe.read_bytes()[:40])
    again = FakeClips()
    clip_features(again, encoder, cache=tmp_path)
    assert again.asked


@dataclass(frozen=True)
class SlowClips(FakeClips):
    def frames(self, index: int) -> np.ndarray:
        time.sleep(0.02)
        return super().frames(index)


def test_two_at_once_share_the_work(tmp_path, encoder):
    clips = SlowClips()
    found: list[ClipFeatures] = []

    def work() -> None:
        found.append(clip_features(clips, encoder, cache=tmp_path, threads=1))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(clips.asked) == list(range(len(clips)))
    np.testing.assert_array_equal(found[0].views["plain"], found[1].views["plain"])


def test_a_graph_that_answers_otherwise_is_refused(tmp_path, monkeypatch):
    """As an exporter's fault would: the weights of the graph are a hundredth larger than the network's."""

    def enlarge(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if len(tensor.dims) == 4:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))

    monkeypatch.setattr(frame_encoder, "flush_graph", enlarge)
    clips = FakeClips()
    with pytest.raises(ParityError, match="SmallEncoder answers otherwise than torch"):
        clip_features(clips, SmallEncoder(seed=99), cache=tmp_path)
    assert not clips.asked


@dataclass(frozen=True)
class OddClips(FakeClips):
    shape: tuple[int, ...] = (1, 4, 4, 3)
    dtype: type = np.uint8

    def frames(self, index: int) -> np.ndarray:
        return np.zeros(self.shape, self.dtype)


@pytest.mark.parametrize(
    ("clips", "scale", "views", "message"),
    [
        (FakeClips(lengths=()), 128, ("plain",), "fake has no clips"),
        (FakeClips(), 128, ("plain", "upside down"), "expected some of plain, mirrored"),
        (FakeClips(), 128, (), "expected some of plain, mirrored"),
        (FakeClips(), 128, ("plain", "plain"), "each once"),
        (OddClips(shape=(0, 4, 4, 3)), 128, ("plain",), r"clip 0 of fake: expected frames \[T, H, W, 3\], got \[0, 4"),
        (OddClips(shape=(4, 4, 3)), 128, ("plain",), r"clip 0 of fake: expected frames"),
        (OddClips(shape=(1, 4, 4, 4)), 128, ("plain",), r"expected uint8 \[N, H, W, 3\]"),
        (OddClips(dtype=np.float32), 128, ("plain",), "expected uint8"),
        (FakeClips(), 1e-4, ("plain",), "kept as float16, which ends at 65504"),
    ],
    ids=["empty", "unknown view", "no view", "twice", "no frames", "rank", "channels", "dtype", "overflow"],
)
def test_what_cannot_be_is_refused(tmp_path, clips, scale, views, message):
    with pytest.raises(InputError, match=message):
        clip_features(clips, SmallEncoder(scale=scale), cache=tmp_path, views=views)


def features_of(counts: list[int], views: int, places: int = 3) -> ClipFeatures:
    chance = np.random.default_rng(0)
    shape = (sum(counts), places, 2)
    return ClipFeatures(
        {str(i): chance.normal(size=shape).astype(np.float16) for i in range(views)},
        np.concatenate([[0], np.cumsum(counts)]),
    )


@settings(max_examples=60)
@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    rows=st.data(),
    views=st.integers(1, 3),
    seed=st.integers(0, 99) | st.none(),
)
def test_batches_hold_each_clip_and_zeros(counts, rows, views, seed):
    features = features_of(counts, views)
    chosen = rows.draw(st.lists(st.integers(0, len(counts) - 1), max_size=6))
    batch, lengths = features.take(chosen, None if seed is None else np.random.default_rng(seed))
    assert lengths.tolist() == [counts[row] for row in chosen]
    assert batch.shape == (len(chosen), max((counts[row] for row in chosen), default=0), 3, 2)
    for clip, row, length in zip(batch, chosen, lengths, strict=True):
        start = sum(counts[:row])
        seen = [np.array_equal(clip[:length], view[start : start + length]) for view in features.views.values()]
        assert seen[0] if seed is None else any(seen)
        assert not clip[length:].any()


def test_chance_takes_every_view():
    features = features_of([1] * 50, 2)
    batch, _ = features.take(range(50), np.random.default_rng(0))
    first = [np.array_equal(clip[0], row) for clip, row in zip(batch, features.views["0"], strict=True)]
    assert 15 < sum(first) < 35


def test_pooling_averages_the_grid(tmp_path, encoder):
    clips = FakeClips()
    grid = clip_features(clips, encoder, cache=tmp_path)
    pooled = clip_features(clips, encoder, cache=tmp_path, pool=True)
    assert pooled.views["plain"].shape == (sum(clips.lengths), 1, FEATURES)
    np.testing.assert_array_equal(pooled.counts, grid.counts)
    means = np.asarray(grid.views["plain"], np.float64).mean(axis=1, keepdims=True)
    equal_to_half_precision(pooled.views["plain"], means)


def test_pooling_in_parts_is_pooling():
    features = features_of([300, 299], 1, places=5)
    means = features.views["0"].astype(np.float64).mean(axis=1, keepdims=True)
    equal_to_half_precision(features.pooled().views["0"], means)


def test_long_clips_go_through_the_graph_in_parts(tmp_path, encoder, monkeypatch):
    clips = FakeClips(lengths=(19,))
    seen: list[int] = []
    plain = module._features

    def watched(engine, frames, name):
        run = engine.run

        class Counted:
            def run(self, part):
                seen.append(len(part))
                return run(part)

        return plain(Counted(), frames, name)

    monkeypatch.setattr(module, "_features", watched)
    features = clip_features(clips, encoder, cache=tmp_path)
    assert seen == [8, 8, 3]
    equal_to_half_precision(features.views["plain"], expected(clips, encoder, 0))


def test_an_interruption_between_the_last_two_steps_costs_only_time(tmp_path):
    """The features got their name, the counts did not."""
    file = FeatureFile(tmp_path, "plain", 1, 2)
    with file.growing(0) as writer:
        writer.append([np.ones((2, 1, 2), np.float16)])
    (tmp_path / "plain.counts").rename(tmp_path / "plain.written")
    assert file.read(1) is None
    assert len(file.written()) == 0
    with file.growing(0) as writer:
        writer.append([np.full((3, 1, 2), 2, np.float16)])
    found = file.read(1)
    assert found is not None
    np.testing.assert_array_equal(found[0], np.full((3, 1, 2), 2, np.float16))
    assert found[1].tolist() == [3]


def _cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def _append(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)
