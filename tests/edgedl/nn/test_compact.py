"""The compact network: within its budget, and it can be trained."""

from __future__ import annotations

import pytest
import torch

from edgedl.nn.age import AgeNetwork
from edgedl.tasks.age.network.compact import CompactNetwork
from edgedl.tasks.age.network.resnet10 import ResNet10

LARGEST = 3_000_000


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("backbone", [CompactNetwork, ResNet10])
def test_at_most_three_million_parameters(backbone):
    assert 1e5 < parameters(AgeNetwork(backbone(), range(101), 64)) <= LARGEST


def test_the_documented_size():
    """Its docstring says about 0.1 M."""
    assert round(parameters(CompactNetwork()) / 1e6, 1) == 0.1


@pytest.mark.parametrize("side", [32, 33, 64, 80])
def test_features_of_any_side(side):
    with torch.no_grad():
        features = CompactNetwork().eval()(torch.full((2, 3, side, side), 255.0))
    assert features.shape == (2, CompactNetwork.features)


def test_mid_grey_is_the_zero_of_the_network():
    """Levels are mapped to -1 … 1: 127.5 everywhere leaves the first convolution nothing."""
    network = CompactNetwork().eval()
    with torch.no_grad():
        first = network.layers[0][0]
        seen = []
        hook = first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        network(torch.full((1, 3, 32, 32), 127.5))
        network(torch.full((1, 3, 32, 32), 255.0))
        hook.remove()
    assert seen[0].abs().max() == 0
    assert seen[1].unique().tolist() == [1.0]


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    network = CompactNetwork().train()
    network(torch.rand(4, 3, 64, 64) * 255).square().mean().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
