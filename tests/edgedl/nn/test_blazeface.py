"""BlazeFace: anchors and decoding by hand, and the names of the published file."""

from __future__ import annotations

import pytest
import torch

from edgedl.tasks.age.network.blazeface import KEYPOINTS, SIZE, BlazeFace, DoubleBlazeBlock


@pytest.fixture(scope="module")
def network() -> BlazeFace:
    torch.manual_seed(0)
    return BlazeFace().eval()


def test_anchors_are_the_middles_of_the_cells_row_by_row(network):
    anchors = network.anchors
    assert anchors.shape == (48 * 48, 2)
    assert anchors[:3].tolist() == [[2, 2], [6, 2], [10, 2]]
    assert anchors[47:49].tolist() == [[190, 2], [2, 6]]
    assert anchors[-1].tolist() == [190, 190]


def test_decode_by_hand(network):
    offsets = torch.zeros(2304, 16)
    cell = 3 * 48 + 5  # row 3, column 5: its middle is (22, 14)
    offsets[cell] = torch.tensor([1.0, -2, 10, 20, *range(12)])
    boxes, keypoints = network.decode(offsets)
    assert boxes.shape == (2304, 4)
    assert keypoints.shape == (2304, len(KEYPOINTS), 2)
    assert boxes[cell].tolist() == [18, 2, 28, 22]  # centre (23, 12), 10 wide, 20 high
    assert keypoints[cell].tolist() == [[22.0 + 2 * i, 14.0 + 2 * i + 1] for i in range(6)]
    assert boxes[0].tolist() == [2, 2, 2, 2]


def test_decode_takes_a_batch(network):
    offsets = torch.randn(2, 2304, 16)
    boxes, keypoints = network.decode(offsets)
    for row in range(2):
        one_box, one_keypoints = network.decode(offsets[row])
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
    assert len(names) == len(convolutions) == 89
    assert {id(conv) for conv in names.values()} == {id(conv) for conv in convolutions}
    depthwise = [name for name, conv in names.items() if conv.groups > 1]
    assert sorted(depthwise) == sorted(["depthwise_conv2d", *(f"depthwise_conv2d_{i}" for i in range(1, 40))])
    ordinary = set(names) - set(depthwise) - {"classifier_face_4", "regressor_face_4"}
    assert ordinary == {"conv2d", *(f"conv2d_{i}" for i in range(1, len(ordinary)))}


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
