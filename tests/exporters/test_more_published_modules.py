"""Habits of published networks, written anew: what forward keeps, reads out of weights, masks, draws and returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exporters.convert import convert
from exporters.precision import computing_in
from exporters.spec import Signature
from tests.exporters.strangers import PICTURE, ROWS, SERIES, Stranger, check, collection, net, x, y

MODULES, stranger = collection()


@stranger
def table_registered_when_it_is_needed() -> Stranger:
    """A rotary table that forward registers, longer where it has to be."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q = nn.Linear(8, 8)
            self.register_buffer("offset", None)

        def forward(self, x: Tensor) -> Tensor:
            t = x.shape[1]
            if not hasattr(self, "cos") or self.cos.shape[0] < t:
                angle = torch.outer(torch.arange(t).float(), 1 / 100 ** (torch.arange(8) / 8))
                self.register_buffer("cos", angle.cos(), persistent=False)
            if self.offset is None:
                self.offset = torch.arange(8) / 8
            return self.q(x) * self.cos[:t] + self.offset

    return Stranger(Net().eval(), [x(SERIES)], [y(SERIES)])


@stranger
def causal_where_there_is_more_than_one_step() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(self.q(x), x, x, is_causal=x.shape[1] > 1)

    return Stranger(net(forward, q=nn.Linear(8, 8)), [x(SERIES)], [y(SERIES)])


@stranger
def numbers_out_of_buffers_and_weights() -> Stranger:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.scale = nn.Linear(8, 8), nn.Parameter(torch.tensor(0.3))
            self.register_buffer("ready", torch.tensor(1, dtype=torch.uint8))
            self.register_buffer("width", torch.tensor([1, 2]))

        def forward(self, x: Tensor) -> Tensor:
            if self.ready.item() == 0:
                return x
            return self.a(x)[:, : int(self.width.cumsum(0).max() + 1)] * self.scale.exp().item()

    return Stranger(Net().eval(), [x(ROWS)], [y(("N", 4))])


@stranger
def dropped_once_in_a_million_calls() -> Stranger:
    """No number that was drawn is taken for one of the weights'."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return x if torch.rand(1).item() < 1e-6 else self.a(x)

    return Stranger(net(forward, a=nn.Linear(8, 8)), [x(ROWS)], [y(ROWS)], refused=r"modules.py:\d+: .*by values")


@stranger
def seed_set_in_forward() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return self.a(x + 0.1 * torch.randn_like(x))

    return Stranger(
        net(forward, a=nn.Linear(8, 8)), [x(ROWS)], [y(ROWS)], refused=r"modules.py:\d+:.*randn_like.*sets the seed"
    )


@stranger
def logits_beside_a_mask() -> Stranger:
    """What -10000 loses to rounding hides no fault of the logits."""

    def forward(self: Any, x: Tensor, mask: Tensor) -> Tensor:
        return self.a(x).squeeze(-1) + (1.0 - mask.to(x.dtype)) * -10000.0

    tokens = ("N", "T")
    return Stranger(
        net(forward, a=nn.Linear(8, 1)), [x(SERIES), x(tokens, "mask", "int64", limits=(0, 1))], [y(tokens)]
    )


@stranger
def kernels_for_each_row() -> Stranger:
    """A convolution with as many groups as rows, as in dynamic convolutions and StyleGAN 2."""

    def forward(self: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        kernels = self.k(x.mean((2, 3))).view(n * 2, c, 3, 3)
        return F.conv2d(x.reshape(1, n * c, h, w), kernels, padding=1, groups=n).view(n, 2, h, w)

    return Stranger(net(forward, k=nn.Linear(3, 54)), [x(PICTURE)], [y(("N", 2, "H", "W"))])


@stranger
def weight_masked_in_place() -> Stranger:
    """As in PixelCNN and MADE."""

    class Masked(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.weight.data *= torch.ones(4, 8).tril()
            return super().forward(x)

    return Stranger(Masked(8, 4).eval(), [x(ROWS)], [y(("N", 4))])


@stranger
def algebra_of_weights_and_a_window() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        turned = self.a(x * torch.hamming_window(8)) @ torch.matrix_exp(self.w - self.w.T)
        return (turned @ torch.linalg.inv(self.w + 3 * torch.eye(4))).clamp(-0.5, 1)

    return Stranger(net(forward, a=nn.Linear(8, 4), w=nn.Parameter(torch.randn(4, 4))), [x(ROWS)], [y(("N", 4))])


@stranger
def answers_that_are_inputs() -> Stranger:
    def forward(self: Any, x: Tensor) -> tuple[Tensor, ...]:
        z = self.a(x)
        return z, x, x, z

    outputs = [y(("N", 4)), y(ROWS, "same"), y(ROWS, "again"), y(("N", 4), "twice")]
    return Stranger(net(forward, a=nn.Linear(8, 4)), [x(ROWS)], outputs)


@stranger
def half_declared_of_a_half_network() -> Stranger:
    return Stranger(
        nn.Linear(8, 4).half().eval(), [x(ROWS, "x", "float16")], [y(("N", 4), "y", "float16")],
        refused="x, y: declared is float16.*declare float32",
    )  # fmt: skip


@stranger
def weighted_bags() -> Stranger:
    def forward(self: Any, ids: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        return self.e(ids, offsets, per_sample_weights=weights)

    inputs = [
        x(("T",), "ids", "int64", limits=(0, 10)),
        x(("N",), "offsets", "int64", limits=(0, 0)),
        x(("T",), "weights"),
    ]
    return Stranger(
        net(forward, e=nn.EmbeddingBag(11, 4, mode="sum")), inputs, [y(("N", 4))],
        sizes=({"N": 1, "T": 3}, {"N": 2, "T": 5}),
    )  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_a_habit_of_published_networks_is_right_or_refused_for_the_true_cause(name: str) -> None:
    check(MODULES[name])


def test_ids_in_no_bag_raise_instead_of_ending_the_process() -> None:
    bags = nn.EmbeddingBag(11, 4, mode="sum")
    with computing_in(torch.float32, torch.float32), pytest.raises(RuntimeError, match="ids and no bag"):
        bags(torch.tensor([1, 2]), torch.tensor([], dtype=torch.int64))


def test_values_of_a_loop_know_its_line() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 5), nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            h, outputs = torch.zeros(x.size(0), 5), []
            for t in range(x.size(1)):
                h = torch.sin(self.a(x[:, t]) + self.b(h))
                outputs.append(h)
            return torch.stack(outputs, 1) * 3

    signature = Signature((x(SERIES),), (y(("N", "T", 5)),), ())
    found = convert(Net().eval(), {"x": np.ones((2, 7, 8), np.float32)}, signature, 18)
    first = Net.forward.__code__.co_firstlineno
    scan = next(node for node in found.model.graph.node if node.op_type == "Scan")
    inside = next(part.g.node[0].output[0] for part in scan.attribute if part.name == "body")
    lines = {what: int(found.places[name].split(":")[1]) - first for what, name in (("y", "y"), ("body", inside))}
    assert lines["y"] == 5
    assert lines["body"] in (2, 3)
