"""EfficientNet-Lite against its authors' table, TensorFlow's padding rule, another implementation and real photos."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgedl.nn.efficientnet_lite import (
    LITE0,
    LITE2,
    NORM_EPSILON,
    EfficientNetLite,
    EfficientNetTop,
    EfficientNetTrunk,
    ImageNetClassifier,
    InvertedBottleneck,
    SamePadding,
)
from exporters.image import resize_images
from runtime.media.pictures import read_image

MILITARY_UNIFORM, SPACE_SHUTTLE = 652, 812
DOGS = range(151, 269)
"""ImageNet's breeds, Chihuahua to Mexican hairless."""

# Tan and Le 2019, table 1, the rows of B0: operator (expansion, kernel), side that enters, channels, layers. Strides
# follow from the sides.
TABLE = (
    (1, 3, 112, 16, 1),
    (6, 3, 112, 24, 2),
    (6, 5, 56, 40, 2),
    (6, 3, 28, 80, 3),
    (6, 5, 14, 112, 3),
    (6, 5, 14, 192, 4),
    (6, 3, 7, 320, 1),
)


# The paper's compound scaling with width 1.1 and depth 1.2, worked out by hand: 24 · 1.1 = 26.4 would be rounded to 24,
# 40 · 1.1 = 44 up to 48; 2 · 1.2, 3 · 1.2 and 4 · 1.2 layers are 3, 4 and 5. Sides are those of 224 pixels.
TABLE_2 = (
    (1, 3, 112, 16, 1),
    (6, 3, 112, 24, 3),
    (6, 5, 56, 48, 3),
    (6, 3, 28, 88, 4),
    (6, 5, 14, 120, 4),
    (6, 5, 14, 208, 5),
    (6, 3, 7, 352, 1),
)


def published_size(table: Sequence[tuple[int, ...]] = TABLE) -> tuple[int, int]:
    """Parameters and multiplications for one picture of 224x224, from a table alone."""
    parameters, products = 32 * 27 + 2 * 32, 112 * 112 * 32 * 27
    channels_in = 32
    for row, (expansion, kernel, side, channels, layers) in enumerate(table):
        after = table[row + 1][2] if row + 1 < len(table) else 7
        for layer in range(layers):
            # The paper's sides are those that enter a stage, and the first layer changes them.
            before = side if layer == 0 else after
            wide = channels_in * expansion
            if expansion > 1:
                parameters += channels_in * wide + 2 * wide
                products += before**2 * channels_in * wide
            parameters += wide * kernel**2 + 2 * wide + wide * channels + 2 * channels
            products += after**2 * (wide * kernel**2 + wide * channels)
            channels_in = channels
    parameters += channels_in * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    products += 7 * 7 * channels_in * 1280 + 1280 * 1000
    return parameters, products


@pytest.fixture(scope="module")
def untrained() -> ImageNetClassifier:
    torch.manual_seed(0)
    return ImageNetClassifier(EfficientNetLite()).eval()


def test_parameters_are_those_of_the_paper(untrained):
    found = sum(p.numel() for p in untrained.parameters())
    assert found == published_size()[0]
    assert round(found / 1e6, 1) == 4.7, "as the authors' table says"


def test_the_larger_network_has_the_parameters_of_the_authors_table():
    found = sum(p.numel() for p in ImageNetClassifier(EfficientNetLite(LITE2)).parameters())
    assert found == published_size(TABLE_2)[0]
    assert round(found / 1e6, 1) == 6.1


def test_multiplications_are_those_of_the_paper(untrained):
    """The authors say 407 million, normalisation and activation included, which take 5 per cent."""
    products = 0

    def count(layer: nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal products
        if isinstance(layer, nn.Conv2d):
            products += output.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            products += layer.weight.numel()

    hooks = [layer.register_forward_hook(count) for layer in untrained.modules()]
    with torch.no_grad():
        untrained(torch.zeros(1, 3, 224, 224))
    for hook in hooks:
        hook.remove()
    assert products == published_size()[1]
    assert 0.94 * 407e6 < products < 407e6


@pytest.mark.parametrize("side", [32, 64, 96, 224])
def test_every_side_gives_its_grid(untrained, side):
    levels = torch.rand(2, 3, side, side) * 255
    with torch.no_grad():
        features = untrained.encoder(levels)
    assert features.shape == (2, EfficientNetLite.features, side // 32, side // 32)
    assert features.min() >= 0
    assert features.max() <= 6


@pytest.mark.parametrize(("scale", "channels"), [(LITE0, 192), (LITE2, 208)])
def test_trunk_and_top_are_the_whole_cut_behind_the_last_halving(scale, channels):
    torch.manual_seed(0)
    whole = EfficientNetLite(scale, 64).eval()
    trunk, top = EfficientNetTrunk(whole), EfficientNetTop(whole)
    levels = torch.rand(2, 3, 64, 64) * 255
    with torch.no_grad():
        grid = trunk(levels)
        assert grid.shape == (2, channels, 2, 2), "as the sixth row of the table says"
        assert trunk.features == channels
        assert torch.equal(top(grid), whole(levels))
    parts = {*map(id, trunk.parameters()), *map(id, top.parameters())}
    assert parts == set(map(id, whole.parameters()))
    assert not any(layer.stride[0] > 1 for layer in top.modules() if isinstance(layer, nn.Conv2d))


@pytest.mark.parametrize("side", [2, 4, 8, 14, 28])
@pytest.mark.parametrize("kernel", [3, 5])
def test_padding_is_tensorflows_same(kernel, side):
    """TensorFlow: ceil(side / stride) outputs, half of what is missing before, rounded down, and the rest after."""
    missing = max((-(-side // 2) - 1) * 2 + kernel - side, 0)
    before = missing // 2
    torch.manual_seed(kernel)
    x, weight = torch.rand(1, 2, side, side), torch.rand(1, 2, kernel, kernel)
    found = F.conv2d(SamePadding(kernel, 2)(x), weight, stride=2)
    expected = np.zeros((side // 2, side // 2))
    for row in range(side // 2):
        for column in range(side // 2):
            for i in range(kernel):
                for j in range(kernel):
                    y, z = 2 * row + i - before, 2 * column + j - before
                    if 0 <= y < side and 0 <= z < side:
                        expected[row, column] += float((x[0, :, y, z] * weight[0, :, i, j]).sum())
    np.testing.assert_allclose(found[0, 0].numpy(), expected, rtol=1e-5)


def test_only_layers_that_change_nothing_have_a_shortcut(untrained):
    blocks = [block for block in untrained.encoder.blocks if isinstance(block, InvertedBottleneck)]
    assert [i for i, block in enumerate(blocks) if block.shortcut] == [2, 4, 6, 7, 9, 10, 12, 13, 14]
    silent = InvertedBottleneck(24, 24, 3, 1, 6).eval()
    with torch.no_grad():
        for parameter in silent.project.parameters():
            parameter.zero_()
        x = torch.rand(1, 24, 8, 8)
        torch.testing.assert_close(silent(x), x, rtol=0, atol=0)


def test_normalisation_is_the_authors(untrained):
    norms = [layer for layer in untrained.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 1 + 15 * 3 + 2 + 1
    assert {norm.eps for norm in norms} == {NORM_EPSILON} == {1e-3}


@pytest.mark.network
@pytest.mark.parametrize(
    ("classifier", "expected", "label", "largest"),
    [
        (
            "imagenet_classifier",
            [-0.19745, 0.77272, 1.1683, 0.98206, 1.19131, 1.07629, -0.74292, -0.44106],
            844,
            3.11682,
        ),
        (
            "larger_imagenet_classifier",
            [-1.10111, 0.54789, 0.22100, -0.19661, 0.33666, -0.57627, -0.41735, 0.41679],
            21,
            4.16813,
        ),
    ],
    ids=["Lite0", "Lite2"],
)
def test_logits_are_those_of_another_implementation(request, classifier, expected, label, largest):
    """What efficientnet-lite-pytorch 0.1.0 gives on coloured squares, with padding made for 224x224."""
    chance = np.random.default_rng(4)
    squares = np.kron(chance.integers(0, 256, (3, 14, 14)), np.ones((16, 16)))
    with torch.no_grad():
        logits = request.getfixturevalue(classifier)(torch.from_numpy(squares)[None].float())[0]
    # A wrong epsilon moves those of Lite0 by up to .36, symmetric padding by up to 3.6.
    np.testing.assert_allclose(logits[:8].numpy(), expected, atol=1e-4)
    assert int(logits.argmax()) == label
    assert float(logits.max()) == pytest.approx(largest, abs=1e-4)


def classify(classifier: ImageNetClassifier, image: np.ndarray) -> np.ndarray:
    """uint8 RGB (H, W, 3) -> probabilities (1000,)."""
    size = classifier.encoder.size
    with torch.no_grad():
        levels = resize_images(torch.from_numpy(np.ascontiguousarray(image))[None], (size, size))
        return classifier(levels)[0].softmax(0).numpy()


@pytest.mark.network
@pytest.mark.parametrize("classifier", ["imagenet_classifier", "larger_imagenet_classifier"], ids=["Lite0", "Lite2"])
def test_a_portrait_in_uniform(request, classifier, portrait_path):
    probabilities = classify(request.getfixturevalue(classifier), read_image(portrait_path.read_bytes()))
    assert int(probabilities.argmax()) == MILITARY_UNIFORM
    assert probabilities.max() > 0.2


@pytest.mark.network
@pytest.mark.data
def test_a_model_of_a_space_shuttle(imagenet_classifier, shared_data):
    astronaut = read_image((shared_data / "photos" / "astronaut.png").read_bytes())
    probabilities = classify(imagenet_classifier, astronaut[:330, 300:])  # the model at the upper right
    assert int(probabilities.argmax()) == SPACE_SHUTTLE
    assert probabilities.max() > 0.5


@pytest.mark.network
@pytest.mark.data
def test_photos_that_people_see_a_dog_in(imagenet_classifier, shared_data):
    """Of 60 photos each, the first label is a breed for 75 per cent of the dogs and 2 per cent of the others."""
    with zipfile.ZipFile(shared_data / "flickr8k-traindev.zip") as archive:
        said: dict[str, list[str]] = {}
        for line in archive.read("Flickr8k.token.txt").decode().splitlines():
            name, _, caption = line.partition("\t")
            said.setdefault(name.partition("#")[0], []).append(f" {caption.lower()} ")
        dev = archive.read("Flickr_8k.devImages.txt").decode().split()
        dogs = [name for name in dev if all(" dog " in caption for caption in said[name])][:15]
        others = [name for name in dev if not any(" dog" in caption for caption in said[name])][:15]

        def share(names: list[str]) -> float:
            found = [
                int(classify(imagenet_classifier, read_image(archive.read(f"Flicker8k_Dataset/{name}"))).argmax())
                for name in names
            ]
            return float(np.mean([label in DOGS for label in found]))

        assert share(dogs) >= 0.5
        assert share(others) <= 0.1
