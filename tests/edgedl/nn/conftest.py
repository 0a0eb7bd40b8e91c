"""The published networks as torch modules; torch keeps to one thread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from edgedl.nn.age import AgeNetwork
from edgedl.nn.efficientnet_lite import LITE2, ImageNetClassifier
from edgedl.tasks.age.network.blazeface import BlazeFace
from edgedl.tasks.age.weights.blazeface import load_blazeface
from edgedl.tasks.age.weights.resnet10 import load_age_resnet10
from edgedl.weights.efficientnet_lite import load_imagenet_classifier
from edgedl.weights.fetch import WeightsError


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def public_age_network() -> AgeNetwork:
    try:
        return load_age_resnet10()
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def public_blazeface() -> BlazeFace:
    pytest.importorskip("tflite", reason="the detector's weights are a tflite file")
    try:
        return load_blazeface()
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def imagenet_classifier() -> ImageNetClassifier:
    try:
        return load_imagenet_classifier()
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def larger_imagenet_classifier() -> ImageNetClassifier:
    try:
        return load_imagenet_classifier(LITE2)
    except WeightsError as error:
        pytest.skip(str(error))
