"""Published weights come without denormal numbers, and without them they answer as published."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.tasks.age.weights import resnet10 as age_resnet10
from edgedl.tasks.age.weights.blazeface import load_blazeface
from edgedl.tasks.age.weights.resnet10 import load_age_resnet10
from edgedl.weights.efficientnet_lite import load_imagenet_classifier
from edgedl.weights.fetch import WeightsError

SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)

pytestmark = pytest.mark.network


def load(loader: Callable[[], nn.Module]) -> nn.Module:
    try:
        return loader()
    except WeightsError as error:
        pytest.skip(str(error))


def count_below(network: nn.Module, bound: float) -> int:
    tensors = [tensor.detach().abs() for tensor in network.state_dict().values() if tensor.is_floating_point()]
    return sum(int(((tensor > 0) & (tensor < bound)).sum()) for tensor in tensors)


@pytest.mark.parametrize("loader", [load_age_resnet10, load_blazeface, load_imagenet_classifier])
def test_none_is_denormal(loader):
    assert count_below(load(loader), SMALLEST_NORMAL) == 0


def test_the_age_network_answers_the_same_without_what_was_set_to_zero(monkeypatch):
    flushed = load(load_age_resnet10)
    monkeypatch.setattr(age_resnet10, "flush_module", lambda network: 0)
    published = load(load_age_resnet10)
    assert count_below(published, SMALLEST_NORMAL) > 5000
    assert count_below(flushed, 1e-20) == 0
    flushed.double()
    published.double()
    levels = 255 * torch.rand(16, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(levels[..., :8, :8], (64, 64), mode="bilinear")
    with torch.no_grad():
        for given in (levels, smooth, smooth.round() * 0, smooth * 0 + 255):
            expected = published.answers(published.logits(given))
            found = flushed.answers(flushed.logits(given))
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
