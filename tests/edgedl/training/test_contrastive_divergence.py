"""CD-k against the exact mean over its Markov chain, on a machine of 3×2 units whose states can all be written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgedl.tasks.digits.config import PretrainOptions
from edgedl.tasks.digits.contrastive_divergence import contrastive_divergence, parameters_of, pretrain
from edgedl.tasks.digits.rbm import RBM
from runtime.errors import CheckFailedError, InputError
from tests.edgedl.nn.test_rbm import joint, machine, states

DATA = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 0, 1], [1, 0, 1]], dtype=torch.float64)
CHAINS = 40_000


def transition(rbm: RBM) -> Tensor:
    """p(v' | v) of one step of Gibbs sampling over all visible states, by summing over all hidden ones: (8, 8)."""
    _, _, p = joint(rbm)
    up = p / p.sum(1, keepdim=True)  # p(h | v), (8, 4)
    down = (p / p.sum(0)).T  # p(v' | h), (4, 8)
    return up @ down


def statistics(rbm: RBM, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means of v·hᵀ, v and h where the visible states have these probabilities (8,)."""
    v, h, p = joint(rbm)
    hidden = (p / p.sum(1, keepdim=True)) @ h
    return (weights[:, None] * v).T @ hidden, weights @ v, weights @ hidden


def empirical() -> Tensor:
    """The data's probabilities over all visible states."""
    found = (DATA[:, None] == states(3)[None]).all(2).double()
    assert (found.sum(1) == 1).all()
    return found.mean(0)


def exact_cd(rbm: RBM, steps: int) -> list[Tensor]:
    start = empirical()
    end = start @ torch.linalg.matrix_power(transition(rbm), steps)
    return [a - b for a, b in zip(statistics(rbm, start), statistics(rbm, end), strict=True)]


def sampled(rbm: RBM, steps: int, **options) -> tuple[list[Tensor], list[Tensor]]:
    """Mean and standard error of the gradient over many chains, each estimate from one copy of the data."""
    generator = torch.Generator().manual_seed(steps)
    rounds = 40
    estimates = [
        contrastive_divergence(rbm, DATA.repeat(CHAINS // len(DATA) // rounds, 1), steps, generator, **options)[0].parts
        for _ in range(rounds)
    ]
    stacked = [torch.stack(part) for part in zip(*estimates, strict=True)]
    return [part.mean(0) for part in stacked], [part.std(0) / rounds**0.5 for part in stacked]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_cd_k_is_on_average_the_exact_cd_k(steps):
    rbm = machine()
    means, errors = sampled(rbm, steps)
    for found, error, expected in zip(means, errors, exact_cd(rbm, steps), strict=True):
        assert float(error.max()) < 0.005, "too rough to tell anything"
        assert ((found - expected).abs() < 5 * error + 1e-12).all(), f"{found}\n{expected}"


def test_another_number_of_steps_would_be_told():
    """The bound above is narrow enough: CD-1 is not taken for CD-2."""
    rbm = machine()
    means, errors = sampled(rbm, 1)
    assert any(
        ((found - other).abs() > 8 * error).any()
        for found, error, other in zip(means, errors, exact_cd(rbm, 2), strict=True)
    )


def test_with_ever_more_steps_it_is_the_gradient_of_the_likelihood():
    rbm = machine()
    for parameter in rbm.parameters():
        parameter.requires_grad_(True)
    likelihood = (-rbm.free_energy(DATA)).mean() - torch.logsumexp(-rbm.free_energy(states(3)), 0)
    slopes = torch.autograd.grad(likelihood, parameters_of(rbm))
    for parameter in rbm.parameters():
        parameter.requires_grad_(False)
    for expected, found in zip(slopes, exact_cd(rbm, 2000), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    means, errors = sampled(rbm, 60)
    for found, error, expected in zip(means, errors, slopes, strict=True):
        assert ((found - expected).abs() < 5 * error + 1e-6).all()


def test_persistent_chains_go_on_where_they_stood():
    rbm, generator = machine(), torch.Generator().manual_seed(0)
    chains = torch.ones(6000, 3, dtype=torch.float64)
    start = torch.zeros(8, dtype=torch.float64)
    start[7] = 1  # all on is the last of all states
    gradient, after = contrastive_divergence(rbm, DATA, 1, generator, chains)
    end = start @ transition(rbm)
    assert after.shape == chains.shape
    assert ((after.mean(0) - end @ states(3)).abs() < 5 * 0.5 / 6000**0.5).all()
    expected = statistics(rbm, empirical())[1] - end @ states(3)
    assert ((gradient.visible_bias - expected).abs() < 5 * 0.5 / 6000**0.5).all()


def test_unsampled_visible_units_are_their_probabilities():
    rbm, generator = machine(), torch.Generator().manual_seed(0)
    _, state = contrastive_divergence(rbm, DATA, 1, generator, sampled=False)
    possible = rbm.visible_probabilities(states(2))
    assert all(torch.isclose(row, possible).all(1).any() for row in state)


@pytest.mark.parametrize("persistent", [False, True], ids=["CD", "PCD"])
def test_pretraining_raises_the_likelihood_of_the_data(persistent):
    generator = torch.Generator().manual_seed(3)
    rbm = RBM(3, 2, generator=generator).double()

    def likelihood() -> float:
        return float((-rbm.free_energy(DATA)).mean() - torch.logsumexp(-rbm.free_energy(states(3)), 0))

    before = likelihood()
    options = PretrainOptions(epochs=60, lr=0.1, steps=2, persistent=persistent, sampled=True)
    rows = pretrain(rbm, DATA.repeat(10, 1), DATA, options, generator)
    assert before == pytest.approx(-3 * 0.6931, abs=0.02)  # hardly any weights: all 8 states alike
    assert likelihood() > -1.45  # the data's own entropy is 1.04
    assert [row["epoch"] for row in rows] == list(range(1, 61))
    assert rows[-1]["reconstruction"] < rows[0]["reconstruction"]


def test_the_label_is_learnt_beside_the_picture():
    """Two patterns, each with its label: afterwards the label follows from the pattern."""
    generator = torch.Generator().manual_seed(3)
    rbm = RBM(6, 8, classes=2, generator=generator)
    data = torch.tensor([[1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 0, 1]], dtype=torch.float32).repeat(20, 1)
    pretrain(rbm, data, data, PretrainOptions(epochs=40, lr=0.1, sampled=True), generator)
    asked = data[:2].clone()
    asked[:, -2:] = 0.5
    told = rbm.visible_probabilities(rbm.hidden_probabilities(asked))[:, -2:]
    assert told.argmax(1).tolist() == [0, 1]


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("batch_size", 0), ("steps", 0), ("lr", 0.0)])
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match="contrastive divergence"):
        PretrainOptions(**{name: value})


def test_weights_that_leave_all_bounds_are_an_error():
    rbm = RBM(3, 2)
    with pytest.raises(CheckFailedError, match="layer 1 became infinite in epoch 2; lower its learning rate"):
        pretrain(rbm, DATA.float(), DATA.float(), PretrainOptions(epochs=2, lr=1e38), torch.Generator(), "of layer 1")
