"""BlazeFace: anchors and decoding by hand, and the names of the published file."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgedl.tasks.age.network.blazeface import KEYPOINTS, LANES, SIZE, BlazeFace, DoubleBlazeBlock


@pytest.fixture(scope="module")
def network() -> BlazeFace:
    torch.manual_seed(0)
    return BlazeFace().eval()


EVERY = torch.arange(48 * 48)


def test_cells_are_counted_row_by_row(network):
    middles = network.middles(EVERY, SIZE)
    assert middles.shape == (48 * 48, 2)
    assert middles[:3].tolist() == [[2, 2], [6, 2], [10, 2]]
    assert middles[47:49].tolist() == [[190, 2], [2, 6]]
    assert middles[-1].tolist() == [190, 190]
    assert network.middles(torch.tensor([15, 16, 1]), 64).tolist() == [[62, 2], [2, 6], [6, 2]]


def test_decode_by_hand(network):
    offsets = torch.zeros(2304, 16)
    cell = 3 * 48 + 5  # row 3, column 5: its middle is (22, 14)
    offsets[cell] = torch.tensor([1.0, -2, 10, 20, *range(12)])
    boxes, keypoints = network.decode(offsets, network.middles(EVERY, SIZE))
    assert boxes.shape == (2304, 4)
    assert keypoints.shape == (2304, len(KEYPOINTS), 2)
    assert boxes[cell].tolist() == [18, 2, 28, 22]  # centre (23, 12), 10 wide, 20 high
    assert keypoints[cell].tolist() == [[22.0 + 2 * i, 14.0 + 2 * i + 1] for i in range(6)]
    assert boxes[0].tolist() == [2, 2, 2, 2]


def test_decode_takes_a_batch(network):
    offsets = torch.randn(2, 2304, 16)
    boxes, keypoints = network.decode(offsets, network.middles(EVERY, SIZE))
    for row in range(2):
        one_box, one_keypoints = network.decode(offsets[row], network.middles(EVERY, SIZE))
        assert torch.equal(boxes[row], one_box)
        assert torch.equal(keypoints[row], one_keypoints)


def test_shapes_and_order_of_the_outputs(network):
    """Anchor i must be the cell that output i looks at: light up one cell of the last map and see where it arrives."""
    picture = torch.zeros(1, 3, SIZE, SIZE)
    seen = {}

    def light(module, inputs):
        x = torch.zeros_like(inputs[0])
        x[0, :, 3, 5] = 1
        seen[module] = x.shape
        return (x,)

    hooks = [conv.register_forward_pre_hook(light) for conv in (network.classifier, network.regressor)]
    with torch.no_grad():
        logits, offsets = network(picture)
    for hook in hooks:
        hook.remove()
    assert set(seen.values()) == {(1, 48, 48, 48)}
    assert logits.shape == (1, 2304)
    assert offsets.shape == (1, 2304, 16)
    cell = 3 * 48 + 5
    rest = torch.arange(2304) != cell
    assert logits[0, rest].unique().numel() == 1
    assert logits[0, cell] != logits[0, 0]
    torch.testing.assert_close(
        offsets[0, cell], network.regressor.weight.sum(dim=(1, 2, 3)) + network.regressor.bias, atol=1e-5, rtol=0
    )


def test_every_convolution_has_a_name_of_the_published_file(network):
    names = network.tensorflow_convolutions()
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(names) == 89
    assert sorted(id(conv) for convs in names.values() for conv in convs) == sorted(id(conv) for conv in convolutions)
    depthwise = [name for name, (conv, *_) in names.items() if conv.groups > 1]
    assert sorted(depthwise) == sorted(["depthwise_conv2d", *(f"depthwise_conv2d_{i}" for i in range(1, 40))])
    ordinary = set(names) - set(depthwise) - {"classifier_face_4", "regressor_face_4"}
    assert ordinary == {"conv2d", *(f"conv2d_{i}" for i in range(1, len(ordinary)))}


# The published file: squeezed channels, channels and stride of its 20 blocks, encoder first.
PUBLISHED = (
    (8, 32, 1), (8, 32, 1), (12, 48, 2), (12, 48, 1), (16, 64, 1), (24, 96, 2), (32, 128, 1), (32, 128, 1),
    (36, 144, 2), (48, 192, 1), (64, 256, 1), (96, 384, 2), (96, 384, 1), (96, 384, 1), (96, 384, 1),
)  # fmt: skip
PUBLISHED_DECODERS = ((384, 256, 48, 96, 2), (96, 128, 32, 64, 2), (64, 64, 24, 48, 1))


class Published:
    """The network as the published file has it, in plain functions: shortcuts padded, channels as they are squeezed."""

    def __init__(self) -> None:
        self.weights: dict[str, tuple[Tensor, Tensor]] = {}
        self.counts = {"conv2d": 0, "depthwise_conv2d": 0}
        self.chance = torch.Generator().manual_seed(1)

    def draw(self, name: str, *shape: int) -> tuple[Tensor, Tensor]:
        if name not in self.weights:
            fan = shape[1] * shape[2] * shape[3]
            kernel = torch.randn(shape, generator=self.chance, dtype=torch.float64) * (2 / fan) ** 0.5
            self.weights[name] = kernel, 0.1 * torch.randn(shape[0], generator=self.chance, dtype=torch.float64)
        return self.weights[name]

    def conv(self, kind: str, x: Tensor, out: int, size: int, **options: int) -> Tensor:
        number = self.counts[kind]
        self.counts[kind] += 1
        name = f"{kind}_{number}" if number else kind
        return F.conv2d(x, *self.draw(name, out, x.shape[1] // options.get("groups", 1), size, size), **options)

    def block(self, x: Tensor, squeezed: int, channels: int, stride: int) -> Tensor:
        wide = F.pad(x, (0, 1, 0, 1)) if stride == 2 else x
        y = self.conv("depthwise_conv2d", wide, x.shape[1], 3, groups=x.shape[1], stride=stride, padding=stride % 2)
        y = F.relu(self.conv("conv2d", y, squeezed, 1))
        y = self.conv("depthwise_conv2d", y, squeezed, 3, groups=squeezed, padding=1)
        y = self.conv("conv2d", y, channels, 1)
        shortcut = F.max_pool2d(x, 2) if stride == 2 else x
        return F.relu(y + F.pad(shortcut, (0, 0, 0, 0, 0, channels - x.shape[1])))

    def __call__(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        self.counts = dict.fromkeys(self.counts, 0)
        x = F.relu(self.conv("conv2d", F.pad(picture, (0, 1, 0, 1)), 32, 3, stride=2))
        lateral = []
        for squeezed, channels, stride in PUBLISHED:
            if stride == 2:
                lateral.append(x)
            x = self.block(x, squeezed, channels, stride)
        for (_, _, squeezed, channels, blocks), side in zip(PUBLISHED_DECODERS, lateral[:0:-1], strict=True):
            deep = F.relu(self.conv("conv2d", x, channels, 1))
            x = F.relu(self.conv("conv2d", side, channels, 1))
            x = x + F.interpolate(deep, scale_factor=2.0, mode="bilinear", align_corners=False)
            for _ in range(blocks):
                x = self.block(x, squeezed, channels, 1)
        logits = F.conv2d(x, *self.draw("classifier_face_4", 1, 48, 1, 1))
        offsets = F.conv2d(x, *self.draw("regressor_face_4", 16, 48, 1, 1))
        return logits.flatten(1), offsets.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("size", [(192, 192), (64, 96), (32, 32)], ids=str)
def test_the_layout_changes_nothing_of_the_published_network(size):
    published = Published()
    picture = torch.rand(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    expected = published(picture)
    laid_out = BlazeFace().double().eval()
    laid_out.take(published.weights)
    with torch.no_grad():
        found = laid_out(picture)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert theirs.std() > 0.01, "a network that answers nothing would agree"
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_blocks_hold_whole_lanes(network):
    blocks = [module for module in network.modules() if isinstance(module, DoubleBlazeBlock)]
    assert len(blocks) == 20
    widths = {conv.out_channels for b in blocks for conv in (b.squeeze, b.expand, b.widen) if conv is not None}
    assert all(width % LANES == 0 for width in widths)


def test_kernels_that_do_not_fit_are_refused(network):
    weights = {
        name: (torch.cat([conv.weight for conv in convs]), torch.cat([conv.bias for conv in convs]))
        for name, convs in network.tensorflow_convolutions().items()
    }
    BlazeFace().take(weights)
    kernel, bias = weights["conv2d_6"]
    with pytest.raises(ValueError, match=r"conv2d_6 has 49 channels, its place in the network 48"):
        BlazeFace().take(weights | {"conv2d_6": (torch.cat([kernel, kernel[:1]]), torch.cat([bias, bias[:1]]))})
    del weights["conv2d_9"]
    with pytest.raises(KeyError, match="conv2d_9"):
        BlazeFace().take(weights)


def test_a_halving_block_pads_only_after_the_last_row_and_column():
    """TensorFlow's SAME at stride 2 on an even side: the first window begins at the first pixel."""
    block = DoubleBlazeBlock(1, 1, 1, stride=2).eval()
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        block.depthwise1.conv.weight[0, 0, 0, 0] = 1  # upper left of the window
        block.squeeze.weight[...] = 1
        block.depthwise2.conv.weight[0, 0, 1, 1] = 1
        block.expand.weight[...] = 1
        y = block(torch.arange(16.0).reshape(1, 1, 4, 4))
    corners = torch.tensor([[0.0, 2.0], [8.0, 10.0]])
    largest = torch.tensor([[5.0, 7.0], [13.0, 15.0]])
    torch.testing.assert_close(y[0, 0], corners + largest)


@pytest.mark.network
def test_the_published_weights_fill_the_network(public_blazeface):
    """All lie on the float16 grid of the file, which no weight drawn by chance does; depthwise biases are zero."""
    for name, parameter in public_blazeface.named_parameters():
        assert torch.isfinite(parameter).all(), name
        assert torch.equal(parameter.half().float(), parameter), name
        assert parameter.abs().max() > 0 or (parameter.ndim == 1 and "depthwise" in name), name
