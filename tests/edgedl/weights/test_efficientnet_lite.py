"""The published file of EfficientNet-Lite0: every tensor finds its place, and nothing else is taken for it."""

from __future__ import annotations

import io
import os

import pytest
import torch

from edgedl.nn.efficientnet_lite import EfficientNetLite, ImageNetClassifier
from edgedl.weights import efficientnet_lite as module
from edgedl.weights.fetch import WeightsError


def saved(tensors: object) -> bytes:
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def network() -> ImageNetClassifier:
    torch.manual_seed(1)
    network = ImageNetClassifier(EfficientNetLite())
    with torch.no_grad():  # statistics are 0 and 1 in every layer of a new network
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 2)
    return network


@pytest.fixture
def published(network) -> dict[str, torch.Tensor]:
    """A file as the published one is laid out, with our weights in it."""
    ours = network.state_dict()
    return {theirs: ours[name] for name, theirs in module.published_names(network)}


def test_every_tensor_has_one_published_name(network):
    ours, theirs = zip(*module.published_names(network), strict=True)
    assert sorted(ours) == sorted(network.state_dict())
    assert len(set(theirs)) == len(theirs)


def test_what_is_in_the_file_comes_back(network, published, monkeypatch):
    monkeypatch.setattr(module, "fetch", lambda weights: saved(published))
    loaded = module.load_imagenet_classifier()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)
    assert not loaded.training
    assert not module.load_efficientnet_lite().training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("_conv_head.weight"), "is not EfficientNet-Lite0: _conv_head.weight"),
        (lambda t: t.update(_se_reduce=torch.zeros(1)), "is not EfficientNet-Lite0: _se_reduce"),
        (lambda t: t.update({"_fc.weight": torch.zeros(10, 1280)}), "does not fit"),
        (lambda t: t.update({"_fc.bias": 3}), "does not fit"),
    ],
    ids=["missing", "surplus", "other shape", "no tensor"],
)
def test_another_networks_file_is_refused(published, monkeypatch, change, message):
    change(published)
    monkeypatch.setattr(module, "fetch", lambda weights: saved(published))
    with pytest.raises(WeightsError, match=message):
        module.load_efficientnet_lite()


class Harm:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize(
    "data", [b"", b"no weights", saved(Harm()), saved([1, 2])], ids=["empty", "text", "code", "list"]
)
def test_a_file_without_tensors_is_refused(monkeypatch, data):
    monkeypatch.setattr(module, "fetch", lambda weights: data)
    with pytest.raises(WeightsError, match=r"efficientnet-lite0-57934424\.pth holds "):
        module.load_efficientnet_lite()
