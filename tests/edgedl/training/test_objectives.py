"""Objectives against closed forms and float64 references written in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from edgedl.nn.age import expectation
from edgedl.training.objectives import (
    AgeLearning,
    AgeObjective,
    cross_entropy,
    expectation_l1,
    gaussian_targets,
    kl_divergence,
    mean_and_variance,
    one_hot_nearest,
    two_hot,
)
from runtime.errors import InputError

YEARS = torch.arange(101, dtype=torch.float64)


@pytest.fixture
def batch():
    generator = np.random.default_rng(7)
    logits = generator.normal(0, 3, (5, 101))
    ages = np.array([0.0, 23.4, 50.5, 99.9, 100.0])
    return logits, ages


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def test_expectation_is_exact_on_one_class_and_uniform():
    years = torch.arange(101, dtype=torch.float32)
    assert torch.equal(expectation(torch.eye(101), years), years)
    assert expectation(torch.full((1, 101), 1 / 101, dtype=torch.float64), YEARS).item() == pytest.approx(
        50.0, abs=1e-12
    )


def test_two_hot_interpolates_and_its_expectation_is_the_age():
    ages = torch.tensor([0.0, 0.25, 41.0, 99.5, 100.0], dtype=torch.float64)
    targets = two_hot(ages, YEARS)
    assert torch.equal(expectation(targets, YEARS), ages)
    assert torch.equal(targets.sum(dim=1), torch.ones(5, dtype=torch.float64))
    assert targets[1, :3].tolist() == [0.75, 0.25, 0.0]
    assert (targets > 0).sum(dim=1).tolist() == [1, 2, 1, 2, 1]


def test_two_hot_on_uneven_years_and_outside_them():
    years = torch.tensor([5.0, 10.0, 30.0], dtype=torch.float64)
    targets = two_hot(torch.tensor([15.0, 1.0, 77.0]), years)
    assert targets.tolist() == [[0.0, 0.75, 0.25], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def test_nearest_class():
    years = torch.tensor([5.0, 10.0, 30.0])
    assert one_hot_nearest(torch.tensor([7.4, 7.6, 20.0, 90.0]), years).argmax(dim=1).tolist() == [0, 1, 1, 2]


def test_gaussian_targets_match_the_density():
    targets = gaussian_targets(torch.tensor([40.0]), YEARS, sigma=2.0)[0].numpy()
    # Far from the ends the sum of the density over whole years is 1 to far beyond float64's last digit.
    expected = np.exp(-((np.arange(101) - 40.0) ** 2) / 8) / (2 * math.sqrt(2 * math.pi))
    assert np.allclose(targets, expected, atol=1e-12, rtol=0)
    assert targets.sum() == pytest.approx(1, abs=1e-14)


def test_cross_entropy_and_kl_against_float64(batch):
    logits, ages = batch
    targets = two_hot(torch.tensor(ages), YEARS).numpy()
    reference = -(targets * np.log(softmax(logits))).sum(axis=1).mean()
    assert cross_entropy(torch.tensor(logits), torch.tensor(targets)).item() == pytest.approx(reference, abs=1e-12)

    labels = gaussian_targets(torch.tensor(ages), YEARS, 3.0)
    terms = labels.numpy() * (np.log(labels.numpy() + 1e-300) - np.log(softmax(logits)))
    assert kl_divergence(torch.tensor(logits), labels).item() == pytest.approx(terms.sum(axis=1).mean(), abs=1e-11)
    assert kl_divergence(labels.log(), labels).item() == pytest.approx(0, abs=1e-12)


def test_uniform_logits_cost_the_logarithm_of_the_classes():
    logits = torch.zeros(2, 101, dtype=torch.float64)
    targets = two_hot(torch.tensor([3.0, 77.5]), YEARS)
    assert cross_entropy(logits, targets).item() == pytest.approx(math.log(101), abs=1e-12)
    assert expectation_l1(logits, torch.tensor([40.0, 75.0]), YEARS).item() == pytest.approx((10 + 25) / 2, abs=1e-12)


def test_mean_and_variance_of_the_uniform_distribution():
    mean_term, variance_term = mean_and_variance(torch.zeros(1, 101, dtype=torch.float64), torch.tensor([47.0]), YEARS)
    assert mean_term.item() == pytest.approx(0.5 * 3**2, abs=1e-10)
    assert variance_term.item() == pytest.approx((101**2 - 1) / 12, abs=1e-9)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", ["cross-entropy", "dldl", "dldl-v2", "mean-variance"])
def test_each_objective_is_the_sum_that_its_paper_gives(batch, name):
    logits, ages = batch
    p = softmax(logits)
    years = np.arange(101.0)
    mean = p @ years
    cross = -(two_hot(torch.tensor(ages), YEARS).numpy() * np.log(p)).sum(axis=1).mean()
    labels = np.exp(-((years - ages[:, None]) ** 2) / (2 * 2.0**2))
    labels /= labels.sum(axis=1, keepdims=True)
    divergence = (labels * (np.log(labels + 1e-300) - np.log(p))).sum(axis=1).mean()
    variance = (p * (years - mean[:, None]) ** 2).sum(axis=1).mean()
    expected = {
        "cross-entropy": cross,
        "dldl": divergence,
        "dldl-v2": divergence + np.abs(mean - ages).mean(),
        "mean-variance": cross + 0.2 * 0.5 * ((mean - ages) ** 2).mean() + 0.05 * variance,
    }[name]
    objective = AgeObjective(range(101), name, sigma=2.0)
    assert objective(torch.tensor(logits), torch.tensor(ages)).item() == pytest.approx(expected, rel=1e-11)


def test_expectation_term_can_be_added_and_nearest_targets_chosen():
    logits, ages = torch.randn(4, 11), torch.tensor([3.0, 55.0, 61.0, 99.0])
    years = range(0, 101, 10)
    plain, more = AgeObjective(years), AgeObjective(years, expectation_weight=0.5)
    extra = expectation_l1(logits, ages, plain.years)
    assert (more(logits, ages) - plain(logits, ages)).item() == pytest.approx(0.5 * extra.item(), rel=1e-5)
    nearest = AgeObjective(years, targets="nearest")
    wanted = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 5, 6, 10]))
    assert nearest(logits, ages).item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize("name", ["cross-entropy", "dldl", "dldl-v2", "mean-variance"])
def test_objectives_stay_finite_on_extreme_logits(name):
    logits = torch.full((2, 101), -1000.0, requires_grad=True)
    loss = AgeObjective(range(101), name)(logits * torch.linspace(-1, 1, 101), torch.tensor([0.0, 100.0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (((1, 2), "huber"), "no objective is called 'huber'"),
        (((2, 1),), "increase"),
        (((5,),), "at least two"),
    ],
    ids=["unknown", "falling", "single"],
)
def test_what_does_not_fit_is_refused(arguments, part):
    with pytest.raises(InputError, match=part):
        AgeObjective(*arguments)


class FixedLogits(torch.nn.Module):
    def logits(self, images):
        return images


def test_measures_are_sums_with_counts():
    """Errors of 0, 5 and 6 years: MAE 11/3, and 5 still counts as right for CS@5."""
    logits = 1e4 * torch.eye(101)[[20, 35, 46]]
    measured = AgeLearning(AgeObjective(range(101))).measure(
        FixedLogits(), {"image": logits, "age": torch.tensor([20.0, 30.0, 40.0])}
    )
    assert measured["MAE"] == (torch.tensor(11.0), 3)
    assert measured["CS@5"] == (torch.tensor(2), 3)
    assert measured["loss"][1] == 3
