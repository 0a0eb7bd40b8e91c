"""Blocks of published networks, written anew: each exports and is right at every size, or is refused by its cause."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import rnn

from tests.exporters.strangers import PICTURE, ROWS, SERIES, Stranger, check, collection, names, net, x, y

MODULES, stranger = collection()

TOKENS = ("N", "T")
WORDS = 11


def ids(name: str = "ids", shape: tuple = TOKENS, top: int = WORDS - 1) -> Any:
    return x(shape, name, "int64", limits=(0, top))


# --- transformers ----------------------------------------------------------------------------------------------------


@stranger
def decoder_block() -> Stranger:
    """Causal attention by scaled_dot_product_attention, a gated feed-forward part, RMSNorm."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(WORDS, 8)
            self.qkv, self.out = nn.Linear(8, 24, bias=False), nn.Linear(8, 8, bias=False)
            self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)
            self.norm1, self.norm2 = nn.RMSNorm(8), nn.RMSNorm(8)

        def forward(self, ids: Tensor) -> Tensor:
            h = self.embed(ids)
            b, t, _ = h.shape
            q, k, v = self.qkv(self.norm1(h)).view(b, t, 3, 2, 4).permute(2, 0, 3, 1, 4)
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            h = h + self.out(a.transpose(1, 2).reshape(b, t, 8))
            n = self.norm2(h)
            return (h + self.down(F.silu(self.gate(n)) * self.up(n))) @ self.embed.weight.T

    return Stranger(Net().eval(), [ids()], [y(("N", "T", WORDS))])


@stranger
def rotary_by_complex_numbers() -> Stranger:
    """Rotary positions as torch.polar and view_as_complex."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q = nn.Linear(8, 8)
            angle = torch.outer(torch.arange(256.0), 1 / 100 ** (torch.arange(0, 8, 2) / 8))
            self.register_buffer("turns", torch.polar(torch.ones_like(angle), angle), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            q = torch.view_as_complex(self.q(x).float().reshape(*x.shape[:-1], -1, 2))
            return torch.view_as_real(q * self.turns[: x.shape[1]]).flatten(2)

    return Stranger(Net().eval(), [x(SERIES)], [y(SERIES)])


@stranger
def relative_position_bias() -> Stranger:
    """Buckets of distances, as in T5."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias, self.q, self.k = nn.Embedding(8, 1), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            at = torch.arange(x.shape[1], device=x.device)
            away = (at[None, :] - at[:, None]).abs()
            large = 4 + (torch.log(away.float().clamp(min=1) / 4) / math.log(32 / 4) * 4).long()
            bucket = torch.where(away < 4, away, large.clamp(max=7))
            bias = self.bias(bucket).permute(2, 0, 1)
            return (self.q(x) @ self.k(x).transpose(1, 2) / 8**0.5 + bias).softmax(-1) @ x

    return Stranger(Net().eval(), [x(SERIES)], [y(SERIES)])


@stranger
def linear_biases_of_distance() -> Stranger:
    """ALiBi with a mask of minus infinity."""

    def forward(self: Any, x: Tensor) -> Tensor:
        t = x.size(1)
        away = torch.arange(t)[None, :] - torch.arange(t)[:, None]
        mask = torch.zeros(t, t).masked_fill(away > 0, float("-inf"))
        return (self.q(x) @ x.mT + 0.5 * away + mask).softmax(-1) @ x

    return Stranger(net(forward, q=nn.Linear(8, 8)), [x(SERIES)], [y(SERIES)])


@stranger
def decoder_with_a_cache_of_keys() -> Stranger:
    """One step of decoding: past keys and values come in, and go out longer by a step."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            keys = torch.cat([keys, self.k(x)], 1)
            values = torch.cat([values, self.v(x)], 1)
            total, new = keys.shape[1], x.shape[1]
            allowed = torch.ones(total, total, dtype=torch.bool).tril()[total - new :]
            scores = (self.q(x) @ keys.mT / 8**0.5).masked_fill(~allowed, torch.finfo(x.dtype).min)
            return scores.softmax(-1) @ values, keys, values

    past = ("N", "P", 8)
    return Stranger(
        Net().eval(), [x(SERIES), x(past, "keys"), x(past, "values")],
        [y(SERIES), y(("N", "L", 8), "k"), y(("N", "L", 8), "v")],
        sizes=({"N": 1, "T": 1, "P": 9}, {"N": 2, "T": 3, "P": 17}),
    )  # fmt: skip


@stranger
def encoder_of_several_layers() -> Stranger:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True, activation="gelu")
    module = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(8), enable_nested_tensor=False).eval()
    return Stranger(module, [x(SERIES)], [y(SERIES)])


@stranger
def decoder_with_memory() -> Stranger:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.d = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)

        def forward(self, x: Tensor, memory: Tensor) -> Tensor:
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
            return self.d(x, memory, tgt_mask=mask, tgt_is_causal=True)

    return Stranger(
        Net().eval(), [x(SERIES), x(("N", "S", 8), "memory")], [y(SERIES)],
        sizes=({"N": 1, "T": 1, "S": 4}, {"N": 2, "T": 9, "S": 1}),
    )  # fmt: skip


@stranger
def vision_transformer() -> Stranger:
    """Patches, a class token, positions resized to the picture."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 4, 4)
            self.token = nn.Parameter(torch.randn(1, 1, 8))
            self.position = nn.Parameter(torch.randn(1, 8, 5, 5))
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            p = self.patch(x)
            p = p + F.interpolate(self.position, size=p.shape[-2:], mode="bicubic", align_corners=False)
            t = torch.cat([self.token.expand(x.shape[0], -1, -1), p.flatten(2).transpose(1, 2)], 1)
            return self.layer(t)[:, 0]

    return Stranger(
        Net().eval(), [x(PICTURE)], [y(("N", 8))], sizes=({"N": 1, "H": 16, "W": 32}, {"N": 2, "H": 40, "W": 12})
    )


@stranger
def windows_that_shift() -> Stranger:
    """Windows of a picture, rolled by half a window, as in Swin."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            b, c, h, w = x.shape
            x = F.pad(x, (0, -w % 4, 0, -h % 4))
            z = torch.roll(x.permute(0, 2, 3, 1), (-2, -2), (1, 2))
            hp, wp = z.shape[1:3]
            z = z.view(b, hp // 4, 4, wp // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
            z = (self.a(z) @ z.mT).softmax(-1) @ z
            z = z.view(b, hp // 4, wp // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, hp, wp, c)
            return torch.roll(z, (2, 2), (1, 2)).permute(0, 3, 1, 2)[..., :h, :w]

    # Several windows each way and a picture to fill up, so that it is traced once. The sweep adds a single window, the
    # judge a height of whole windows; `vision_transformer` is traced anew.
    sizes = {"H": (7, 33, 65), "W": (9, 35, 67)}
    return Stranger(Net().eval(), [x(PICTURE)], [y(PICTURE)], options={"sizes": sizes})


# --- pictures --------------------------------------------------------------------------------------------------------


@stranger
def u_net() -> Stranger:
    """The way up is resized to the size of the way down, whatever it is."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
            self.c, self.norm = nn.Conv2d(12, 2, 1), nn.GroupNorm(2, 4)

        def forward(self, x: Tensor) -> Tensor:
            a = F.silu(self.norm(self.a(x)))
            b = F.interpolate(F.leaky_relu(self.b(a), 0.1), size=a.shape[2:], mode="bilinear", align_corners=True)
            return self.c(torch.cat([a, b], 1))

    return Stranger(Net().eval(), [x(PICTURE)], [y(("N", 2, "H", "W"))])


@stranger
def transposed_convolution_cropped() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        z = self.up(self.down(x))
        return z[..., : x.shape[2], : x.shape[3]] + x

    module = net(forward, down=nn.Conv2d(3, 4, 2, 2), up=nn.ConvTranspose2d(4, 3, 2, 2, output_padding=1))
    return Stranger(module, [x(PICTURE)], [y(PICTURE)], sizes=({"N": 1, "H": 2, "W": 3}, {"N": 2, "H": 21, "W": 30}))


@stranger
def squeeze_and_excite() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        z = F.hardswish(self.a(x))
        return z * F.hardsigmoid(self.e(F.relu6(self.s(F.adaptive_avg_pool2d(z, 1)))))

    module = net(forward, a=nn.Conv2d(3, 6, 3, padding=1), s=nn.Conv2d(6, 2, 1), e=nn.Conv2d(2, 6, 1))
    return Stranger(module, [x(PICTURE)], [y(("N", 6, "H", "W"))])


@stranger
def pyramid_pooling() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        parts = [F.interpolate(F.adaptive_avg_pool2d(x, s), x.shape[-2:], mode="nearest") for s in (1, 2, 3)]
        return self.a(torch.cat([x, *parts], 1))

    return Stranger(net(forward, a=nn.Conv2d(12, 2, 1)), [x(PICTURE)], [y(("N", 2, "H", "W"))])


@stranger
def pooling_with_indices() -> Stranger:
    """Max-unpooling by the places of the maxima."""

    def forward(self: Any, x: Tensor) -> Tensor:
        z, at = F.max_pool2d(self.a(x), 2, return_indices=True)
        return F.max_unpool2d(z, at, 2, output_size=x.shape[-2:])

    return Stranger(
        net(forward, a=nn.Conv2d(3, 3, 1)), [x(PICTURE)], [y(PICTURE)],
        sizes=({"N": 1, "H": 4, "W": 6}, {"N": 2, "H": 20, "W": 8}), refused=None,
    )  # fmt: skip


@stranger
def pixel_shuffle() -> Stranger:
    module = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1, padding_mode="reflect"), nn.PixelShuffle(2)).eval()
    return Stranger(
        module, [x(PICTURE)], [y(("N", 3, "A", "B"))], sizes=({"N": 1, "H": 2, "W": 3}, {"N": 2, "H": 20, "W": 9})
    )


@stranger
def sampled_by_a_grid() -> Stranger:
    """A spatial transformer."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 6)

        def forward(self, x: Tensor) -> Tensor:
            theta = self.a(x.mean((2, 3))).view(-1, 2, 3)
            grid = F.affine_grid(theta, list(x.shape), align_corners=False)
            return F.grid_sample(x, grid, padding_mode="border", align_corners=False)

    return Stranger(
        Net().eval(), [x(PICTURE)], [y(PICTURE)], sizes=({"N": 1, "H": 5, "W": 4}, {"N": 2, "H": 9, "W": 8})
    )


@stranger
def detection_head_with_anchors() -> Stranger:
    """A grid of cells by meshgrid, boxes decoded from it, the best by topk."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 6, 3, 2, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z = self.a(x)
            h, w = z.shape[-2:]
            v, u = torch.meshgrid(torch.arange(h, dtype=z.dtype), torch.arange(w, dtype=z.dtype), indexing="ij")
            cells = torch.stack([u, v], -1).view(1, -1, 2)
            z = z.flatten(2).transpose(1, 2)
            boxes = torch.cat([(z[..., :2].sigmoid() + cells) * 2, z[..., 2:4].exp()], -1)
            scores, best = z[..., 5].sigmoid().topk(4, dim=1)
            return torch.gather(boxes, 1, best.unsqueeze(-1).expand(-1, -1, 4)), scores

    return Stranger(
        Net().eval(), [x(PICTURE)], [y(("N", 4, 4)), y(("N", 4), "scores")],
        sizes=({"N": 1, "H": 8, "W": 7}, {"N": 2, "H": 20, "W": 33}),
    )  # fmt: skip


@stranger
def channels_last_and_contiguous() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        z = self.a(x.to(memory_format=torch.channels_last))
        return self.n(z.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)

    return Stranger(net(forward, a=nn.Conv2d(3, 4, 3, padding=1), n=nn.LayerNorm(4)), [x(PICTURE)],
                    [y(("N", 4, "H", "W"))])  # fmt: skip


@stranger
def generalised_mean_pooling() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        z = F.avg_pool2d(self.a(x).clamp(min=1e-6).pow(self.p), x.shape[-2:]).pow(1 / self.p)
        return F.normalize(z.flatten(1))

    return Stranger(net(forward, a=nn.Conv2d(3, 4, 1), p=nn.Parameter(torch.tensor(3.0))), [x(PICTURE)],
                    [y(("N", 4))])  # fmt: skip


@stranger
def blurred_by_a_fixed_kernel() -> Stranger:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kernel = torch.tensor([1.0, 2.0, 1.0])
            self.register_buffer("kernel", (kernel[:, None] * kernel / 16).expand(3, 1, 3, 3))
            self.a = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(F.pad(self.a(x), (1, 1, 1, 1), mode="replicate"), self.kernel, stride=2, groups=x.shape[1])

    return Stranger(Net().eval(), [x(PICTURE)], [y(("N", 3, "A", "B"))])


@stranger
def unfolded_patches() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.a(F.unfold(x, 3, padding=1).transpose(1, 2))

    return Stranger(net(forward, a=nn.Linear(27, 4)), [x(PICTURE)], [y(("N", "P", 4))])


# --- series and sets -------------------------------------------------------------------------------------------------


@stranger
def packed_gru() -> Stranger:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.a = nn.GRU(8, 5, batch_first=True, bidirectional=True), nn.Linear(10, 2)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            _, h = self.rnn(packed)
            return self.a(torch.cat([h[0], h[1]], -1))

    return Stranger(
        Net().eval(), [x(SERIES), x(("N",), "lengths", "int64", limits=(1, 1))], [y(("N", 2))],
        sizes=({"N": 1, "T": 1}, {"N": 3, "T": 7}),
    )  # fmt: skip


@stranger
def causal_convolutions() -> Stranger:
    """Dilated, padded on the left, with gates, as in WaveNet."""

    def forward(self: Any, x: Tensor) -> Tensor:
        z = x.transpose(1, 2)
        for layer, d in ((self.a, 1), (self.b, 2), (self.c, 4)):
            t, s = layer(F.pad(z, (d, 0))).chunk(2, 1)
            z = z + torch.tanh(t) * torch.sigmoid(s)
        return z.transpose(1, 2)

    parts = {name: nn.Conv1d(8, 16, 2, dilation=d) for name, d in (("a", 1), ("b", 2), ("c", 4))}
    return Stranger(net(forward, **parts), [x(SERIES)], [y(SERIES)])


@stranger
def attention_pooling_with_lengths() -> Stranger:
    """What lies behind the end of a row is masked out."""

    def forward(self: Any, x: Tensor, lengths: Tensor) -> Tensor:
        mask = torch.arange(x.shape[1])[None, :] < lengths[:, None]
        weights = self.a(x).squeeze(-1).masked_fill(~mask, -1e9).softmax(1)
        return torch.einsum("nt,ntc->nc", weights, x)

    return Stranger(
        net(forward, a=nn.Linear(8, 1)), [x(SERIES), x(("N",), "lengths", "int64", limits=(1, 9))], [y(ROWS)]
    )


@stranger
def bag_of_words() -> Stranger:
    return Stranger(nn.EmbeddingBag(WORDS, 6, mode="mean").eval(), [ids("input")], [y(("N", 6))])


@stranger
def running_sums() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        z = self.a(x).cumsum(1)
        return z / torch.arange(1, x.shape[1] + 1).view(1, -1, 1) + x.flip(1).cumprod(1) * 0.01

    return Stranger(
        net(forward, a=nn.Linear(8, 8)), [x(SERIES)], [y(SERIES)], sizes=({"N": 1, "T": 1}, {"N": 2, "T": 9})
    )


@stranger
def messages_in_a_graph() -> Stranger:
    """A graph network: messages are added up where they arrive."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(16, 4)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            source, target = edges[0], edges[1]
            arrived = torch.zeros_like(x).index_add(0, target, self.a(x)[source])
            return self.b(torch.cat([x, arrived], -1))

    return Stranger(
        Net().eval(), [x(ROWS), x((2, "E"), "edges", "int64", limits=(0, 0))], [y(("N", 4))],
        sizes=({"N": 1, "E": 1}, {"N": 5, "E": 9}),
    )  # fmt: skip


@stranger
def scattered_one_hot() -> Stranger:
    def forward(self: Any, ids: Tensor) -> Tensor:
        one = torch.zeros(*ids.shape, WORDS).scatter_(-1, ids.unsqueeze(-1), 1.0)
        return self.a(one.mean(1))

    return Stranger(net(forward, a=nn.Linear(WORDS, 4)), [ids()], [y(("N", 4))])


@stranger
def one_hot_by_function() -> Stranger:
    return Stranger(
        net(lambda self, ids: self.a(F.one_hot(ids, WORDS).float()), a=nn.Linear(WORDS, 4)), [ids()],
        [y(("N", "T", 4))],
    )  # fmt: skip


@stranger
def mixture_of_experts() -> Stranger:
    """All experts answer; the two best count."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(8, 4)
            self.experts = nn.ModuleList([nn.Linear(8, 8) for _ in range(4)])

        def forward(self, x: Tensor) -> Tensor:
            weights, best = self.gate(x).softmax(-1).topk(2, dim=-1)
            share = torch.zeros(x.shape[0], 4).scatter(1, best, weights / weights.sum(-1, keepdim=True))
            return torch.stack([expert(x) for expert in self.experts], 1).mul(share.unsqueeze(-1)).sum(1)

    return Stranger(Net().eval(), [x(ROWS)], [y(ROWS)])


@stranger
def mixture_of_experts_by_rows() -> Stranger:
    """Each expert sees the rows that chose it: how many is known when the network runs."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(8, 2)
            self.experts = nn.ModuleList([nn.Linear(8, 8) for _ in range(2)])

        def forward(self, x: Tensor) -> Tensor:
            chosen = self.gate(x).argmax(-1)
            out = torch.zeros_like(x)
            for i, expert in enumerate(self.experts):
                rows = torch.where(chosen == i)[0]
                out.index_add_(0, rows, expert(x[rows]))
            return out

    return Stranger(Net().eval(), [x(ROWS)], [y(ROWS)])


@stranger
def nearest_code() -> Stranger:
    """Vector quantisation with the straight-through estimator."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.codes = nn.Linear(8, 4), nn.Embedding(60, 4)
            self.codes.weight.data *= 0.5

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z = self.a(x)
            index = torch.cdist(z, self.codes.weight).argmin(-1)
            q = self.codes(index)
            return z + (q - z).detach(), index

    return Stranger(Net().eval(), [x(ROWS)], [y(("N", 4)), y(("N",), "index", "int64")])


@stranger
def spectrogram() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        z = torch.stft(x, 16, 8, window=self.window, return_complex=True)
        return self.a(z.abs().pow(2).transpose(1, 2)).clamp(min=1e-5).log()

    module = net(forward, a=nn.Linear(9, 4))
    module.register_buffer("window", torch.hann_window(16))
    return Stranger(module, [x(("N", "T"))], [y(("N", "F", 4))], sizes=({"N": 1, "T": 16}, {"N": 2, "T": 100}))


@stranger
def last_step_by_length() -> Stranger:
    """``torch.arange(len(x))`` beside an index of the last step."""

    def forward(self: Any, x: Tensor, lengths: Tensor) -> Tensor:
        y, _ = self.rnn(x)
        return self.a(y[torch.arange(len(y), device=y.device), lengths - 1])

    return Stranger(
        net(forward, rnn=nn.GRU(8, 5, batch_first=True), a=nn.Linear(5, 2)),
        [x(SERIES), x(("N",), "lengths", "int64", limits=(1, 1))], [y(("N", 2))],
    )  # fmt: skip


# --- what networks are built with ------------------------------------------------------------------------------------


@stranger
def orthogonal_parametrisation() -> Stranger:
    layer = nn.utils.parametrizations.orthogonal(nn.Linear(8, 8))
    return Stranger(nn.Sequential(layer, nn.Tanh()).eval(), [x(ROWS)], [y(ROWS)])


@stranger
def weight_standardised_convolution() -> Stranger:
    class Standard(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            w = self.weight
            w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
            return self._conv_forward(x, w, self.bias)

    return Stranger(Standard(3, 4, 3, padding=1).eval(), [x(PICTURE)], [y(("N", 4, "H", "W"))])


@stranger
def low_rank_adapters() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.a(x) + self.up(self.down(x)) * (16 / 4)

    return Stranger(
        net(forward, a=nn.Linear(8, 8), down=nn.Linear(8, 4, bias=False), up=nn.Linear(4, 8, bias=False)),
        [x(ROWS)], [y(ROWS)],
    )  # fmt: skip


@stranger
def pruned() -> Stranger:
    from torch.nn.utils import prune

    layer = nn.Linear(8, 8)
    prune.l1_unstructured(layer, "weight", 0.5)
    module = net(lambda self, x: self.a(x), a=layer)
    with torch.no_grad():
        module(torch.zeros(1, 8))  # the pruned weight is a tensor that torch can copy from now on
    return Stranger(module, [x(ROWS)], [y(ROWS)])


@stranger
def quantisation_aware() -> Stranger:
    """Weights and activations are rounded to 8 bits while it trains."""

    def forward(self: Any, x: Tensor) -> Tensor:
        w = torch.fake_quantize_per_tensor_affine(self.a.weight, 0.01, 0, -128, 127)
        return torch.fake_quantize_per_tensor_affine(F.linear(x, w, self.a.bias), 0.05, 0, -128, 127)

    return Stranger(
        net(forward, a=nn.Linear(8, 8)), [x(ROWS)], [y(ROWS)], refused=r"published_modules.py:\d+:.*quantise the bundle"
    )


@stranger
def dynamically_quantised() -> Stranger:
    """int8 weights in packed form, which torch keeps outside of parameters."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 4)).eval(), {nn.Linear})
    return Stranger(module, [x(ROWS)], [y(("N", 4))], refused="is quantised")


@stranger
def autocast_within() -> Stranger:
    """Half precision where it runs, which the graph does not round to."""

    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.a(x).float()

    return Stranger(net(forward, a=nn.Linear(8, 4)), [x(ROWS)], [y(("N", 4))], eager=lambda m, x: m.a(x))


@stranger
def autocast_disabled_within() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return self.a(x.float()).softmax(-1)

    return Stranger(net(forward, a=nn.Linear(8, 4)), [x(ROWS)], [y(("N", 4))])


@stranger
def bfloat16_network() -> Stranger:
    return Stranger(
        net(lambda self, x: self.a(x.to(self.a.weight.dtype)).float(), a=nn.Linear(8, 4).bfloat16()), [x(ROWS)],
        [y(("N", 4))], eager=lambda m, x: m.a.float()(x),
    )  # fmt: skip


@stranger
def gradients_within() -> Stranger:
    """A force field: the answer is a gradient."""

    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            return -torch.autograd.grad(self.a(x).tanh().sum(), x)[0]

    return Stranger(
        net(forward, a=nn.Linear(8, 4)), [x(ROWS)], [y(ROWS)], refused=r"published_modules.py:\d+:.*torch's grad"
    )


@stranger
def checkpointed() -> Stranger:
    from torch.utils.checkpoint import checkpoint

    def forward(self: Any, x: Tensor) -> Tensor:
        return checkpoint(lambda z: self.a(z).relu(), x, use_reentrant=False)

    return Stranger(net(forward, a=nn.Linear(8, 4)), [x(ROWS)], [y(("N", 4))])


@stranger
def hooks() -> Stranger:
    """A hook that changes what a layer answers."""
    module = net(lambda self, x: self.a(x), a=nn.Linear(8, 4))
    module.a.register_forward_hook(lambda layer, given, answer: answer * 2)
    return Stranger(module, [x(ROWS)], [y(("N", 4))])


@stranger
def function_of_its_own() -> Stranger:
    """An autograd.Function, as clamps with a straight-through gradient are written."""

    class Step(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return (x > 0).to(x.dtype)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient

    return Stranger(
        net(lambda self, x: self.b(Step.apply(self.a(x)) * x), a=nn.Linear(8, 8), b=nn.Linear(8, 3)), [x(ROWS)],
        [y(("N", 3))],
    )  # fmt: skip


# --- what goes in and comes out --------------------------------------------------------------------------------------


@stranger
def dataclass_of_answers() -> Stranger:
    @dataclass
    class Answer:
        logits: Tensor
        hidden: Tensor

    def forward(self: Any, x: Tensor) -> Answer:
        hidden = self.a(x)
        return Answer(self.b(hidden), hidden)

    module = net(forward, a=nn.Linear(8, 4), b=nn.Linear(4, 3))
    return Stranger(
        module, [x(ROWS)], [y(("N", 3), "logits"), y(("N", 4), "hidden")],
        eager=lambda m, x: (m(x).logits, m(x).hidden),
    )  # fmt: skip


@stranger
def named_tuple_of_answers() -> Stranger:
    class Answer(NamedTuple):
        logits: Tensor
        hidden: Tensor

    def forward(self: Any, x: Tensor) -> Answer:
        hidden = self.a(x)
        return Answer(self.b(hidden), hidden)

    module = net(forward, a=nn.Linear(8, 4), b=nn.Linear(4, 3))
    return Stranger(
        module, [x(ROWS)], [y(("N", 4), "hidden"), y(("N", 3), "logits")],
        eager=lambda m, x: (m(x).hidden, m(x).logits),
    )  # fmt: skip


@stranger
def list_of_inputs() -> Stranger:
    def forward(self: Any, levels: list[Tensor]) -> Tensor:
        return self.a(torch.cat(levels, -1))

    return Stranger(
        net(forward, a=nn.Linear(16, 4)), [x(ROWS, "fine"), x(ROWS, "coarse")], [y(("N", 4))],
        eager=lambda m, a, b: m([a, b]),
    )  # fmt: skip


@stranger
def dict_of_inputs() -> Stranger:
    def forward(self: Any, batch: dict[str, Tensor]) -> Tensor:
        return self.a(batch["left"]) - batch["right"]

    from exporters.calling import Call

    return Stranger(
        net(forward, a=nn.Linear(8, 8)), [x(ROWS, "right"), x(ROWS, "left")], [y(ROWS)],
        options={"arguments": Call(({"left": "left", "right": "right"},))},
        eager=lambda m, right, left: m({"left": left, "right": right}),
    )  # fmt: skip


@stranger
def dict_of_inputs_undeclared() -> Stranger:
    def forward(self: Any, batch: dict[str, Tensor]) -> Tensor:
        return self.a(batch["left"]) - batch["right"]

    return Stranger(
        net(forward, a=nn.Linear(8, 8)), [x(ROWS, "right"), x(ROWS, "left")], [y(ROWS)],
        eager=lambda m, right, left: m({"left": left, "right": right}),
    )  # fmt: skip


@stranger
def any_number_of_inputs() -> Stranger:
    return Stranger(
        net(lambda self, *parts: self.a(torch.cat(parts, -1)), a=nn.Linear(16, 4)), [x(ROWS, "one"), x(ROWS, "two")],
        [y(("N", 4))],
    )  # fmt: skip


@stranger
def keywords_only() -> Stranger:
    def forward(self: Any, **batch: Tensor) -> Tensor:
        return self.a(batch["left"]) - batch["right"]

    return Stranger(
        net(forward, a=nn.Linear(8, 8)), [x(ROWS, "right"), x(ROWS, "left")], [y(ROWS)],
        eager=lambda m, right, left: m(left=left, right=right),
    )  # fmt: skip


@stranger
def optional_input_left_out() -> Stranger:
    def forward(self: Any, x: Tensor, mask: Tensor | None = None, scale: float = 2.0) -> Tensor:
        z = self.a(x) * scale
        return z if mask is None else z.masked_fill(mask, 0)

    return Stranger(net(forward, a=nn.Linear(8, 8)), [x(ROWS)], [y(ROWS)])


@stranger
def optional_input_given() -> Stranger:
    def forward(self: Any, x: Tensor, scale: float = 2.0, mask: Tensor | None = None) -> Tensor:
        z = self.a(x) * scale
        return z if mask is None else z.masked_fill(mask, 0)

    return Stranger(net(forward, a=nn.Linear(8, 8)), [x(ROWS), x(ROWS, "mask", "bool")], [y(ROWS)],
                    eager=lambda m, x, mask: m(x, mask=mask))  # fmt: skip


@stranger
def number_as_an_answer() -> Stranger:
    def forward(self: Any, x: Tensor) -> tuple[Tensor, int]:
        return self.a(x), x.shape[0]

    return Stranger(
        net(forward, a=nn.Linear(8, 4)), [x(ROWS)], [y(("N", 4)), y((), "count", "int64")], refused=r"\(Tensor, int\)"
    )


@stranger
def classes_and_truth_values() -> Stranger:
    def forward(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.a(x)
        return z.argmax(-1), (z > 0.1).any(-1)

    return Stranger(net(forward, a=nn.Linear(8, 4)), [x(ROWS)], [y(("N",), "kind", "int64"), y(("N",), "any", "bool")])


@stranger
def complex_answer() -> Stranger:
    return Stranger(
        net(lambda self, x: torch.fft.rfft(self.a(x)), a=nn.Linear(8, 8)), [x(ROWS)], [y(("N", 5), "y", "complex64")],
        refused="complex",
    )  # fmt: skip


@stranger
def real_spectrum() -> Stranger:
    return Stranger(net(lambda self, x: torch.fft.rfft(self.a(x)).abs(), a=nn.Linear(8, 8)), [x(ROWS)], [y(("N", 5))])


@stranger
def grid_by_linspace() -> Stranger:
    """A grid of the picture's own size, moved by the network."""

    def forward(self: Any, x: Tensor) -> Tensor:
        v, u = torch.meshgrid(torch.linspace(-1, 1, x.shape[2]), torch.linspace(-1, 1, steps=x.shape[3]), indexing="ij")
        grid = torch.stack((u, v), -1) + self.a(x).permute(0, 2, 3, 1).tanh() / 10
        return F.grid_sample(x, grid, align_corners=True)

    return Stranger(
        net(forward, a=nn.Conv2d(3, 2, 3, padding=1)), [x(PICTURE)], [y(PICTURE)],
        sizes=({"N": 1, "H": 1, "W": 5}, {"N": 2, "H": 20, "W": 33}),
    )  # fmt: skip


@stranger
def likelihood_of_a_distribution() -> Stranger:
    def forward(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        normal = torch.distributions.Normal(self.a(x), F.softplus(self.b(x)))
        return normal.log_prob(torch.zeros(4)), torch.distributions.Categorical(logits=self.a(x)).entropy()

    return Stranger(net(forward, a=nn.Linear(8, 4), b=nn.Linear(8, 4)), [x(ROWS)], [y(("N", 4)), y(("N",), "entropy")])


@stranger
def lazy_layer() -> Stranger:
    return Stranger(nn.Sequential(nn.LazyLinear(4)).eval(), [x(ROWS)], [y(("N", 4))], refused="0 is a lazy layer")


# --- what cannot be one graph ----------------------------------------------------------------------------------------


@stranger
def tries_and_fails() -> Stranger:
    """An exception decides which way is taken."""

    def forward(self: Any, x: Tensor) -> Tensor:
        try:
            return self.a(x.view(-1, 4, 2, 8)).flatten(0, 2)
        except RuntimeError:
            return -self.a(x)

    return Stranger(net(forward, a=nn.Linear(8, 4)), [x(ROWS)], [y(("N", 4))], refused=r"\[-1, 4, 2, 8\].*8\*N")


@stranger
def loops_until_it_is_small() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        z = self.a(x)
        while z.abs().max() > 1:
            z = z / 2
        return z

    return Stranger(
        net(forward, a=nn.Linear(8, 4)),
        [x(ROWS)],
        [y(("N", 4))],
        refused=r"published_modules.py:\d+: .*decides by values",
    )


@stranger
def rows_that_are_selected() -> Stranger:
    """How many answers there are depends on values, which a graph can do."""

    def forward(self: Any, x: Tensor) -> Tensor:
        z = self.a(x)
        return z[z[:, 0] > 0]

    return Stranger(net(forward, a=nn.Linear(8, 4)), [x(ROWS)], [y(("D", 4))])


@stranger
def a_number_out_of_a_tensor() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        k = int(x.abs().max().item()) + 1
        return self.a(x)[:, :k]

    return Stranger(net(forward, a=nn.Linear(8, 4)), [x(ROWS)], [y(("N", "K"))])


@stranger
def by_way_of_numpy() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.a(torch.from_numpy(x.numpy() * 2))

    return Stranger(net(forward, a=nn.Linear(8, 4)), [x(ROWS)], [y(("N", 4))], refused="numpy")


@stranger
def drawn_by_python() -> Stranger:
    import random

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.a(x) * random.random()

    return Stranger(net(forward, a=nn.Linear(8, 4)), [x(ROWS)], [y(("N", 4))], refused="not a function of its inputs")


@stranger
def stochastic_depth_left_on() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        keep = (torch.rand(x.shape[0], 1) < 0.8).float()
        return x + self.a(x) * keep / 0.8

    return Stranger(net(forward, a=nn.Linear(8, 8)), [x(ROWS)], [y(ROWS)], refused="forward is random: rand")


@stranger
def first_input_sets_the_scale() -> Stranger:
    """Data-dependent initialisation, left for the first call in use."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.scale = nn.Linear(8, 4), None

        def forward(self, x: Tensor) -> Tensor:
            if self.scale is None:
                self.scale = x.std()
            return self.a(x) / self.scale

    return Stranger(Net().eval(), [x(ROWS)], [y(("N", 4))], refused="keeps a state.*scale")


@stranger
def table_by_lru_cache() -> Stranger:
    import functools

    @functools.cache
    def table(length: int) -> Tensor:
        return torch.arange(length, dtype=torch.float32)[:, None] / length

    return Stranger(
        net(lambda self, x: self.a(x) + table(x.shape[1]), a=nn.Linear(8, 8)), [x(SERIES)], [y(SERIES)],
        refused="looks something up by a size",
    )  # fmt: skip


@stranger
def inverse_transform() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        z = torch.stft(x, 16, 8, window=self.window, return_complex=True)
        return torch.istft(z * 2, 16, 8, window=self.window)

    module = net(forward)
    module.register_buffer("window", torch.hann_window(16))
    return Stranger(module, [x(("N", "T"))], [y(("N", "U"))], sizes=({"N": 1, "T": 24}, {"N": 2, "T": 77}))


@stranger
def soft_max_over_the_batch() -> Stranger:
    """The batch mixes: right as a graph, at every size."""
    return Stranger(
        net(lambda self, x: F.softmax(self.a(x).view(x.size(0), -1), dim=0), a=nn.Linear(8, 4)), [x(ROWS)],
        [y(("N", 4))],
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    names(MODULES, "windows_that_shift", "vision_transformer", "decoder_with_memory", "encoder_of_several_layers"),
)
def test_a_published_block_is_right_or_refused_for_the_true_cause(name: str) -> None:
    check(MODULES[name])
