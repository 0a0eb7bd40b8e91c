"""Operators along axes: rows of many scales and offsets, ties, masked rows; indices; attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.spec import Input
from tests.exporters.operator_groups import Arrays, Group

Operators = Mapping[str, Callable[..., Any]]


def normal(*shape: int, scale: float = 1.0, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    """Normal numbers; scaled in float32, so that a large shift rounds them as it does in a network."""
    values = np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)
    return (values * np.float32(scale) + np.float32(shift)).astype(np.float32)


KINDS = ((1, 0), (1e-17, 0), (1e15, 0), (1e18, 0), (1, 1e4), (1, 1e6), (1e-3, 300), (0, 0), (0, 5), (50, 0))
"""Scale and offset of rows."""
SHAPES = ((4, 17), (3, 64), (2, 1), (1, 301), (2, 20000))
ROWS: tuple[Arrays, ...] = tuple((normal(*shape, scale=s, shift=m),) for s, m in KINDS for shape in SHAPES)
TIES: tuple[Arrays, ...] = tuple((np.round(normal(*shape, seed=3)),) for shape in ((4, 17), (3, 64), (2, 1)))
INFINITE = np.array([
    [-math.inf] * 5, [-math.inf, 0, 1, -math.inf, 2], [math.inf, 0, 1, 2, 3], [1e30, 1e30, 0, -1e30, 1], [0] * 5,
    [100, -100, 88.5, 90, -104], [-3e38, 3e38, 3e38, 1, 3e38], [1e-30] * 5, [-3.4028235e38] * 5,
], np.float32)  # fmt: skip
ROW = (Input("x", "float32", ("N", "K")),)

SOFT: Operators = {
    "logsumexp": lambda x: (torch.logsumexp(x, -1), torch.logsumexp(x, 0, keepdim=True)),
    "softmax": lambda x: (x.softmax(-1), x.softmax(0), F.softmin(x, -1)),
    "log_softmax": lambda x: (x.log_softmax(-1), x.log_softmax(0)),
    "masked": lambda x: x.masked_fill(x > 0.5, -math.inf).softmax(-1),
    "masked_log": lambda x: x.masked_fill(x > 0.5, -math.inf).log_softmax(-1),
    "cross_entropy": lambda x: F.cross_entropy(x, torch.zeros(x.shape[0], dtype=torch.int64), reduction="none"),
    "cummax": lambda x: (x.cummax(-1), x.cummin(0)),
    "amax": lambda x: (x.amax(), x.amin(-1), x.amax((0, 1), keepdim=True)),
}
MOMENTS: Operators = {
    **{
        f"correction_{c}": lambda x, c=c: (x.var(-1, correction=c), x.std(-1, correction=c, keepdim=True))
        for c in (0, 1, 2)
    },
    "var_of_all": lambda x: (x.var(), x.std(unbiased=False), x.var((0, 1))),
    "var_of_columns": lambda x: x.var(0, correction=0),
    "var_mean": lambda x: (torch.var_mean(x, -1), torch.std_mean(x, -1, correction=0)),
    "mean": lambda x: (x.mean(-1), x.mean()),
    "norms": lambda x: (x.norm(dim=-1), torch.linalg.vector_norm(x, 1, -1), torch.linalg.norm(x)),
    "extreme_norms": lambda x: [torch.linalg.vector_norm(x, p, -1) for p in (math.inf, -math.inf, 0)],
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "rms_norm": lambda x: (F.rms_norm(x, x.shape[-1:]), F.rms_norm(x, x.shape[-1:], eps=1e-6)),
    "layer_norm_by_hand": lambda x: (
        (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    ),
    "z_score": lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, correction=0) + 1e-6),
    "normalize": lambda x: (F.normalize(x, dim=-1), x / (x.norm(dim=-1, keepdim=True) + 1e-8)),
    "cosine": lambda x: F.cosine_similarity(x, x.flip(-1), -1),
    "group_norm": lambda x: [F.group_norm(torch.stack([x, x * 2], 1), groups) for groups in (1, 2)],
    "instance_norm": lambda x: F.instance_norm(x[:, None].repeat(1, 1, 2)),
    "cumsum": lambda x: (x.cumsum(-1), x.cumsum(0)),
}
CUMULATIVE: Operators = {"logcumsumexp": lambda x: (torch.logcumsumexp(x, -1), torch.logcumsumexp(x, 0))}
ODD_NORMS: Operators = {"odd_norms": lambda x: [torch.linalg.vector_norm(x, p, -1) for p in (3, 0.5)]}
ORDER: Operators = {
    "sort": lambda x: (torch.sort(x, dim=-1, stable=True), torch.sort(x, dim=0, descending=True, stable=True)),
    "argsort": lambda x: torch.argsort(x, dim=-1, descending=True, stable=True),
    "argmax": lambda x: (x.argmax(-1), x.argmin(0), x.argmax(), x.max(-1).values, x.min(0).values),
    "median": lambda x: (x.median(-1).values, x.median(), x.median(0, keepdim=True).values),
    "kth": lambda x: x.kthvalue(1, -1).values,
    "quantile": lambda x: torch.quantile(x, 0.3, -1),
    "cummax": lambda x: (x.cummax(-1), x.cummin(-1), x.cummax(0)),
    "bucketize": lambda x: [torch.bucketize(x, _edges(x), right=right) for right in (False, True)],
    "searchsorted": lambda x: [torch.searchsorted(_edges(x), x, right=right) for right in (False, True)],
    "searchsorted_rows": lambda x: torch.searchsorted(x.sort(-1).values, x),
    "histc": lambda x: torch.histc(x, 10, -5, 5),
    "isin": lambda x: torch.isin(x, torch.arange(12, dtype=x.dtype)),
    "cumprod": lambda x: x.cumprod(-1),
    "prod": lambda x: (x.prod(-1), x.prod()),
    "tril": lambda x: (x.tril(), x.triu(1), x.tril(-1)),
    "moved": lambda x: (
        x.roll(1, 0),
        x.roll((1, -2), (0, 1)),
        x.flip(-1, 0),
        torch.rot90(x),
        x.repeat_interleave(3, 0),
    ),
    "distances": lambda x: (torch.cdist(x, x), torch.cdist(x, x.flip(0), p=1.0), torch.cdist(x, -x, p=math.inf)),
    "distances_to_many": lambda x: torch.cdist(x, x.new_ones(30, 1) * x[:1]),
}


def _edges(x: Tensor) -> Tensor:
    return torch.tensor([-1.0, 0.0, 1.0, 5.0], dtype=x.dtype)


WEIGHT = torch.from_numpy(normal(10, 6, seed=3))
INDEX: Operators = {
    "embedding": lambda i, x: (F.embedding(i, WEIGHT.to(x)), F.embedding(i, WEIGHT.to(x), padding_idx=0)),
    "bags": lambda i, x: [F.embedding_bag(i, WEIGHT.to(x), mode=mode) for mode in ("mean", "sum", "max")],
    "bags_weighted": lambda i, x: F.embedding_bag(i, WEIGHT.to(x), per_sample_weights=x, mode="sum"),
    "bags_padded": lambda i, x: F.embedding_bag(i, WEIGHT.to(x), mode="mean", padding_idx=0),
    "bags_at": lambda i, x: F.embedding_bag(i.flatten(), WEIGHT.to(x), torch.tensor([0, 0, 2]), mode="mean"),
    "one_hot": lambda i, x: F.one_hot(i, 10),
    "scatter": lambda i, x: (_none(x).scatter(1, i[:, :1], x[:, :1]), _none(x).scatter_add(1, i, x)),
    **{
        f"scatter_{how}": lambda i, x, how=how: [
            (_none(x) + 0.5).scatter_reduce(1, i, x, how, include_self=own) for own in (True, False)
        ]
        for how in ("sum", "mean", "prod", "amax", "amin")
    },
    "scatter_part": lambda i, x: (_none(x) + 0.5).scatter_reduce(1, i[:, :2], x, "mean"),
    "index_add": lambda i, x: torch.zeros(10, x.shape[1], dtype=x.dtype).index_add(0, i[:, 0], x),
    "index_put": lambda i, x: torch.zeros(10, dtype=x.dtype).index_put((i.flatten(),), x.flatten(), accumulate=True),
    "gather": lambda i, x: (x.gather(1, i % x.shape[1]), x[torch.arange(x.shape[0]), i[:, 0] % x.shape[1]]),
    "lengths": lambda i, x: torch.arange(x.shape[1])[None] < i[:, :1],
    "masked_mean": lambda i, x: (x * (i > 3)).sum(1) / (i > 3).sum(1).clamp(min=1),
    "negative": lambda i, x: WEIGHT.to(x)[-1 - i],
}


def _none(x: Tensor) -> Tensor:
    return torch.zeros(x.shape[0], 10, dtype=x.dtype)


def index_case(n: int, t: int, seed: int) -> Arrays:
    return np.random.default_rng(seed).integers(0, 10, (n, t)), normal(n, t, seed=seed)


attend = F.scaled_dot_product_attention
ATTENTION: Operators = {
    "plain": lambda q, k, v, seen, bias: (attend(q, k, v), attend(q, k, v, scale=0.3), attend(q, k, v, is_causal=True)),
    "seen": lambda q, k, v, seen, bias: (attend(q, k, v, attn_mask=seen), attend(q, k, v, attn_mask=seen[None, None])),
    "biased": lambda q, k, v, seen, bias: attend(q, k, v, attn_mask=bias),
    "three_axes": lambda q, k, v, seen, bias: (
        attend(q[:, 0], k[:, 0], v[:, 0], attn_mask=seen),
        attend(q[:, 0], k[:, 0], v[:, 0], is_causal=True),
    ),
    "grouped": lambda q, k, v, seen, bias: [
        attend(q, k[:, :heads], v[:, :heads], attn_mask=mask, is_causal=mask is None, enable_gqa=True)
        for heads, mask in ((2, seen), (1, None))
    ],
    "by_hand": lambda q, k, v, seen, bias: (
        ((q @ k.transpose(-1, -2)) / math.sqrt(8)).masked_fill(~seen, -math.inf).softmax(-1) @ v
    ),
}


def attention_case(n: int, queries: int, keys: int, seed: int, scale: float = 1.0) -> Arrays:
    """With queries that may look at nothing."""
    rng = np.random.default_rng(seed)
    seen = rng.random((queries, keys)) < 0.6
    bias = np.where(rng.random((queries, keys)) < 0.3, -np.inf, rng.normal(size=(queries, keys))).astype(np.float32)
    seen[0], bias[0] = True, 0
    if queries > 2:
        seen[1], bias[2] = False, -np.inf
    q, k, v = (normal(n, 4, length, 8, seed=seed + i, scale=scale) for i, length in enumerate((queries, keys, keys)))
    return q, k, v, seen, bias


SEQUENCES = tuple(Input(name, "float32", ("N", 4, axis, 8)) for name, axis in (("q", "L"), ("k", "S"), ("v", "S")))
GROUPS = {
    "soft": Group(ROW, ((INFINITE,), *ROWS[:3], *ROWS[40:43]), SOFT),
    "cumulative": Group(ROW, ((INFINITE,), *ROWS[:3], *ROWS[40:43]), CUMULATIVE, whole=True),
    "moments": Group(ROW, ROWS, MOMENTS, whole=True),
    "odd_norms": Group(ROW, ROWS[:5] + ROWS[45:], ODD_NORMS, whole=True),
    "order": Group(ROW, TIES, ORDER),
    "index": Group(
        (Input("i", "int64", ("N", "T")), Input("x", "float32", ("N", "T"))),
        (index_case(3, 7, 0), index_case(2, 9, 1), index_case(5, 4, 2)),
        INDEX,
    ),
    "attention": Group(
        (*SEQUENCES, Input("seen", "bool", ("L", "S")), Input("bias", "float32", ("L", "S"))),
        (
            attention_case(2, 5, 7, 0),
            attention_case(1, 6, 4, 3),
            attention_case(3, 1, 4, 5),
            attention_case(1, 9, 12, 8, 9.0),
        ),
        ATTENTION,
        whole=True,
    ),
}
