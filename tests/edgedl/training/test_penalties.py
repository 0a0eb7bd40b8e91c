"""L2 as weight decay, L1 as a term, and which parameters they apply to."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgedl.training.optimisers import build_optimiser, parameter_groups
from edgedl.training.penalties import l1_penalty, l2_penalty, weight_decay_from_lambda, weight_names, weights
from runtime.errors import InputError

SAMPLES, STRENGTH = 48, 3.0


def small_network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 2)).double()


def train(network: nn.Module, optimiser: torch.optim.Optimizer, penalty=None, steps: int = 40) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        x = torch.randn(8, 6, generator=generator, dtype=torch.float64)  # mini-batches of 8; T stays 48
        loss = (network(x) - x[:, :2]).square().mean()
        if penalty is not None:
            loss = loss + penalty(network)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return [parameter.detach() for parameter in network.parameters()]


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_l2_is_weight_decay_of_lambda_over_t(momentum, nesterov):
    written_out, decayed = small_network(), small_network()
    settings = {"lr": 0.05, "momentum": momentum, "nesterov": nesterov}
    expected = train(
        written_out,
        build_optimiser(written_out, "sgd", **settings),
        lambda network: (
            STRENGTH / (2 * SAMPLES) * (network[0].weight.square().sum() + network[3].weight.square().sum())
        ),
    )
    decay = weight_decay_from_lambda(STRENGTH, SAMPLES)
    found = train(decayed, build_optimiser(decayed, "sgd", weight_decay=decay, **settings))
    unpenalised = train(plain := small_network(), build_optimiser(plain, "sgd", **settings))
    assert max((a - b).abs().max().item() for a, b in zip(found, expected, strict=True)) <= 1e-12
    assert max((a - b).abs().max().item() for a, b in zip(found, unpenalised, strict=True)) > 1e-2


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_l2_is_another_training_for_adam(name):
    """Why λ is refused there."""
    written_out, decayed = small_network(), small_network()
    expected = train(
        written_out,
        build_optimiser(written_out, name, lr=0.01),
        lambda network: l2_penalty(weights(network), STRENGTH, SAMPLES),
    )
    found = train(decayed, build_optimiser(decayed, name, lr=0.01, weight_decay=STRENGTH / SAMPLES))
    same = max((a - b).abs().max().item() for a, b in zip(found, expected, strict=True)) <= 1e-9
    assert same == (name == "adam")  # torch's Adam adds the decay to the gradient; AdamW does not


def test_penalties_in_closed_form():
    tensors = [torch.tensor([[3.0, -4.0]], requires_grad=True), torch.tensor([[0.0, 2.0]], requires_grad=True)]
    assert l2_penalty(tensors, 6.0, 10).item() == pytest.approx(6 / 20 * 29)
    penalty = l1_penalty(tensors, 0.5)
    assert penalty.item() == pytest.approx(4.5)
    penalty.backward()
    assert tensors[0].grad.tolist() == [[0.5, -0.5]]
    assert tensors[1].grad.tolist() == [[0.0, 0.5]]


def test_weights_leave_out_biases_and_norms():
    network = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 4, 3),
            "batch": nn.BatchNorm2d(4),
            "layer": nn.LayerNorm([4, 5]),  # two-dimensional, and a norm all the same
            "group": nn.GroupNorm(2, 4),
            "lstm": nn.LSTM(4, 5),
            "words": nn.Embedding(7, 4),
        }
    )
    assert weight_names(network) == {"conv.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "words.weight"}


def test_a_shared_weight_counts_once():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    assert len(weights(network)) == 1


@pytest.mark.parametrize(("strength", "samples"), [(1.0, 0), (-1.0, 5)])
def test_impossible_strengths(strength, samples):
    with pytest.raises(InputError):
        weight_decay_from_lambda(strength, samples)


def test_groups_of_body_and_head():
    network = nn.ModuleDict({"body": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "head": nn.Linear(4, 2)})
    groups = {
        group["name"]: group
        for group in parameter_groups(network, lr=0.1, weight_decay=0.01, head=["head"], head_lr=10)
    }
    assert {name: (len(g["params"]), g["lr"], g["weight_decay"]) for name, g in groups.items()} == {
        "body weights": (1, 0.1, 0.01),
        "body biases and norms": (3, 0.1, 0.0),
        "head weights": (1, 1.0, 0.01),
        "head biases and norms": (1, 1.0, 0.0),
    }


def test_frozen_parameters_are_left_out_and_a_wrong_prefix_is_refused():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    network[0].requires_grad_(False)
    assert sum(len(group["params"]) for group in parameter_groups(network, lr=0.1, weight_decay=0)) == 2
    with pytest.raises(InputError, match="lies below 'heads'"):
        parameter_groups(network, lr=0.1, weight_decay=0, head=["heads"])
    with pytest.raises(InputError, match="can be trained"):
        parameter_groups(network.requires_grad_(False), lr=0.1, weight_decay=0)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("lbfgs", {"lr": 0.1}), ("sgd", {"lr": 0.0}), ("sgd", {"lr": 0.1, "nesterov": True})],
    ids=["unknown", "no rate", "nesterov without momentum"],
)
def test_optimisers_refuse(name, settings):
    with pytest.raises(InputError):
        build_optimiser(small_network(), name, **settings)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_optimisers_descend(name):
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    losses = []
    for steps in (0, 40):
        network = small_network()
        train(network, build_optimiser(network, name, lr=0.03), steps=steps)
        losses.append((network(x) - x[:, :2]).square().mean().item())
    assert losses[1] < 0.5 * losses[0]
