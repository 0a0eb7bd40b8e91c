"""Numbers that forward computes of sizes, in Python: they stay symbols, and come out as Python's float64 does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exporters.spec import Case
from tests.exporters.strangers import PICTURE, ROWS, SERIES, Stranger, check, collection, names, net, x, y

MODULES, stranger = collection()

AWKWARD = ({"N": 1, "T": 100}, {"N": 2, "T": 50}, {"N": 2, "T": 1})
"""100 * 0.29 is 28.999999999999996 in float64 and 29 in float32."""

TENS = tuple({"N": 2, "T": steps} for steps in (1, 9, 10, 11, 40))


@stranger
def whole_parts() -> Stranger:
    def forward(self: Any, x: Tensor) -> Any:
        steps = int(x.shape[1])
        return self.a(x[:, int(steps * 0.29) :]), x[:, math.floor(x.shape[1] * 0.29) :], x[:, : int(steps / 2) + 1]

    outputs = [y(("N", "A", 4)), y(("N", "A", 8), "floor"), y(("N", "B", 8), "half")]
    return Stranger(net(forward, a=nn.Linear(8, 4)), [x(SERIES)], outputs, sizes=AWKWARD)


@stranger
def nearest_whole_numbers() -> Stranger:
    """Python takes the even one of two."""

    def forward(self: Any, x: Tensor) -> Any:
        return self.a(x[:, round(x.shape[1] * 0.5) :]), x[:, : math.ceil(x.shape[1] / 3)]

    sizes = tuple({"N": 2, "T": steps} for steps in (1, 5, 7, 30))
    return Stranger(
        net(forward, a=nn.Linear(8, 4)), [x(SERIES)], [y(("N", "A", 4)), y(("N", "B", 8), "third")], sizes=sizes
    )


@stranger
def roots_and_logarithms() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        z = self.a(x) / math.sqrt(x.shape[1]) * math.log(x.size(1) + 1, 3) * x.shape[1] ** -0.5 / np.sqrt(x.shape[1])
        return F.scaled_dot_product_attention(z, z, z, scale=1 / math.sqrt(x.shape[1]))

    return Stranger(net(forward, a=nn.Linear(8, 4)), [x(SERIES)], [y(("N", "T", 4))])


@stranger
def share_of_the_tokens() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.a(x).squeeze(-1).topk(max(1, int(x.shape[1] * 0.5)), 1).values

    return Stranger(net(forward, a=nn.Linear(8, 1)), [x(SERIES)], [y(("N", "K"))])


@stranger
def resized_by_a_factor() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        return self.a(F.interpolate(x, size=(int(h * 0.5) + 1, int(w * 1.5)), mode="bilinear"))

    return Stranger(net(forward, a=nn.Conv2d(3, 2, 1)), [x(PICTURE)], [y(("N", 2, "A", "B"))])


@stranger
def square_of_patches() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        side = int(math.sqrt(x.shape[1]))
        return self.a(x.transpose(1, 2).reshape(x.shape[0], 8, side, side)).mean((2, 3))

    return Stranger(
        net(forward, a=nn.Conv2d(8, 3, 1)), [x(SERIES)], [y(("N", 3))], refused="takes T=1, 4, 9, 16.* and refuses 2"
    )


@stranger
def rolled_and_triangles() -> Stranger:
    def forward(self: Any, x: Tensor) -> Any:
        z = torch.roll(self.a(x), x.shape[1] // 2, 1)
        products, (i, j) = z @ z.mT, torch.tril_indices(x.shape[1], x.shape[1], -1)
        k, m = torch.triu_indices(x.shape[1], x.shape[1], offset=1)
        return z.roll((x.shape[1] + 1, 1), (1, 2)), products[:, i, j].sum(1), products[:, k, m]

    outputs = [y(("N", "T", 4)), y(("N",), "below"), y(("N", "K"), "above")]
    sizes = ({"N": 1, "T": 2}, {"N": 3, "T": 19})
    return Stranger(net(forward, a=nn.Sequential(nn.Linear(8, 4), nn.RReLU())), [x(SERIES)], outputs, sizes=sizes)


@stranger
def one_of_two_ways() -> Stranger:
    def forward(self: Any, x: Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda v: self.a(v), lambda v: self.b(v), (x,))

    return Stranger(net(forward, a=nn.Linear(8, 4), b=nn.Linear(8, 4)), [x(ROWS)], [y(("N", 4))])


@stranger
def transformer_with_masks() -> Stranger:
    """torch's transformer looks at the numbers of the mask."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.e, self.t = nn.Embedding(11, 8), nn.Transformer(8, 2, 1, 1, 16, batch_first=True)

        def forward(self, source: Tensor, target: Tensor) -> Any:
            mask = self.t.generate_square_subsequent_mask(target.size(1))
            return self.t(self.e(source), self.e(target), tgt_mask=mask, memory_key_padding_mask=source == 0)

    inputs = [x(("N", "T"), "source", "int64", limits=(1, 10)), x(("N", "U"), "target", "int64", limits=(0, 10))]
    sizes = ({"N": 1, "T": 1, "U": 4}, {"N": 3, "T": 7, "U": 2})
    return Stranger(Net().eval(), inputs, [y(("N", "U", 8))], sizes=sizes)


@stranger
def fast_path_of_a_padded_encoder() -> Stranger:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.e = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)

        def forward(self, x: Tensor, pad: Tensor) -> Any:
            return self.e(x, src_key_padding_mask=pad)

    rng, cases = np.random.default_rng(0), []
    for rows in range(1, 9):
        padded = np.arange(rows + 2) >= np.arange(rows)[:, None] + 3
        cases.append(Case(str(rows), {"x": rng.standard_normal((rows, rows + 2, 8), np.float32), "pad": padded}))
    return Stranger(
        Net().eval(), [x(SERIES), x(("N", "T"), "pad", "bool")], [y(SERIES)],
        refused="fast path.*padded steps.*enable_nested_tensor=False", options={"cases": cases},
    )  # fmt: skip


@stranger
def the_first_ten_steps() -> Stranger:
    def forward(self: Any, x: Tensor) -> Any:
        h = torch.zeros(x.size(0), 5)
        for t in range(x.size(1)):
            if t >= 10:
                break
            h = self.a(x[:, t], h)
        return h

    return Stranger(net(forward, a=nn.GRUCell(8, 5)), [x(SERIES)], [y(("N", 5))], sizes=TENS)


@stranger
def the_last_ten_steps() -> Stranger:
    def forward(self: Any, x: Tensor) -> Any:
        h = torch.zeros(x.size(0), 5)
        for t in range(max(0, x.size(1) - 10), x.size(1)):
            h = torch.tanh(self.a(x[:, t]) + self.b(h))
        return h

    parts = {"a": nn.Linear(8, 5), "b": nn.Linear(5, 5)}
    return Stranger(net(forward, **parts), [x(SERIES)], [y(("N", 5))], sizes=TENS)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", names(MODULES, "transformer_with_masks"))
def test_numbers_of_sizes_are_those_of_python(name: str) -> None:
    check(MODULES[name])
