"""Loads the ImageNet weights of EfficientNet-Lite0, a torch file of tensors, into the torch network."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator

import torch
from torch import Tensor

from edgedl.nn.efficientnet_lite import EfficientNetLite0, ImageNetClassifier, InvertedBottleneck
from edgedl.weights.catalogue import EFFICIENTNET_LITE0
from edgedl.weights.fetch import WeightsError, fetch

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def load_efficientnet_lite0() -> EfficientNetLite0:
    """The published encoder in evaluation mode.

    Raises:
        WeightsError: the weights cannot be had, or are not this network's.
    """
    return load_imagenet_classifier().encoder


def load_imagenet_classifier() -> ImageNetClassifier:
    """The published encoder with its classifier of ImageNet's 1000 classes, in evaluation mode.

    Raises:
        WeightsError: the weights cannot be had, or are not this network's.
    """
    published = _tensors(fetch(EFFICIENTNET_LITE0))
    network = ImageNetClassifier(EfficientNetLite0())
    ours = network.state_dict()
    names = dict(published_names(network))
    if set(names.values()) != set(published) or set(names) != set(ours):
        odd = sorted(set(names.values()) ^ set(published))
        raise WeightsError(f"{EFFICIENTNET_LITE0.member} is not EfficientNet-Lite0: {', '.join(odd[:5])}")
    try:
        network.load_state_dict({name: published[theirs] for name, theirs in names.items()})
    except (RuntimeError, TypeError) as error:
        raise WeightsError(f"{EFFICIENTNET_LITE0.member} does not fit: {error}") from error
    return network.eval()


def published_names(network: ImageNetClassifier) -> Iterator[tuple[str, str]]:
    """Our name of each tensor and the published one."""
    encoder = network.encoder
    yield from _layer("encoder.stem", "_conv_stem", "_bn0")
    for index, block in enumerate(encoder.blocks):
        assert isinstance(block, InvertedBottleneck)  # noqa: S101 - narrows the type
        ours, theirs = f"encoder.blocks.{index}", f"_blocks.{index}"
        if block.expand is not None:
            yield from _layer(f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
        yield from _layer(f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
        yield from _layer(f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2")
    yield from _layer("encoder.head", "_conv_head", "_bn1")
    for part in ("weight", "bias"):
        yield f"classifier.{part}", f"_fc.{part}"


def _layer(ours: str, convolution: str, norm: str) -> Iterator[tuple[str, str]]:
    yield f"{ours}.1.weight", f"{convolution}.weight"
    for part in _NORM:
        yield f"{ours}.2.{part}", f"{norm}.{part}"


def _tensors(data: bytes) -> dict[str, Tensor]:
    try:
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise WeightsError(f"{EFFICIENTNET_LITE0.member} holds no tensors: {error}") from error
    if not isinstance(tensors, dict):
        raise WeightsError(f"{EFFICIENTNET_LITE0.member} holds a {type(tensors).__name__}, expected tensors by name")
    return tensors
