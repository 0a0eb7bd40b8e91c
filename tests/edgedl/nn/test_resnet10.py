"""ResNet-10 against dlib's published graph, run by ONNX Runtime as it was published."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from edgedl.tasks.age.network.resnet10 import CHANNEL_MEANS, ResidualBlock, ResNet10
from edgedl.weights.catalogue import AGE_RESNET10
from edgedl.weights.fetch import fetch


@pytest.fixture(scope="module")
def published(public_age_network):
    """The original file; it takes levels that were normalised outside."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(fetch(AGE_RESNET10), options, providers=["CPUExecutionProvider"])


def normalised(levels: np.ndarray) -> np.ndarray:
    """(N, 3, H, W) levels as dlib's input layer makes them."""
    means = np.array(CHANNEL_MEANS, np.float32).reshape(1, 3, 1, 1)
    return (levels.astype(np.float32) - means) / np.float32(256)


def smooth_faces(count: int) -> np.ndarray:
    """Soft random pictures, which excite the network more than noise does."""
    chance = np.random.default_rng(4)
    coarse = chance.integers(0, 256, (count, 3, 8, 8))
    return np.kron(coarse, np.ones((8, 8))).astype(np.uint8)


@pytest.mark.network
@pytest.mark.parametrize("count", [1, 2, 5])
def test_probabilities_are_those_of_the_published_graph(published, public_age_network, count):
    chance = np.random.default_rng(count)
    for levels in (chance.integers(0, 256, (count, 3, 64, 64), dtype=np.uint8), smooth_faces(count)):
        (expected,) = published.run(None, {"images": normalised(levels)})
        with torch.no_grad():
            found = public_age_network.logits(torch.from_numpy(levels).float()).softmax(1).numpy()
        assert np.abs(found - expected).max() <= 1e-5
        assert expected.max() > 0.02, "a flat distribution would prove nothing"


@pytest.mark.network
def test_the_whole_network_answers_on_raw_pixels(published, public_age_network):
    """At 64 x 64 nothing is resized, so uint8 NHWC pixels must give the published age."""
    levels = smooth_faces(3)
    (probabilities,) = published.run(None, {"images": normalised(levels)})
    years = np.array([0.25, *range(1, 81)])
    with torch.no_grad():
        age, low, high, _ = public_age_network(torch.from_numpy(levels.transpose(0, 2, 3, 1).copy()))
    np.testing.assert_allclose(age.numpy(), probabilities.astype(np.float64) @ years, atol=1e-3)
    assert (low <= high).all()


@pytest.mark.network
def test_channel_order_matters(published, public_age_network):
    levels = smooth_faces(2)
    (expected,) = published.run(None, {"images": normalised(levels)})
    with torch.no_grad():
        swapped = public_age_network.logits(torch.from_numpy(levels[:, ::-1].copy()).float()).softmax(1).numpy()
    assert np.abs(swapped - expected).max() > 1e-2


def test_halving_pads_nothing_and_the_shorter_branch_ends_early():
    """By hand on 5 x 5 with kernels that copy: the residual is 2 x 2 unpadded, the 2 x 2 pool as large, both known."""
    block = ResidualBlock(1, 2, halve=True).eval()
    with torch.no_grad():
        for conv in (block.conv1, block.conv2):
            conv.weight.zero_()
        block.conv1.weight[0, 0, 0, 0] = 1  # the upper left of each unpadded 3 x 3 window
        block.conv2.weight[0, 0, 1, 1] = 1
        x = torch.arange(25.0).reshape(1, 1, 5, 5)
        y = block(x)
    scale = 1 / (1 + 1e-5)  # two normalisations with statistics of 0 and 1
    corner = torch.tensor([[0.0, 2.0], [10.0, 12.0]]) * scale
    pooled = torch.tensor([[3.0, 5.0], [13.0, 15.0]])  # means of 0 1 5 6, of 2 3 7 8 …
    torch.testing.assert_close(y[0, 0], corner + pooled)
    assert (y[0, 1] == 0).all(), "the shortcut's missing channel is zero"


def test_odd_sides_are_filled_with_zeros_at_the_end():
    """6 x 6: the residual gives 2 x 2 and the pool 3 x 3, so the last row and column are the pool's alone."""
    block = ResidualBlock(1, 1, halve=True).eval()
    with torch.no_grad():
        for conv in (block.conv1, block.conv2):
            torch.nn.init.constant_(conv.weight, 1.0)
        x = torch.ones(1, 1, 6, 6)
        y = block(x)[0, 0]
    assert y.shape == (3, 3)
    assert y[2].tolist() == [1, 1, 1]
    assert y[:, 2].tolist() == [1, 1, 1]
    # All ones: every unpadded window sums to 9, then each padded window of the 2 x 2 to 4·9.
    torch.testing.assert_close(y[:2, :2], torch.full((2, 2), 1 + 36 / (1 + 1e-5)))


@pytest.mark.parametrize("side", [39, 64, 65, 80, 97])
def test_any_side_gives_the_features(side):
    with torch.no_grad():
        assert ResNet10().eval()(torch.zeros(1, 3, side, side)).shape == (1, ResNet10.features)
