"""Class activation maps: Grad-CAM is Zhou's map where that applies, and units are excited by what they look for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgedl.tasks.features.activation_maximisation import maximise
from edgedl.tasks.features.class_activation import grad_cam, layer_answer


def class_activation_map(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """M(x, y) = Σ_c w_c·f_c(x, y): Zhou et al., equation 2."""
    return torch.einsum("nchw,c->nhw", features, weight)


class Pooled(nn.Module):
    """Convolutions, global average pooling and one linear layer: what Zhou et al. ask for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, levels):
        return self.head(self.body(levels / 255).mean(dim=(2, 3)))


@pytest.fixture
def network() -> Pooled:
    return Pooled().double().eval()


@pytest.fixture
def levels() -> torch.Tensor:
    return 255 * torch.rand(2, 3, 21, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_grad_cam_is_the_class_activation_map_up_to_scale_and_relu(network, levels):
    features = network.body(levels / 255)
    places = features.shape[2] * features.shape[3]
    signs = set()
    for unit in range(5):
        expected = class_activation_map(features, network.head.weight[unit]).detach()
        found = grad_cam(network, network.body, levels, lambda scores, unit=unit: scores[:, unit])
        torch.testing.assert_close(found, expected.relu() / places, rtol=0, atol=1e-12)
        signs |= set(expected.sign().flatten().tolist())
    assert signs >= {-1.0, 1.0}  # the ReLU is not idle


def test_grad_cam_leaves_the_network_as_it_is_and_works_without_learnable_weights(network, levels):
    before = grad_cam(network, network.body, levels, lambda scores: scores[:, 0])
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.body._forward_hooks
    network.requires_grad_(False)
    torch.testing.assert_close(grad_cam(network, network.body, levels, lambda scores: scores[:, 0]), before)


def test_layers_that_are_not_reached_or_give_no_map_are_refused(network, levels):
    stranger = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="does not reach Conv2d"):
        grad_cam(network, stranger, levels, lambda scores: scores[:, 0])
    with pytest.raises(ValueError, match="gives no map"):
        grad_cam(network, network.head, levels, lambda scores: scores[:, 0])
    with pytest.raises(ValueError, match="does not reach Conv2d"):
        layer_answer(network, stranger, levels)
    with pytest.raises(ValueError, match="does not reach"):
        maximise(network.float(), stranger, [0], 16, steps=1)


class Colours(nn.Module):
    """Unit 0 is red less green, unit 1 is blue; what lies behind must not run."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 2, 1, bias=False)
        self.mix.weight.data = torch.tensor([[1.0, -1, 0], [0, 0, 1]])[:, :, None, None]

    def forward(self, levels):
        self.mix(levels)
        raise AssertionError("what lies behind the unit was computed")


def test_colours_become_the_ones_that_the_units_look_for():
    network = Colours()
    red, blue = maximise(network, network.mix, [0, 1], 8, steps=80, rate=0.1).mean(dim=(2, 3))
    assert red[0] > 250
    assert red[1] < 5
    assert red[2] == pytest.approx(127.5, abs=5)
    assert blue[2] > 250
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not network.mix._forward_hooks


def test_an_edge_detector_gets_its_edges():
    network = nn.Sequential(nn.Conv2d(3, 1, (1, 3), bias=False), nn.ReLU())
    network[0].weight.data = torch.tensor([-1.0, 2, -1]).reshape(1, 1, 1, 3).expand(1, 3, 1, 3).clone()
    picture = maximise(network, network[1], [0], 16, steps=60, rate=0.1, shift=0)[0]
    across, along = picture.diff(dim=2).abs().mean(), picture.diff(dim=1).abs().mean()
    assert across > 1.5 * along  # of noise the two are equal


def test_the_ascent_depends_on_its_seed_alone():
    network = nn.Conv2d(3, 4, 3)
    first, second, other = (maximise(network, network, [2], 12, steps=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
