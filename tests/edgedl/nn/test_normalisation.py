"""Giving a published network statistics: it answers the same, and its normalisation sees 0 and 1."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgedl.tasks.age.network.normalisation import TRAINING_MOMENTUM, absorb_statistics
from edgedl.tasks.age.network.resnet10 import ResNet10


@pytest.fixture
def network() -> ResNet10:
    """As published: the affine is all that the normalisation does, its statistics are 0 and 1."""
    torch.manual_seed(3)
    made = ResNet10().eval()
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.3)
            nn.init.normal_(layer.bias, 0.0, 0.5)
    return made


@pytest.fixture
def batches() -> list[torch.Tensor]:
    chance = torch.Generator().manual_seed(5)
    return [torch.rand(12, 3, 64, 64, generator=chance) * 255 for _ in range(2)]


def normed(network: nn.Module, batches: list[torch.Tensor]) -> list[torch.Tensor]:
    """What each normalisation makes of the data before scale and shift, per layer (n, C, ...)."""
    collected: dict[nn.Module, list[torch.Tensor]] = {}

    def record(layer, inputs):
        mean, variance = layer.running_mean, layer.running_var
        shape = (1, -1, 1, 1)
        x = (inputs[0] - mean.reshape(shape)) / (variance.reshape(shape) + layer.eps).sqrt()
        collected.setdefault(layer, []).append(x)

    hooks = [m.register_forward_pre_hook(record) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for batch in batches:
            network(batch)
    for hook in hooks:
        hook.remove()
    return [torch.cat(parts) for parts in collected.values()]


def test_answers_stay_the_same(network, batches):
    other = torch.rand(4, 3, 64, 64) * 255
    with torch.no_grad():
        before = network(other)
        absorb_statistics(network, batches)
        after = network(other)
    assert (after - before).abs().max() <= 1e-5 * max(1.0, before.abs().max().item())
    assert before.std() > 1e-3


@pytest.mark.parametrize("last", [12, 1], ids=["batches of one size", "a last one of one face"])
def test_statistics_become_those_of_the_data(network, batches, last):
    batches = [batches[0], batches[1][:last]]
    assert max(x.mean(dim=(0, 2, 3)).abs().max().item() for x in normed(network, batches)) > 0.1, "not so before"
    absorb_statistics(network, batches)
    for x in normed(network, batches):
        assert x.mean(dim=(0, 2, 3)).abs().max() < 1e-3
        alive = x.var(dim=(0, 2, 3), correction=0)
        assert (alive[alive > 0.5] - 1).abs().max() < 2e-2


def test_training_mode_is_the_same_function_on_that_data(network, batches):
    """The point of it: the first training step starts from the published function, not from another."""
    one = batches[:1]
    with torch.no_grad():
        expected = network(one[0])
        untouched = ResNet10()
        untouched.load_state_dict(network.state_dict())
        drift_before = (untouched.train()(one[0]) - expected).abs().max()
        absorb_statistics(network, one)
        drift = (network.train()(one[0]) - expected).abs().max()
    assert drift < 1e-3
    assert drift_before > 100 * drift


def test_the_momentum_is_slower(network, batches):
    absorb_statistics(network, batches)
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {TRAINING_MOMENTUM}


def test_no_hook_is_left_behind(network, batches):
    absorb_statistics(network, batches)
    assert not any(m._forward_pre_hooks for m in network.modules())


def test_a_network_in_training_mode_is_refused(network, batches):
    with pytest.raises(ValueError, match=r"eval\(\)"):
        absorb_statistics(network.train(), batches)
