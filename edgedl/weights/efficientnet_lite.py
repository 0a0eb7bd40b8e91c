"""Loads the ImageNet weights of EfficientNet-Lite0 and Lite2, torch files of tensors, into the torch network."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator

import torch
from torch import Tensor

from edgedl.nn.efficientnet_lite import LITE0, EfficientNetLite, ImageNetClassifier, InvertedBottleneck, Scale
from edgedl.weights.catalogue import IMAGE_ENCODERS
from edgedl.weights.fetch import WeightsError, fetch

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def load_efficientnet_lite(scale: Scale = LITE0) -> EfficientNetLite:
    """The published encoder in evaluation mode.

    Raises:
        WeightsError: the weights cannot be had, or are not this network's.
    """
    return load_imagenet_classifier(scale).encoder


def load_imagenet_classifier(scale: Scale = LITE0) -> ImageNetClassifier:
    """The published encoder with its classifier of ImageNet's 1000 classes, in evaluation mode.

    Raises:
        WeightsError: the weights cannot be had, or are not this network's.
    """
    weights = IMAGE_ENCODERS[scale.name]
    published = _tensors(fetch(weights), weights.member)
    network = ImageNetClassifier(EfficientNetLite(scale))
    ours = network.state_dict()
    names = dict(published_names(network))
    if set(names.values()) != set(published) or set(names) != set(ours):
        odd = sorted(set(names.values()) ^ set(published))
        raise WeightsError(f"{weights.member} is not {weights.name}: {', '.join(odd[:5])}")
    try:
        network.load_state_dict({name: published[theirs] for name, theirs in names.items()})
    except (RuntimeError, TypeError) as error:
        raise WeightsError(f"{weights.member} does not fit: {error}") from error
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


def _tensors(data: bytes, member: str) -> dict[str, Tensor]:
    try:
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise WeightsError(f"{member} holds no tensors: {error}") from error
    if not isinstance(tensors, dict):
        raise WeightsError(f"{member} holds a {type(tensors).__name__}, expected tensors by name")
    return tensors
