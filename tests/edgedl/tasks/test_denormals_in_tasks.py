"""Where a task computes with torch on weights that it has loaded or learnt, denormal numbers cost nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.data.synthetic_faces import SyntheticFaces
from edgedl.nn.age import AgeNetwork
from edgedl.tasks.age import training as age_training
from edgedl.tasks.age.config import DEX_YEARS
from edgedl.tasks.age.data.face_crops import FaceCrops
from edgedl.tasks.age.network.compact import CompactNetwork
from edgedl.tasks.age.network.resnet10 import ResNet10
from edgedl.tasks.caption.data.bouncing_digits import BouncingDigits
from edgedl.tasks.caption.digits import features_of, learn_visual_words
from edgedl.tasks.caption.network.frame_encoder import FrameEncoder, probe
from edgedl.tasks.caption.network.strided import StridedEncoder
from edgedl.tasks.caption.plot import look
from edgedl.tasks.features.plot import look_at
from exporters.denormals import denormals_are_flushed
from tests.edgedl.tasks.captioners import VOCABULARY, SmallEncoder, captioner
from tests.edgedl.tasks.test_features import reds

pytestmark = pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor has no such flag")

FACES = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
DIGITS = BouncingDigits(seed=0, train=16, validation=4).split("train")


def ages(backbone: nn.Module) -> AgeNetwork:
    return AgeNetwork(backbone, DEX_YEARS, 48).eval()


def start_from_public(network: AgeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    public = AgeNetwork(ResNet10(), DEX_YEARS[:81], 64).eval()
    monkeypatch.setattr(age_training, "load_age_resnet10", lambda: public)
    age_training.start_from_public(network, FaceCrops(FACES, FACES, np.ones(2, bool), np.arange(2)))


ENTRIES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, pytest.MonkeyPatch], object]]] = {
    "start from public weights": (lambda: ages(ResNet10()), start_from_public),
    "calibration": (
        lambda: ages(CompactNetwork()),
        lambda network, _: age_training.calibrate_sharpness(network, FACES, np.float32([20, 40])),
    ),
    "interval": (
        lambda: ages(CompactNetwork()),
        lambda network, _: age_training.interval_of(
            network, FaceCrops(FACES, FACES, np.ones(2, bool), np.arange(2)), SyntheticFaces(n=2)
        ),
    ),
    "visual words": (lambda: StridedEncoder(10), lambda network, _: learn_visual_words(network, DIGITS, 0, steps=2)),
    "features in memory": (lambda: StridedEncoder(10).eval(), lambda network, _: features_of(network, DIGITS)),
    "probe of an encoder": (lambda: FrameEncoder(SmallEncoder()), lambda network, _: probe(network)),
    "where words looked": (captioner, lambda network, _: look(network, VOCABULARY, FACES)),
}


def watched(network: nn.Module) -> list[bool]:
    """Whether denormals were flushed, each time that one of its layers was called."""
    seen: list[bool] = []
    for layer in network.modules():
        layer.register_forward_pre_hook(lambda *_: seen.append(denormals_are_flushed()))
    return seen


@pytest.mark.parametrize("name", ENTRIES)
def test_layers_compute_without_them(name, monkeypatch):
    make, run = ENTRIES[name]
    network = make()
    seen = watched(network)
    run(network, monkeypatch)
    assert seen
    assert all(seen)
    assert not denormals_are_flushed()


def test_what_a_network_has_learnt_is_drawn_without_them():
    subject = reds()
    seen = watched(subject.network)
    look_at(subject, FACES[0], steps=2)
    assert seen
    assert all(seen)
