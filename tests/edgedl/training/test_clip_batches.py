"""Batches of clips and captions: which clips, which captions, what is cut, and what every process gets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgedl.tasks.caption.batches import ClipBatches, FeatureInputs, PixelInputs
from edgedl.tasks.caption.data.clip_features import ClipFeatures
from edgedl.tasks.caption.objective import ABSENT
from runtime.errors import InputError
from runtime.vocabulary import END


class Numbers:
    """Inputs that are the clips' numbers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def take(self, clips, chance):
        return {"features": torch.from_numpy(clips), "counts": torch.ones(len(clips), dtype=torch.int64)}


def captions(count: int, each: int = 3) -> list[list[list[int]]]:
    """Caption j of clip i is the one word 10·i + j + 2."""
    return [[[10 * i + j + 2] for j in range(each)] for i in range(count)]


def batches(count: int = 50, **options) -> ClipBatches:
    return ClipBatches(Numbers(count), captions(count), **{"batch_size": 8, "rows": 2, "max_length": 5} | options)


def clips(source: ClipBatches) -> list[int]:
    return [int(clip) for batch in source for clip in batch["clip"]]


def words(source: ClipBatches) -> list[list[list[int]]]:
    return [lines for batch in source for lines in batch["words"].tolist()]


def as_process(monkeypatch, rank: int, world: int) -> None:
    monkeypatch.setattr("edgedl.training.batches.rank_and_world", lambda: (rank, world))


def test_validation_takes_all_clips_in_order_with_their_first_captions():
    source = batches(train=False)
    assert clips(source) == list(range(50))
    assert [len(batch["clip"]) for batch in source] == [8] * 6 + [2]
    assert len(source) == 7
    assert words(source) == [[[10 * i + 2, END], [10 * i + 3, END]] for i in range(50)]


def test_training_shuffles_anew_each_epoch_and_the_same_again():
    source = batches()
    first, said = clips(source), words(source)
    assert len(source) == 6
    assert len(first) == len(set(first)) == 48
    assert first != sorted(first)
    assert (clips(source), words(source)) == (first, said)
    source.set_epoch(1)
    second, said_later = clips(source), words(source)
    assert second != first
    assert said_later != said
    resumed = batches()
    resumed.set_epoch(1)
    assert (clips(resumed), words(resumed)) == (second, said_later)
    assert clips(batches(seed=1)) != first


def test_captions_stay_with_their_clips_and_inputs():
    for batch in batches():
        assert torch.equal(batch["features"], batch["clip"])
        assert torch.equal(batch["words"][..., 0] // 10, batch["clip"].unsqueeze(1).expand(-1, 2))


@pytest.mark.parametrize(("each", "rows"), [(3, 3), (3, 2), (2, 5), (1, 2)])
def test_captions_are_drawn_without_putting_back(each, rows):
    source = ClipBatches(Numbers(20), captions(20, each), batch_size=4, rows=rows, max_length=5)
    orders = set()
    for lines in words(source):
        drawn = [line[0] % 10 - 2 for line in lines]
        counts = np.bincount(drawn, minlength=each)
        assert counts.max() - counts.min() <= 1
        orders.add(tuple(drawn))
    assert len(orders) > 1 or each == 1


def test_epochs_see_other_captions():
    """Of three captions two are drawn an epoch; after a few epochs each has had its turn."""
    source = batches(10, batch_size=5)
    seen: dict[int, set[int]] = {}
    for epoch in range(12):
        source.set_epoch(epoch)
        for lines in words(source):
            for line in lines:
                seen.setdefault(line[0] // 10, set()).add(line[0] % 10)
    assert seen == {i: {2, 3, 4} for i in range(10)}


def test_progress_is_the_share_of_the_training_that_is_over():
    source = batches(epochs=4)
    for epoch in range(4):
        source.set_epoch(epoch)
        assert {float(batch["progress"]) for batch in source} == {epoch / 4}


def test_a_cut_caption_does_not_learn_its_end():
    said = [[[2, 3], [4, 5, 6], [7, 8, 9, 10]]]
    source = ClipBatches(Numbers(1), said, batch_size=1, rows=3, max_length=3, train=False)
    (batch,) = source
    assert batch["words"].tolist() == [[[2, 3, END], [4, 5, 6], [7, 8, 9]]]
    assert torch.equal(batch["targets"], batch["words"])


def test_short_captions_are_filled_up_with_what_is_not_learnt():
    source = ClipBatches(Numbers(2), [[[2, 3, 4]], [[5]]], batch_size=2, rows=1, max_length=9, train=False)
    (batch,) = source
    assert batch["words"].tolist() == [[[2, 3, 4, END]], [[5, END, ABSENT, ABSENT]]]


def test_only_what_is_to_be_learnt_is_a_target():
    said = [[[2, 3, 4], [5]], [[6, 7, 8, 9, 10]]]
    learnt = [[(True, False, True, False), (False, True)], [(False, True, True, True, False, True)]]
    source = ClipBatches(Numbers(2), said, learnt=learnt, batch_size=2, rows=2, max_length=4, train=False)
    (batch,) = source
    assert batch["words"].tolist() == [[[2, 3, 4, END], [5, END, ABSENT, ABSENT]], [[6, 7, 8, 9]] * 2]
    assert batch["targets"].tolist() == [
        [[2, ABSENT, 4, ABSENT], [ABSENT, END, ABSENT, ABSENT]],
        [[ABSENT, 7, 8, 9]] * 2,
    ]


def test_a_mask_goes_with_its_caption_when_captions_are_drawn():
    said = [[[10 * i + j + 2] for j in range(4)] for i in range(12)]
    learnt = [[(j % 2 == 0, True) for j in range(4)] for _ in range(12)]
    source = ClipBatches(Numbers(12), said, learnt=learnt, batch_size=4, rows=3, max_length=5)
    for batch in source:
        first, target = batch["words"][..., 0], batch["targets"][..., 0]
        assert torch.equal(target == ABSENT, first % 10 % 2 == 1)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_clips(monkeypatch, world):
    parts, said = [], []
    for rank in range(world):
        as_process(monkeypatch, rank, world)
        source = batches()
        parts.append(clips(source))
        said.append(words(source))
        assert len(source) == 50 // world // 8
    assert len({len(part) for part in parts}) == 1, "every process makes as many steps"
    together = [clip for part in parts for clip in part]
    assert len(set(together)) == len(together)
    places = [[[line[0] % 10 for line in lines] for lines in part] for part in said]
    assert places[0] != places[1], "captions are drawn apart"


def test_processes_validate_each_clip_once(monkeypatch):
    together = []
    for rank in range(3):
        as_process(monkeypatch, rank, 3)
        source = batches(train=False)
        part = clips(source)
        assert len(source) == -(-len(part) // 8)
        together += part
    assert sorted(together) == list(range(50))


def test_fewer_clips_than_processes(monkeypatch):
    for rank in range(4):
        as_process(monkeypatch, rank, 4)
        assert len(clips(batches(3))) == 1


def test_fewer_clips_than_a_batch():
    assert sorted(clips(batches(3))) == [0, 1, 2]


@pytest.fixture
def features() -> ClipFeatures:
    """Three clips of 1, 3 and 2 frames; the mirrored view is the negative."""
    plain = np.arange(6, dtype=np.float16).reshape(6, 1, 1) + 1
    return ClipFeatures({"plain": plain, "mirrored": -plain}, np.array([0, 1, 4, 6]))


def test_features_are_padded_and_seen_both_ways_in_training_only(features):
    inputs = FeatureInputs(features)
    assert len(inputs) == 3
    batch = inputs.take(np.array([1, 0]), None)
    assert batch["features"].squeeze().tolist() == [[2, 3, 4], [1, 0, 0]]
    assert batch["features"].shape == (2, 3, 1, 1)
    assert batch["counts"].tolist() == [3, 1]
    chance = np.random.default_rng(0)
    drawn = {float(inputs.take(np.array([0]), chance)["features"].squeeze()) for _ in range(20)}
    assert drawn == {1.0, -1.0}


def test_training_sees_rectangles_of_the_grid_that_lie_elsewhere_in_each_clip():
    """Features are the numbers of their places, so that it can be read off what was cut."""
    grid = np.arange(25, dtype=np.float16).reshape(1, 25, 1)
    inputs = FeatureInputs(ClipFeatures({"plain": np.tile(grid, (8, 1, 1))}, np.arange(0, 9, 2)), window=3)
    assert inputs.take(np.arange(4), None)["features"].shape == (4, 2, 25, 1), "validation sees all of it"
    chance = np.random.default_rng(0)
    shapes, corners = set(), set()
    for _ in range(200):
        grids = inputs.take(np.arange(4), chance)["features"].squeeze(4).numpy().astype(int)  # (B, T, h, w)
        batch = grids.reshape(*grids.shape[:2], -1)
        assert (batch[:, 0] == batch[:, 1]).all(), "a clip's frames are cut alike"
        for places in batch[:, 0]:
            rows, columns = np.unique(places // 5), np.unique(places % 5)
            whole = [5 * row + column for row in range(rows[0], rows[-1] + 1) for column in columns]
            assert places.tolist() == whole
            assert columns.tolist() == list(range(columns[0], columns[-1] + 1))
            assert grids.shape[2:] == (len(rows), len(columns))
            shapes.add(grids.shape[2:])
            corners.add((int(rows[0]), int(columns[0])))
        assert len({len(places) for places in batch[:, 0]}) == 1
    assert shapes == {(height, width) for height in (3, 4, 5) for width in (3, 4, 5)}
    assert corners == {(top, left) for top in range(3) for left in range(3)}
    pooled = FeatureInputs(ClipFeatures({"plain": grid[:, :1]}, np.array([0, 1])), window=3)
    assert pooled.take(np.array([0]), chance)["features"].shape == (1, 1, 1, 1, 1), "nothing is cut of one place"


@pytest.fixture
def pixels() -> tuple[np.ndarray, np.ndarray]:
    """Three clips of 1, 10 and 6 frames of 2 × 2 pixels; the left half has the frame's number, the right 100 more."""
    frames = np.arange(17, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    frames[:, :, 1] += 100
    return frames, np.array([0, 1, 11, 17])


def test_pixels_are_padded_and_whole_in_validation(pixels):
    inputs = PixelInputs(*pixels, drawn=4, mirrored=True)
    assert len(inputs) == 3
    whole = inputs.take(np.array([2, 1]), None)
    assert whole["clips"].shape == (2, 10, 2, 2, 3)
    assert whole["clips"].dtype == torch.uint8
    assert whole["counts"].tolist() == [6, 10]
    assert whole["clips"][0, :, 0, 0, 1].tolist() == [*range(11, 17), 0, 0, 0, 0]
    assert whole["clips"][1, :, 0, 1, 2].tolist() == list(range(101, 111))


def test_pixels_in_training_are_some_of_the_frames_and_mirrored_by_chance(pixels):
    inputs = PixelInputs(*pixels, drawn=4, mirrored=True)
    chance = np.random.default_rng(0)
    ways, choices = set(), set()
    for _ in range(30):
        some = inputs.take(np.array([2, 0, 1]), chance)
        assert some["counts"].tolist() == [4, 1, 4]
        for row, (first, count) in enumerate(((11, 6), (0, 1), (1, 10))):
            halves = some["clips"][row, : min(4, count), 0, :, 0].numpy()
            mirrored = bool(halves[0, 0] > halves[0, 1])
            taken = halves[:, 1 if mirrored else 0].tolist()
            assert (np.abs(np.diff(halves.astype(int), axis=1)) == 100).all(), "a clip is mirrored as a whole"
            assert taken == sorted(set(taken))
            assert first <= taken[0] <= taken[-1] < first + count
            ways.add((row, mirrored))
            choices.add((row, *taken))
    assert len(ways) == 6
    assert len([choice for choice in choices if choice[0] == 2]) > 10
    plain = PixelInputs(*pixels).take(np.array([1]), chance)
    assert plain["clips"][0, :, 0, 0, 0].tolist() == list(range(1, 11))


@pytest.mark.parametrize(
    ("said", "found"),
    [(captions(2), "3 clips and captions for 2"), ([[[2]], [], []], "2 clips have no caption, the first is number 1")],
    ids=["lengths", "empty"],
)
def test_clips_without_captions_are_refused(said, found):
    with pytest.raises(InputError, match=found):
        ClipBatches(Numbers(3), said, batch_size=1, rows=1, max_length=3)
