"""Learning to bridge long time lags: fresh batches, and losses and counts against answers that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.tasks.longlag.data import PROBLEMS, draw_sequences
from edgedl.tasks.longlag.objective import LagBatches, LagLearning


class Says(nn.Module):
    """Answers every sequence with what it was given."""

    def __init__(self, answers: torch.Tensor) -> None:
        super().__init__()
        self.answers = answers

    def logits(self, inputs, lengths):
        return self.answers


def batch_of(problem: str, count: int) -> dict[str, torch.Tensor]:
    drawn = draw_sequences(problem, count)
    columns = {"inputs": drawn.inputs, "lengths": drawn.lengths, "targets": drawn.targets}
    return {name: torch.from_numpy(column) for name, column in columns.items()}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_an_epoch_is_its_seed_and_number_and_no_other_is_like_it(problem):
    source = LagBatches(problem, PROBLEMS[problem].length, 6, 3, seed=1)
    first = list(source)
    assert len(source) == len(first) == 3
    assert {tuple(batch["inputs"].shape[:1]) for batch in first} == {(6,)}
    for batch, again in zip(first, source, strict=True):
        assert all(torch.equal(batch[name], again[name]) for name in batch)
    everything = torch.cat([batch["inputs"] for batch in first])
    source.set_epoch(1)
    assert not torch.equal(everything, torch.cat([batch["inputs"] for batch in source]))
    other = LagBatches(problem, PROBLEMS[problem].length, 6, 3, seed=2)
    assert not torch.equal(everything, torch.cat([batch["inputs"] for batch in other]))


@pytest.mark.parametrize("problem", ["copy", "order", "digits"])
def test_a_constant_answer_learns_and_is_measured_at_its_closed_formula(problem):
    """Even probabilities over what is possible: of copy blanks are sure, and the ten symbols are one of eight."""
    batch = batch_of(problem, 40)
    about = PROBLEMS[problem]
    if problem == "copy":
        steps = batch["targets"].shape[1]
        answers = torch.full((40, steps, 9), -1e4)
        answers[:, :-10, 8] = 0
        answers[:, -10:, :8] = 0
    else:
        answers = torch.zeros(40, about.outputs)
    learning, network = LagLearning(problem), Says(answers)
    assert learning.loss(network, batch).item() == pytest.approx(about.constant(about.length), rel=1e-5)
    total, count = learning.measure(network, batch)["nats"]
    assert total.item() / count == pytest.approx(about.constant(about.length), rel=1e-5)
    right, rows = learning.measure(network, batch)["right"]
    # Ties go to the first class: of digits the zeros are right, of order nothing is within .3 of 1.
    expected = int((batch["targets"] == 0).sum()) if problem == "digits" else 0
    assert (int(right), rows) == (expected, 40)


def test_adding_learns_from_the_squared_error_and_counts_what_is_within_the_tolerance():
    batch = batch_of("adding", 30)
    off = torch.tensor([0.0, 0.03, 0.05] * 10)
    learning, network = LagLearning("adding"), Says(batch["targets"] + off)
    assert learning.monitor == "MSE"
    assert learning.loss(network, batch).item() == pytest.approx((0.03**2 + 0.05**2) / 3, rel=1e-4)
    measured = learning.measure(network, batch)
    assert (int(measured["right"][0]), measured["right"][1]) == (20, 30)
    assert measured["MSE"][0].item() / measured["MSE"][1] == pytest.approx((0.03**2 + 0.05**2) / 3, rel=1e-4)


def test_a_sure_answer_is_right_and_costs_nothing():
    batch = batch_of("order", 12)
    answers = torch.from_numpy(np.eye(4, dtype=np.float32)[batch["targets"].numpy()]) * 30
    measured = LagLearning("order").measure(Says(answers), batch)
    assert int(measured["right"][0]) == 12
    assert measured["nats"][0].item() < 1e-8
    wrong = LagLearning("order").measure(Says(-answers), batch)
    assert int(wrong["right"][0]) == 0
    assert wrong["nats"][0].item() / 12 == pytest.approx(30 + math.log(3), rel=1e-4)
