"""Modules as strangers write them: each exports and is right at every size, or is refused with the true cause."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exporters.export import export_model
from runtime.engine import Engine
from runtime.errors import InputError
from tests.exporters.strangers import ROWS, SERIES, Stranger, check, collection, drawn, net, x, y

STRANGERS, stranger = collection()


@stranger
def positional_table() -> Stranger:
    """Learnt positions end at 64: longer inputs are none that the network takes."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(64, 8))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.table[: x.shape[1]]

    return Stranger(Net().eval(), [x(SERIES)], [y(SERIES)], sizes=({"N": 2, "T": 64}, {"N": 1, "T": 1}))


@stranger
def valid_convolution() -> Stranger:
    return Stranger(
        nn.Conv1d(8, 4, 5).eval(), [x(("N", 8, "T"))], [y(("N", 4, "U"))], sizes=({"N": 1, "T": 5}, {"N": 3, "T": 41})
    )


@stranger
def pairs_of_steps() -> Stranger:
    """An even number of steps, or torch raises."""
    return Stranger(
        net(lambda self, x: self.a(x.reshape(x.shape[0], x.shape[1] // 2, 16)), a=nn.Linear(16, 3)),
        [x(SERIES)], [y(("N", "U", 3))], sizes=({"N": 2, "T": 2}, {"N": 1, "T": 34}),
    )  # fmt: skip


@stranger
def branch_on_batch() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.a(x) if x.shape[0] < 50 else -self.a(x)

    return Stranger(
        net(forward, a=nn.Linear(8, 3)), [x(ROWS)], [y(("N", 3))], refused="another way at the sizes.*N < 50"
    )


@stranger
def branch_within_a_declared_range() -> Stranger:
    """The other way lies outside of what is declared, so the network is fine there."""
    from runtime.manifest import DimensionSpec

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.a(x) if x.shape[1] < 50 else -self.a(x)

    return Stranger(
        net(forward, a=nn.Linear(8, 3)), [x(SERIES)], [y(("N", "T", 3))],
        options={"dimensions": {"T": DimensionSpec(1, 49)}}, sizes=({"N": 2, "T": 49}, {"N": 1, "T": 1}),
    )  # fmt: skip


@stranger
def branch_on_one_row() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.a(x) * (2 if x.shape[0] == 1 else 1)

    return Stranger(net(forward, a=nn.Linear(8, 3)), [x(ROWS)], [y(("N", 3))], refused="N=1|another way")


@stranger
def branch_on_values() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.a(x) if x.sum() > 0 else -self.a(x)

    return Stranger(
        net(forward, a=nn.Linear(8, 3)),
        [x(ROWS)],
        [y(("N", 3))],
        refused="strangers.py:.*decides by values",
    )


@stranger
def alpha_dropout_left_on() -> Stranger:
    return Stranger(
        net(lambda self, x: F.alpha_dropout(self.a(x), 0.2, training=True), a=nn.Linear(8, 3)),
        [x(ROWS)], [y(("N", 3))], refused="forward is random",
    )  # fmt: skip


@stranger
def sampling_autoencoder() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        mean, log = self.encode(x).chunk(2, -1)
        return self.decode(mean + torch.randn_like(mean) * (log / 2).exp())

    return Stranger(
        net(forward, encode=nn.Linear(8, 6), decode=nn.Linear(3, 8)),
        [x(ROWS)],
        [y(ROWS)],
        refused="forward is random.*randn_like",
    )


@stranger
def gumbel() -> Stranger:
    return Stranger(
        net(lambda self, x: F.gumbel_softmax(self.a(x), hard=True), a=nn.Linear(8, 3)),
        [x(ROWS)], [y(("N", 3))], refused="forward is random",
    )  # fmt: skip


@stranger
def counter() -> Stranger:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.step = nn.Linear(8, 3), 0

        def forward(self, x: Tensor) -> Tensor:
            self.step += 1
            return self.a(x) / self.step

    return Stranger(Net().eval(), [x(ROWS)], [y(("N", 3))], refused="keeps a state.*step")


@stranger
def key_value_cache() -> Stranger:
    """A decoder that keeps what it has seen in an attribute."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.seen = nn.Linear(8, 8), None

        def forward(self, x: Tensor) -> Tensor:
            self.seen = self.a(x) if self.seen is None else self.seen.mean() + self.a(x)
            return self.seen

    return Stranger(Net().eval(), [x(ROWS)], [y(ROWS)], refused="keeps a state.*seen")


@stranger
def cached_mask() -> Stranger:
    """A causal mask that grows when it has to: a cache, and right at every length."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.mask = nn.Linear(8, 8), nn.Linear(8, 8), None

        def forward(self, x: Tensor) -> Tensor:
            t = x.shape[1]
            if self.mask is None or self.mask.shape[0] < t:
                self.mask = torch.full((t, t), float("-inf")).triu(1)
            return (self.q(x) @ self.k(x).transpose(1, 2) + self.mask[:t, :t]).softmax(-1) @ x

    return Stranger(Net().eval(), [x(SERIES)], [y(SERIES)], sizes=({"N": 1, "T": 1}, {"N": 2, "T": 90}))


@stranger
def named_in_another_order() -> Stranger:
    return Stranger(
        net(lambda self, query, key, value: self.a(query) - 2 * key + 3 * value, a=nn.Linear(8, 8)),
        [x(ROWS, "value"), x(ROWS, "query"), x(ROWS, "key")], [y(ROWS)],
        eager=lambda m, value, query, key: m(query, key, value),
    )  # fmt: skip


@stranger
def keyword_only() -> Stranger:
    return Stranger(
        net(lambda self, x, *, scale: self.a(x) * scale, a=nn.Linear(8, 8)), [x(ROWS, "scale"), x(ROWS)], [y(ROWS)],
        eager=lambda m, scale, x: m(x, scale=scale),
    )  # fmt: skip


@stranger
def names_that_could_be_either() -> Stranger:
    return Stranger(
        net(lambda self, a, b: self.l(a) - b, l=nn.Linear(8, 8)), [x(ROWS, "b"), x(ROWS, "other")], [y(ROWS)],
        refused="by name or by position",
    )  # fmt: skip


@stranger
def state_as_a_tuple() -> Stranger:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(8, 5, batch_first=True)

        def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            return self.rnn(x, state)

    return Stranger(
        Net().eval(), [x(SERIES), x((1, "N", 5), "h"), x((1, "N", 5), "c")],
        [y(("N", "T", 5)), y((1, "N", 5), "hn"), y((1, "N", 5), "cn")], eager=lambda m, x, h, c: m(x, (h, c)),
    )  # fmt: skip


@stranger
def dict_of_answers() -> Stranger:
    def forward(self: Any, x: Tensor) -> dict[str, Tensor]:
        return {"second": self.b(x), "first": self.a(x)}

    return Stranger(
        net(forward, a=nn.Linear(8, 3), b=nn.Linear(8, 3)), [x(ROWS)], [y(("N", 3), "first"), y(("N", 3), "second")]
    )


@stranger
def dict_with_another_key() -> Stranger:
    def forward(self: Any, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.a(x), "aux": self.b(x)}

    return Stranger(
        net(forward, a=nn.Linear(8, 3), b=nn.Linear(8, 3)), [x(ROWS)], [y(("N", 3), "logits"), y(("N", 3), "other")],
        refused="called as its keys are",
    )  # fmt: skip


@stranger
def optional_answer_is_none() -> Stranger:
    return Stranger(net(lambda self, x: (self.a(x), None), a=nn.Linear(8, 3)), [x(ROWS)], [y(("N", 3))])


@stranger
def half_network() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.a(x.half()).softmax(-1, dtype=torch.float32)

    module = net(forward, a=nn.Linear(8, 3).half())
    return Stranger(module, [x(ROWS)], [y(("N", 3))], eager=lambda m, x: m.a.float()(x).softmax(-1))


@stranger
def double_network() -> Stranger:
    return Stranger(net(lambda self, x: self.a(x.double()), a=nn.Linear(8, 3).double()), [x(ROWS)], [y(("N", 3))])


@stranger
def casts_of_published_code() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = self.n(self.a(x.float() / 255)).type(torch.float32)
        return h + torch.arange(h.shape[1], dtype=torch.float32)

    return Stranger(net(forward, a=nn.Linear(8, 4), n=nn.RMSNorm(4)), [x(ROWS, dtype="uint8")], [y(("N", 4))])


@stranger
def floor_of_a_logarithm() -> Stranger:
    return Stranger(net(lambda self, x: (self.a(x).relu() + 1e-30).log(), a=nn.Linear(8, 3)), [x(ROWS)], [y(("N", 3))])


@stranger
def nearly_one() -> Stranger:
    """A factor that an optimiser takes for 1."""
    return Stranger(net(lambda self, x: self.a(x) * 1.000009 * 1000, a=nn.Linear(8, 3)), [x(ROWS)], [y(("N", 3))])


@stranger
def nan_for_every_input() -> Stranger:
    return Stranger(
        net(lambda self, x: self.a(x) * math.nan, a=nn.Linear(8, 3)), [x(ROWS)], [y(("N", 3))], refused="NaN"
    )


@stranger
def shared_block() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        for _ in range(20):
            x = x + 0.1 * torch.tanh(self.a(x))
        return x

    return Stranger(net(forward, a=nn.Linear(8, 8)), [x(ROWS)], [y(ROWS)])


@stranger
def size_in_the_arithmetic() -> Stranger:
    return Stranger(
        net(lambda self, x: self.a(x) / math.sqrt(x.shape[1]) * x.shape[0], a=nn.Linear(8, 3)),
        [x(SERIES)],
        [y(("N", "T", 3))],
    )


@stranger
def size_as_a_tensor() -> Stranger:
    return Stranger(
        net(lambda self, x: self.a(x) * x.shape[1] ** 0.5, a=nn.Linear(8, 3)), [x(SERIES)], [y(("N", "T", 3))]
    )


@stranger
def wrong_shape_declared() -> Stranger:
    return Stranger(nn.Linear(8, 3).eval(), [x(ROWS)], [y(("N", 4))], refused=r"y has shape \[\d+, 3\], declared")


@stranger
def unused_input() -> Stranger:
    return Stranger(net(lambda self, x, z: self.a(x), a=nn.Linear(8, 3)), [x(ROWS), x(ROWS, "z")], [y(("N", 3))],
                    refused="no node reads z")  # fmt: skip


@stranger
def training_mode() -> Stranger:
    return Stranger(nn.Sequential(nn.Linear(8, 3), nn.Dropout()), [x(ROWS)], [y(("N", 3))], refused="in training mode")


@stranger
def weight_norm() -> Stranger:
    return Stranger(nn.utils.parametrizations.weight_norm(nn.Linear(8, 3)).eval(), [x(ROWS)], [y(("N", 3))])


@stranger
def spectral_norm() -> Stranger:
    return Stranger(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 3)).eval(), [x(ROWS)], [y(("N", 3))])


@stranger
def transformer_layer() -> Stranger:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    return Stranger(layer, [x(SERIES)], [y(SERIES)], sizes=({"N": 1, "T": 1}, {"N": 2, "T": 70}))


@stranger
def attention_with_padding() -> Stranger:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor, pad: Tensor) -> Tensor:
            return self.a(x, x, x, key_padding_mask=pad)[0]

    return Stranger(Net().eval(), [x(SERIES), x(("N", "T"), "pad", "bool")], [y(SERIES)])


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_is_right_or_refused_for_the_true_cause(name: str) -> None:
    check(STRANGERS[name])


@pytest.mark.parametrize(
    ("name", "sizes", "words"),
    [
        ("positional_table", {"N": 1, "T": 65}, "T"),
        ("valid_convolution", {"N": 1, "T": 4}, "T"),
        ("pairs_of_steps", {"N": 1, "T": 3}, "T"),
    ],
)
def test_sizes_outside_of_the_proof_are_refused_by_the_engine(name: str, sizes: dict[str, int], words: str) -> None:
    from runtime.manifest import ModelSpec

    torch.manual_seed(1)
    one = STRANGERS[name]()
    model = export_model(one.module, inputs=one.inputs, outputs=one.outputs)
    spec = ModelSpec({}, model.inputs, model.outputs, dimensions=model.dimensions)
    engine = Engine(model.graph, spec=spec, threads=1)
    with pytest.raises(InputError, match=words):
        engine.run(drawn(one, sizes, np.random.default_rng(0)))
