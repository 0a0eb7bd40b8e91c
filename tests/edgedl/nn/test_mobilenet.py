"""MobileNet: its layers against the paper's table, what stays frozen, and the published weights."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgedl.data.portrait import portrait
from edgedl.nn.age import AgeNetwork
from edgedl.tasks import task
from edgedl.tasks.age import training as age_training
from edgedl.tasks.age.config import DEX_YEARS, AgeConfig, recipes
from edgedl.tasks.age.data.face_crops import FaceCrops
from edgedl.tasks.age.network.mobilenet import FROZEN_BLOCKS, MobileNet
from edgedl.tasks.age.training import start_from_public


def made() -> MobileNet:
    torch.manual_seed(0)
    return MobileNet()


def test_the_age_network_is_within_three_million_parameters():
    count = sum(parameter.numel() for parameter in AgeNetwork(made(), DEX_YEARS, 128).parameters())
    assert count == 2_145_088 + 1024 * 101 + 101


@pytest.mark.parametrize(("side", "cells"), [(32, 1), (64, 2), (128, 4), (224, 7)])
def test_every_side_gives_the_same_number_of_features(side, cells):
    network = made().eval()
    shapes = []
    network.blocks.register_forward_hook(lambda *call: shapes.append(call[2].shape))
    assert network(torch.zeros(2, 3, side, side)).shape == (2, MobileNet.features)
    assert shapes == [(2, 1024, cells, cells)]


def test_a_block_is_two_convolutions_bounded_at_six():
    block = made().blocks[1].eval()
    x = 40 * torch.randn(1, 64, 8, 8)
    padded = F.pad(x, (0, 1, 0, 1))
    middle = F.conv2d(padded, block.depthwise.weight, stride=2, groups=64) / (1 + block.norm1.eps) ** 0.5
    after = F.conv2d(middle.clamp(0, 6), block.pointwise.weight) / (1 + block.norm2.eps) ** 0.5
    torch.testing.assert_close(block(x), after.clamp(0, 6))
    assert (middle > 6).any()


def test_what_is_frozen_stays_and_the_rest_learns():
    network = made()
    network.freeze()
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(255 * torch.rand(4, 3, 32, 32)).square().mean().backward()
    optimiser.step()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    frozen = ("conv.", "norm.", *(f"blocks.{number}." for number in range(FROZEN_BLOCKS)))
    assert not [name for name in moved if name.startswith(frozen)]
    assert {name.split(".")[1] for name in moved} == {
        str(number) for number in range(FROZEN_BLOCKS, len(network.blocks))
    }


def test_nothing_is_frozen_unless_asked_for():
    network = made().train()
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(module.training for module in network.modules())


def test_a_training_starts_from_the_published_function_with_the_finest_blocks_frozen(monkeypatch):
    published = made().eval()
    monkeypatch.setattr(age_training, "load_mobilenet", lambda: published)
    network = AgeNetwork(MobileNet(), DEX_YEARS, 32)
    pictures = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    start_from_public(network, FaceCrops(pictures, pictures, np.ones(8, bool), np.arange(8)))
    faces = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        torch.testing.assert_close(network.backbone(faces), published(faces))
    network.train()
    learning = {name.split(".")[1] for name, p in network.backbone.named_parameters() if p.requires_grad}
    assert learning == {str(number) for number in range(FROZEN_BLOCKS, 12)}
    assert not any(block.training for block in network.backbone.blocks[:FROZEN_BLOCKS])


def test_a_run_that_starts_from_research_weights_says_so_in_its_license():
    parser = ArgumentParser()
    task("age").add_train_arguments(parser)

    def license_of(*words: str) -> str:
        args = parser.parse_args([*words], Namespace(data=None))
        return AgeConfig.asked(args, recipes()[""]).license

    assert license_of("--network", "mobilenet") == "LicenseRef-research AND Apache-2.0"
    assert license_of("--network", "mobilenet", "--from-nothing") == license_of() == "Apache-2.0"


@pytest.mark.slow
@pytest.mark.network
def test_the_published_weights_tell_the_age_of_a_portrait():
    """With its last block and its own head, which only this test reads, the network knows the portrait's age.

    A weight that is read at a wrong place, a channel or a mean that is swapped, would make that chance.
    """
    from edgedl.tasks.age.weights.mobilenet import load_mobilenet
    from edgedl.weights.catalogue import FACERES_DEEP
    from edgedl.weights.fetch import fetch

    numbers = torch.from_numpy(np.frombuffer(fetch(FACERES_DEEP), "<f4").copy())
    head, head_bias, features, features_bias = torch.split(numbers[:288_100], [25_600, 100, 262_144, 256])
    depthwise, scale, offset, _, pointwise, shift, _ = torch.split(
        numbers[2_428_535:], [9 * 1024, 1024, 1024, 2, 1024 * 1024, 1024, 4]
    )
    network = load_mobilenet()
    face = torch.from_numpy(portrait()[80:300, 140:360].copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        levels = F.interpolate(face, (224, 224), mode="bilinear", antialias=True)
        x = network.blocks(F.relu6(network.norm(network.conv(F.pad(levels - network.means, (0, 1, 0, 1))))))
        kernel = depthwise.reshape(3, 3, 1024, 1).permute(2, 3, 0, 1)
        x = F.conv2d(x, kernel, padding=1, groups=1024) * scale.view(-1, 1, 1) + offset.view(-1, 1, 1)
        x = F.conv2d(F.relu6(x), pointwise.reshape(1, 1, 1024, 1024).permute(3, 2, 0, 1)) + shift.view(-1, 1, 1)
        hidden = F.relu(F.relu6(x).mean(dim=(2, 3)) @ features.reshape(1024, 256) + features_bias)
        probabilities = (hidden @ head.reshape(256, 100) + head_bias).softmax(1)
    age = float((probabilities * torch.arange(100)).sum())
    assert 55 <= age <= 95, age
