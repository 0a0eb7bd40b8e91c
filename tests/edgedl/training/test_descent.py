"""Descent on a bowl: the closed formulas of every method that `edgedl train sgd` shows, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgedl.tasks.sgd.data import embedded_readings
from edgedl.tasks.sgd.network import START, TwoWeights
from edgedl.tasks.sgd.quadratic_cost import QuadraticCost
from edgedl.training.optimisers import build_optimiser
from edgedl.training.options import TrainOptions
from edgedl.training.penalties import l1_penalty, l2_penalty, weight_decay_from_lambda, weights
from runtime.errors import InputError

READINGS = embedded_readings()
X, Y = torch.from_numpy(READINGS.gauges).double(), torch.from_numpy(READINGS.force).double()
COST = QuadraticCost.of_data(READINGS.gauges, READINGS.force)
LAMBDA, T = 6.4, len(READINGS)


def descend(name="sgd", steps=40, penalty=None, batch=T, schedule=None, **settings):
    """Weights (steps + 1, 2) along a training with our optimiser."""
    network = TwoWeights().double()
    optimiser = build_optimiser(network, name, **settings)
    base = [group["lr"] for group in optimiser.param_groups]
    points = [network.linear.weight.detach().clone()]
    for step in range(steps):
        rows = torch.arange(step * batch, (step + 1) * batch) % T
        loss = (network(X[rows]) - Y[rows]).square().mean() / 2
        if penalty is not None:
            loss = loss + penalty(weights(network))
        for group, rate in zip(optimiser.param_groups, base, strict=True):
            group["lr"] = rate * (1.0 if schedule is None else schedule(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        points.append(network.linear.weight.detach().clone())
    return torch.cat(points).numpy()


def in_eigenbasis(points):
    """Distances (steps + 1, 2) from the minimum along the valley and across it."""
    _, basis = np.linalg.eigh(COST.hessian)
    return (points - COST.minimum()) @ basis


def test_plain_descent_shrinks_each_direction_by_its_own_rate():
    rate = 0.9
    distances = in_eigenbasis(descend(lr=rate))
    powers = (1 - rate * COST.curvatures()) ** np.arange(41)[:, None]
    np.testing.assert_allclose(distances, distances[0] * powers, atol=1e-12)


@pytest.mark.parametrize(("rate", "momentum"), [(0.9, 0.6), (0.7, 0.3), (0.05, 0.9)])
@pytest.mark.parametrize("nesterov", [False, True], ids=["heavy ball", "nesterov"])
def test_momentum_follows_its_two_term_recursion(rate, momentum, nesterov):
    """Polyak 1964; Nesterov in the form of Sutskever et al. 2013, as powers of a 2×2 matrix per direction."""
    distances = in_eigenbasis(descend(lr=rate, momentum=momentum, nesterov=nesterov, steps=30))
    # Where one direction diverges, its rounding reaches the other.
    rounding = 1e-13 * max(1, np.abs(distances).max())
    for curvature, found in zip(COST.curvatures(), distances.T, strict=True):
        gain = rate * curvature
        # (distance, velocity): v' = βv + λd; heavy ball d' = d − αv', Nesterov d' = d − α(λd + βv').
        if nesterov:
            step = np.array([[1 - gain - momentum * gain, -rate * momentum**2], [curvature, momentum]])
        else:
            step = np.array([[1 - gain, -rate * momentum], [curvature, momentum]])
        state, expected = np.array([found[0], 0.0]), []
        for _ in range(31):
            expected.append(state[0])
            state = step @ state
        np.testing.assert_allclose(found, expected, atol=rounding)


def test_the_best_momentum_converges_at_polyaks_rate():
    low, high = np.sqrt(COST.curvatures())
    rate, momentum = (2 / (high + low)) ** 2, ((high - low) / (high + low)) ** 2
    lengths = np.linalg.norm(in_eigenbasis(descend(lr=rate, momentum=momentum, steps=120)), axis=1)
    # ‖d‖ ~ k·β^(k/2) with equal roots: the mean rate over the last steps comes down to √β from above.
    measured = (lengths[60] / lengths[40]) ** (1 / 20)
    assert math.sqrt(momentum) <= measured <= 1.03 * math.sqrt(momentum)
    plain = np.linalg.norm(in_eigenbasis(descend(lr=2 / COST.curvatures().sum(), steps=120)), axis=1)
    ratio = COST.curvatures()[1] / COST.curvatures()[0]
    assert (plain[60] / plain[40]) ** (1 / 20) == pytest.approx((ratio - 1) / (ratio + 1), abs=1e-9)
    assert lengths[60] < 1e-5 * plain[60]


@given(st.floats(0.05, 3.0))
def test_plain_descent_is_stable_up_to_two_over_the_largest_curvature(share):
    limit = 2 / COST.curvatures()[1]
    lengths = np.abs(in_eigenbasis(descend(lr=share * limit, steps=12))[:, 1])  # across the valley
    if share < 0.99:
        assert (np.diff(lengths) <= 1e-12).all()
    elif share > 1.01:
        assert (np.diff(lengths) > 0).all()


def test_a_rate_that_falls_as_one_over_k_makes_online_learning_the_running_mean():
    """Robbins and Monro 1951: with curvature 1 and rate 1/k the k-th weight is the mean of the first k targets."""
    network = torch.nn.Linear(1, 1, bias=False).double()
    optimiser = build_optimiser(network, "sgd", lr=1.0)
    for k in range(1, T + 1):
        optimiser.param_groups[0]["lr"] = 1 / k
        optimiser.zero_grad()
        ((network(torch.ones(1, 1).double()) - Y[k - 1]).square().sum() / 2).backward()
        optimiser.step()
        assert network.weight.item() == pytest.approx(Y[:k].mean().item(), abs=1e-12)


@pytest.mark.parametrize("batch", [T, 8, 1], ids=["full", "mini", "online"])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_lambda_is_sgds_weight_decay_over_t_also_with_mini_batches(momentum, nesterov, batch):
    settings = {"lr": 0.1, "momentum": momentum, "nesterov": nesterov, "batch": batch}
    written_out = descend(penalty=lambda tensors: l2_penalty(tensors, LAMBDA, T), **settings)
    decayed = descend(weight_decay=weight_decay_from_lambda(LAMBDA, T), **settings)
    assert np.abs(written_out - decayed).max() <= 1e-12
    # The mistake that is easily made, dividing by the batch instead, is seen.
    if batch < T:
        assert np.abs(written_out - descend(weight_decay=LAMBDA / batch, **settings)).max() > 0.1
    assert np.abs(written_out - descend(**settings)).max() > 1e-2


def test_sgd_shrinks_every_weight_alike_and_adams_first_step_knows_no_lambda():
    decay, rate = LAMBDA / T, 0.01

    def effect(name):
        return (descend(name, steps=1, lr=rate, weight_decay=decay) - descend(name, steps=1, lr=rate))[1]

    np.testing.assert_allclose(effect("sgd"), -rate * decay * np.array(START), atol=1e-12)
    # Adam divides the whole gradient by its own size: after one step only its sign is left.
    np.testing.assert_allclose(effect("adam"), 0, atol=1e-9)
    np.testing.assert_allclose(effect("adamw"), -rate * decay * np.array(START), atol=1e-9)


def test_adam_ends_where_sgd_does_on_another_way_and_adamw_elsewhere():
    def cosine(step):
        return (1 + math.cos(math.pi * step / 600)) / 2

    settings = {"steps": 600, "weight_decay": LAMBDA / T, "schedule": cosine, "betas": (0.9, 0.95)}
    rates = {"sgd": 0.5, "adam": 0.1, "adamw": 0.1}
    ends = {name: descend(name, lr=rate, **settings) for name, rate in rates.items()}
    ridge = np.linalg.solve(COST.hessian + LAMBDA / T * np.eye(2), COST.linear)
    np.testing.assert_allclose(ends["sgd"][-1], ridge, atol=1e-3)
    np.testing.assert_allclose(ends["adam"][-1], ridge, atol=1e-3)
    assert np.abs(ends["adam"][20] - ends["sgd"][20]).max() > 0.1
    # A decay beside the gradient has no cost of its own: with a rate that falls to 0 nothing of λ is left.
    np.testing.assert_allclose(ends["adamw"][-1], COST.minimum(), atol=1e-2)
    assert np.abs(ends["adamw"][-1] - ridge).max() > 0.1


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_lambda_is_refused_where_it_would_not_be_what_it_says(name):
    with pytest.raises(InputError, match="for SGD only"):
        TrainOptions(optimiser=name, l2=LAMBDA)


def test_l2_ends_at_the_ridge_solution():
    ridge = np.linalg.solve(X.numpy().T @ X.numpy() + LAMBDA * np.eye(2), X.numpy().T @ Y.numpy())
    np.testing.assert_allclose(COST.penalised(l2=LAMBDA).minimum(), ridge, atol=1e-12)
    found = descend(lr=0.8, momentum=0.5, steps=400, weight_decay=LAMBDA / T)[-1]
    np.testing.assert_allclose(found, ridge, atol=1e-12)


def test_l1_ends_where_the_subgradient_is_zero():
    strength = 0.1
    w = COST.penalised(l1=strength).minimum()
    assert (w > 0).all()
    np.testing.assert_allclose(COST.hessian @ w - COST.linear, -strength, atol=1e-12)
    found = descend(lr=0.8, momentum=0.5, steps=400, penalty=lambda tensors: l1_penalty(tensors, strength))[-1]
    np.testing.assert_allclose(found, w, atol=1e-12)


@given(st.floats(0, 4), st.integers(0, 1000))
def test_the_least_of_an_l1_cost_is_the_least_around(strength, seed):
    cost = COST.penalised(l1=strength)
    w = cost.minimum()
    around = w + np.random.default_rng(seed).normal(size=(64, 2)) * 0.1
    assert (cost(around) >= cost(w) - 1e-12).all()
    if strength >= np.abs(COST.linear).max():
        assert w.tolist() == [0, 0]


def test_dropout_is_on_average_a_penalty_on_what_each_input_carries():
    """Srivastava et al. 2014, section 9.1, by all four masks of two inputs, each with its probability."""
    share, w = 0.2, np.array([0.7, -0.4])
    mean = 0.0
    for mask in ((0, 0), (0, 1), (1, 0), (1, 1)):
        probability = math.prod(1 - share if kept else share for kept in mask)
        scaled = READINGS.gauges.astype(np.float64) * np.array(mask) / (1 - share)
        mean += probability * np.square(scaled @ w - READINGS.force).mean() / 2
    assert COST.penalised(dropout=share)(w) == pytest.approx(mean, abs=1e-12)
    assert COST(w) < mean - 0.01


def test_dropout_is_off_in_inference():
    network = TwoWeights(0.5).double()
    torch.manual_seed(0)
    assert not torch.equal(network(X), network(X))
    network.eval()
    torch.testing.assert_close(network(X), X @ torch.tensor(START).double(), rtol=0, atol=1e-12)


def test_the_cost_is_half_the_mean_squared_error():
    w = np.array([0.3, -2.0])
    error = READINGS.gauges.astype(np.float64) @ w - READINGS.force
    assert COST(w) == pytest.approx(np.square(error).mean() / 2, abs=1e-12)
    assert COST(np.zeros((3, 5, 2))).shape == (3, 5)
    again = QuadraticCost.from_json(COST.to_json())
    assert again(w) == COST(w)


def test_a_flat_cost_and_wrong_shapes_are_refused():
    with pytest.raises(InputError, match="flat along some direction"):
        QuadraticCost.of_data(np.ones((5, 2)), np.ones(5)).minimum()
    with pytest.raises(InputError, match="expected inputs"):
        QuadraticCost.of_data(np.ones((5, 2)), np.ones(4))
    with pytest.raises(InputError, match="holds no cost"):
        QuadraticCost.from_json({"hessian": [[1]]})
    with pytest.raises(InputError, match="has the shapes"):
        QuadraticCost.from_json({**COST.to_json(), "linear": [1.0]})
