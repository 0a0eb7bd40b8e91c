"""One long text in windows: every character once, the state carried on, gradients cut off."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgedl.tasks.chars.batches import TextBatches, TextLearning
from edgedl.tasks.chars.network import CharacterNetwork
from runtime.errors import InputError


@given(st.integers(30, 400), st.integers(1, 12), st.integers(1, 9), st.integers(0, 5))
def test_rows_are_read_on_from_window_to_window(length: int, window: int, rows: int, epoch: int) -> None:
    batches = TextBatches(np.arange(length), window, rows, train=True, seed=3)
    batches.set_epoch(epoch)
    windows = [batch["tokens"] for batch in batches]
    assert len(windows) == len(batches) >= 1
    assert [bool(batch["first"]) for batch in batches] == [True] + [False] * (len(windows) - 1)
    for before, after in pairwise(windows):
        assert torch.equal(after[:, 0], before[:, -1])  # the last one is what the next begins with
    targets = torch.cat([tokens[:, 1:] for tokens in windows], dim=1).flatten()
    assert len(targets) == len(targets.unique()) == batches.rows * window * len(windows)
    assert len(targets) > length - 1 - batches.rows * window  # less than a window of each row is left out
    assert all(torch.equal(tokens, tokens[:, :1] + torch.arange(window + 1)) for tokens in windows)


@given(st.integers(2, 300), st.integers(1, 40))
def test_validation_reads_every_character_once(length: int, window: int) -> None:
    batches = list(TextBatches(np.arange(length), window, 1, train=False))
    assert torch.cat([batch["tokens"][0, 1:] for batch in batches]).tolist() == list(range(1, length))


def test_epochs_begin_at_different_places_and_alike_when_repeated() -> None:
    def first(epoch: int, seed: int) -> int:
        batches = TextBatches(np.arange(1049), 50, 2, train=True, seed=seed)
        batches.set_epoch(epoch)
        return int(next(iter(batches))["tokens"][0, 0])

    assert len({first(epoch, 0) for epoch in range(20)}) > 10
    assert [first(epoch, 5) for epoch in range(9)] == [first(epoch, 5) for epoch in range(9)]


def test_a_text_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(InputError, match="a text of 50 characters is too short for 1 windows of 50"):
        TextBatches(np.zeros(50, np.int64), 50, 4, train=True)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_windows_are_measured_as_the_whole(cell: str) -> None:
    torch.manual_seed(0)
    network = CharacterNetwork(7, cell=cell, hidden=6, layers=2, embedding=4).double().eval()  # type: ignore[arg-type]
    tokens = np.random.default_rng(0).integers(0, 7, 101)

    def nats(window: int) -> float:
        learning = TextLearning()
        with torch.no_grad():
            found = [
                learning.measure(network, batch)["nats_per_character"]
                for batch in TextBatches(tokens, window, 1, train=False)
            ]
        return float(sum(total for total, _ in found)) / sum(count for _, count in found)

    assert nats(100) == pytest.approx(nats(7), rel=1e-6)  # the loss is of float32 logits


def test_gradients_stop_where_the_window_begins() -> None:
    """The second window's gradient is that of a network which is given the first one's last state as a constant."""
    torch.manual_seed(1)
    network = CharacterNetwork(5, hidden=4, embedding=3).double()
    first, second = TextBatches(np.random.default_rng(2).integers(0, 5, 21), 10, 1, train=True)
    learning = TextLearning()
    learning.loss(network, first)
    learning.loss(network, second).backward()  # type: ignore[no-untyped-call]
    found = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
    network.zero_grad()
    with torch.no_grad():
        _, state = network.logits(first["tokens"][:, :-1])
    logits, _ = network.logits(second["tokens"][:, :-1], state)
    torch.nn.functional.cross_entropy(logits[0], second["tokens"][0, 1:]).backward()  # type: ignore[no-untyped-call]
    for one, parameter in zip(found, network.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)
