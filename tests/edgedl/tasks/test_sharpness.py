"""The one number that is fitted after training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.nn.age import AgeNetwork
from edgedl.tasks.age.config import DEX_YEARS
from edgedl.tasks.age.training import calibrate_sharpness


class Brightness(nn.Module):
    """A feature that says how bright a face is: the tests paint ages as levels of grey."""

    features = 1

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        return levels.mean(dim=(1, 2, 3))[:, None]


def painted(skew: float) -> tuple[AgeNetwork, np.ndarray, np.ndarray]:
    """A network whose scores are those of a wide distribution with a tail towards old age, and faces for it."""
    network = AgeNetwork(Brightness(), DEX_YEARS, 4).eval()
    years = torch.arange(101.0)
    with torch.no_grad():
        # Score of year y at age a: -(y - a)²/200 up to what is the same for all y, and the tail.
        network.head.weight.copy_((years / 100)[:, None])
        network.head.bias.copy_(-years.square() / 200 + skew * years)
    ages = np.linspace(25, 60, 36).round().astype(np.float32)
    crops = np.repeat(ages.astype(np.uint8), 4 * 4 * 3).reshape(-1, 4, 4, 3)
    return network, crops, ages


def test_a_distribution_cut_off_at_its_end_is_sharpened():
    """Cut off at 0, wide distributions have expectations above their peaks; sharpening brings them home."""
    network, crops, ages = painted(skew=0.0)
    before = np.abs(network(torch.from_numpy(crops))[0].detach().numpy() - ages).mean()
    sharpness, error = calibrate_sharpness(network, crops, ages)
    after = np.abs(network(torch.from_numpy(crops))[0].detach().numpy() - ages).mean()
    assert sharpness > 1
    assert after == pytest.approx(error, abs=1e-4)
    assert after < before


def test_the_sharpness_travels_with_the_weights():
    network, crops, ages = painted(skew=0.0)
    sharpness, _ = calibrate_sharpness(network, crops, ages)
    other, _, _ = painted(skew=0.0)
    other.load_state_dict(network.state_dict())
    assert float(other.sharpness) == pytest.approx(sharpness)
