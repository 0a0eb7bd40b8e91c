"""Batches from memory: complete, shuffled, repeatable, divided among processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgedl.training import batches
from edgedl.training.batches import Batches, Samples, derived_seed
from runtime.errors import InputError


def samples(count: int = 50) -> Samples:
    return Samples({"x": np.arange(count), "y": np.arange(count, dtype=np.float64) * 2})


def drawn(source: Batches) -> list[int]:
    return [int(x) for batch in source for x in batch["x"]]


def as_process(monkeypatch, rank: int, world: int) -> None:
    monkeypatch.setattr(batches, "rank_and_world", lambda: (rank, world))


def test_validation_takes_all_in_order():
    source = Batches(samples(), 16, train=False)
    assert drawn(source) == list(range(50))
    assert [len(batch["x"]) for batch in source] == [16, 16, 16, 2]
    assert len(source) == 4


def test_training_takes_full_batches_in_an_order_of_the_epoch():
    source = Batches(samples(), 16, train=True, seed=3)
    first = drawn(source)
    assert len(source) == 3
    assert len(first) == len(set(first)) == 48
    assert first != sorted(first)
    assert first == drawn(source)  # the same epoch again
    source.set_epoch(1)
    second = drawn(source)
    assert second != first
    assert drawn(Batches(samples(), 16, train=True, seed=4)) != first
    other = Batches(samples(), 16, train=True, seed=3)
    other.set_epoch(1)
    assert drawn(other) == second


def test_columns_stay_together():
    for batch in Batches(samples(), 16, train=True):
        assert torch.equal(batch["y"], batch["x"] * 2.0)
        assert batch["y"].dtype == torch.float32


def test_fewer_samples_than_a_batch():
    source = Batches(samples(5), 16, train=True)
    assert sorted(drawn(source)) == [0, 1, 2, 3, 4]
    assert len(source) == 1


def test_processes_divide_an_epoch(monkeypatch):
    shares = []
    for rank in range(3):
        as_process(monkeypatch, rank, 3)
        source = Batches(samples(), 8, train=True)
        assert len(source) == 2
        shares.append(drawn(source))
    assert all(len(share) == 16 for share in shares)
    assert len({row for share in shares for row in share}) == 48


def test_processes_divide_validation_without_repeats(monkeypatch):
    shares = []
    for rank in range(4):
        as_process(monkeypatch, rank, 4)
        source = Batches(samples(10), 2, train=False)
        shares.append(drawn(source))
        assert len(source) == len(list(source))
    assert sorted(row for share in shares for row in share) == list(range(10))


def test_views_are_drawn_by_chance_in_training_only():
    source = Samples(
        {"x": [np.zeros((400, 2, 2, 3), np.uint8), np.ones((400, 2, 2, 3), np.uint8)], "n": np.arange(400)}
    )
    rows = np.arange(400)
    assert not source.take(rows)["x"].any()
    mixed = source.take(rows, np.random.default_rng(0))["x"]
    assert mixed.shape == (400, 2, 2, 3)
    assert mixed.dtype == torch.uint8
    per_sample = mixed.float().mean(dim=(1, 2, 3))
    assert set(per_sample.tolist()) == {0.0, 1.0}
    assert per_sample.mean().item() == pytest.approx(0.5, abs=0.1)
    epochs = []
    trained = Batches(source, 400, train=True)
    for epoch in (0, 1, 0):
        trained.set_epoch(epoch)
        batch = next(iter(trained))
        epochs.append(batch["x"][batch["n"].argsort(), 0, 0, 0].tolist())
    assert epochs[0] == epochs[2] != epochs[1]


def test_batches_are_copies():
    array = np.zeros((4, 2), np.float32)
    next(iter(Batches(Samples({"x": array}), 4, train=False)))["x"].fill_(7)
    assert not array.any()


def test_memory_maps_and_tensors_are_columns(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12, dtype=np.uint8).reshape(4, 3))
    source = Samples({"x": np.load(tmp_path / "x.npy", mmap_mode="r"), "y": torch.arange(4)})
    batch = source.take(np.array([3, 0]))
    assert batch["x"].tolist() == [[9, 10, 11], [0, 1, 2]]
    assert batch["y"].tolist() == [3, 0]
    batch["x"][0, 0] = 1  # writable, although the file is not


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        ({}, "at least one column"),
        ({"x": np.zeros(3), "y": np.zeros(4)}, "equal length"),
        ({"x": np.zeros(0)}, "no samples"),
        ({"x": [np.zeros((3, 2)), np.zeros((3, 4))]}, "one shape and dtype"),
        ({"x": []}, "one shape and dtype"),
        ({"x": np.float32(1)}, "single number"),
    ],
    ids=["nothing", "lengths", "empty", "views", "no view", "number"],
)
def test_columns_that_do_not_fit(columns, part):
    with pytest.raises(InputError, match=part):
        Samples(columns)


def test_derived_seeds_differ_and_fit_torch():
    seeds = {derived_seed(seed, epoch, rank) for seed in range(5) for epoch in range(20) for rank in range(4)}
    assert len(seeds) == 400
    for seed in seeds:
        torch.Generator().manual_seed(seed)
