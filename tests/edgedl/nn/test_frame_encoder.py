"""The encoder's graph: what its probe notices, and the real encoder in ONNX Runtime against torch in float64."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from edgedl.nn import efficientnet_lite
from edgedl.nn.efficientnet_lite import SamePadding
from edgedl.tasks.caption.network.frame_encoder import (
    FrameEncoder,
    open_frame_encoder,
    probe,
    probe_picture,
    same_answer,
)
from exporters.image import resize_images
from runtime.media.pictures import read_image


@pytest.mark.parametrize("size", [8, 64, 224])
def test_the_probe_is_a_picture_that_must_be_resized(size):
    picture = probe_picture(size)
    assert picture.dtype == np.uint8
    assert picture.shape == (1, size + size // 2, size + size // 4, 3)
    assert picture.std() > 30
    np.testing.assert_array_equal(picture, probe_picture(size))


@pytest.fixture(scope="module")
def network(imagenet_classifier) -> FrameEncoder:
    return FrameEncoder(imagenet_classifier.encoder)


@pytest.fixture(scope="module")
def answer(network) -> np.ndarray:
    return probe(network)


@pytest.mark.network
@pytest.mark.parametrize(("name", "value"), [("MEAN", 127.5), ("SCALE", 127.5), ("MEAN", 126.0)])
def test_the_probe_notices_other_preprocessing(network, answer, monkeypatch, name, value):
    monkeypatch.setattr(efficientnet_lite, name, value)
    assert not same_answer(probe(network), answer)


@pytest.mark.network
def test_the_probe_notices_other_padding(network, answer):
    other = copy.deepcopy(network)
    for padding in other.modules():
        if isinstance(padding, SamePadding):
            padding.before, padding.after = padding.after, padding.before
    assert not same_answer(probe(other), answer)


@pytest.mark.network
def test_the_probe_takes_float64_for_the_same(network, answer):
    double = copy.deepcopy(network).double()
    with torch.no_grad():
        pixels = resize_images(torch.from_numpy(probe_picture(network.size)), (network.size,) * 2, torch.float64)
        grid = double.encoder(pixels)[0].flatten(1).T.float().numpy()
    assert same_answer(grid, answer)


@pytest.mark.network
@pytest.mark.slow
def test_the_graph_of_the_real_encoder_answers_as_torch_in_float64(network, answer, portrait_path):
    """Real photos, of sizes that have to be resized by odd factors. Measured: 3.4e-5 of features up to 6."""
    photo = read_image(portrait_path.read_bytes())
    double = copy.deepcopy(network).double()
    with open_frame_encoder(network, answer) as engine:
        for frames in (
            photo[None],
            photo[None, 100:350, 50:401],
            np.stack([photo[:224, :224], photo[200:424, 200:424]]),
        ):
            with torch.no_grad():
                levels = resize_images(torch.from_numpy(frames.copy()), (network.size,) * 2, torch.float64)
                expected = double.encoder(levels).flatten(2).transpose(1, 2).numpy()
            found = engine.run(np.ascontiguousarray(frames))["features"]
            assert found.shape == (len(frames), 49, 1280)
            assert np.abs(found - expected).max() <= 2e-4
