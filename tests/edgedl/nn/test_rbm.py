"""Boltzmann machines against all their states written out."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from edgedl.tasks.digits.rbm import RBM


def machine(visible: int = 3, hidden: int = 2, classes: int = 0) -> RBM:
    generator = torch.Generator().manual_seed(5)
    rbm = RBM(visible, hidden, classes=classes).double()
    for parameter in rbm.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return rbm


def states(units: int, classes: int = 0) -> Tensor:
    """All states of so many units, (2**units, units); the last `classes` are one-hot."""
    free = torch.tensor(list(itertools.product((0.0, 1.0), repeat=units - classes)), dtype=torch.float64)
    if not classes:
        return free
    labels = torch.eye(classes, dtype=torch.float64)
    return torch.cat([free.repeat_interleave(classes, 0), labels.repeat(len(free), 1)], dim=1)


def joint(rbm: RBM) -> tuple[Tensor, Tensor, Tensor]:
    """All visible states, all hidden states, and p(v, h) by their energies term by term."""
    v, h = states(len(rbm.visible_bias), rbm.classes), states(len(rbm.hidden_bias))
    energies = torch.tensor(
        [
            [
                -sum(float(rbm.weight[i, j] * a[i] * b[j]) for i in range(len(a)) for j in range(len(b)))
                - sum(float(rbm.visible_bias[i] * a[i]) for i in range(len(a)))
                - sum(float(rbm.hidden_bias[j] * b[j]) for j in range(len(b)))
                for b in h
            ]
            for a in v
        ],
        dtype=torch.float64,
    )
    weights = torch.exp(-energies)
    return v, h, weights / weights.sum()


@pytest.mark.parametrize("classes", [0, 2], ids=["binary", "with a label"])
def test_conditionals_and_free_energy_are_those_of_the_joint_distribution(classes):
    rbm = machine(4, 3, classes)
    v, h, p = joint(rbm)
    torch.testing.assert_close(rbm.hidden_probabilities(v), (p @ h) / p.sum(1, keepdim=True))
    torch.testing.assert_close(rbm.visible_probabilities(h), (p.T @ v) / p.sum(0)[:, None])
    free = torch.exp(-rbm.free_energy(v))
    torch.testing.assert_close(free / free.sum(), p.sum(1))
    both = torch.exp(-rbm.energy(v[:, None], h[None]))
    torch.testing.assert_close(both / both.sum(), p)


def test_the_gradient_of_the_free_energy_is_minus_the_statistics():
    rbm = machine()
    for parameter in rbm.parameters():
        parameter.requires_grad_(True)
    v = states(3)[[5]]
    (slope,) = torch.autograd.grad(rbm.free_energy(v).sum(), rbm.weight)
    torch.testing.assert_close(-slope, v.T @ rbm.hidden_probabilities(v))


@pytest.mark.parametrize("classes", [0, 2], ids=["binary", "with a label"])
def test_samples_have_the_probabilities(classes):
    rbm, generator = machine(4, 2, classes), torch.Generator().manual_seed(1)
    hidden = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    drawn = rbm.sample_visible(hidden.expand(20_000, 2), generator)
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    # 5 standard errors of a mean of 20,000 coin tosses
    assert (drawn.mean(0) - rbm.visible_probabilities(hidden)[0]).abs().max() < 5 * 0.5 / 20_000**0.5
    if classes:
        assert (drawn[:, -classes:].sum(1) == 1).all()


def test_a_label_of_more_units_than_there_are_is_refused():
    with pytest.raises(ValueError, match="5 of 4"):
        RBM(4, 2, classes=5)
