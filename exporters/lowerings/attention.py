"""Attention with masks: a query that may look at nothing gets zeros, as torch's own kernels answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18 as op

from exporters.lowerings.constants import ints, like

aten = torch.ops.aten

LOWEST = -3.4028234663852886e38
"""Instead of minus infinity, of which a whole row would give no number: exp makes 0 of it just so."""


def attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(q·kᵀ·scale + mask) · v over the last two axes, of any number of axes before.

    Raises:
        ValueError: Dropout would be at work.
    """
    if dropout_p:
        raise ValueError(f"scaled_dot_product_attention has dropout_p={dropout_p}: in evaluation it must be 0")
    rank = len(query.shape)
    if enable_gqa and query.shape[-3] != key.shape[-3]:
        key, value = (_repeated(tensor, query.shape[-3] // key.shape[-3]) for tensor in (key, value))
    turned = op.Transpose(key, perm=[*range(rank - 2), rank - 1, rank - 2])
    factor = like(query, 1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    scores = op.MatMul(op.Mul(query, factor), turned)
    if is_causal:
        size = op.Concat(op.Shape(query, start=-2, end=-1), op.Shape(key, start=-2, end=-1), axis=0)
        seen = op.Trilu(op.Expand(like(query, 1.0), size), upper=0)  # always the first key at least
        scores = op.Add(scores, op.Mul(op.Sub(like(query, 1.0), seen), like(query, LOWEST)))
    if attn_mask is None:
        return op.MatMul(op.Softmax(scores, axis=-1), value)
    if attn_mask.dtype.is_floating_point():
        shut = like(query, -math.inf)
        added = op.Max(attn_mask, like(query, LOWEST))
        some = op.Greater(op.ReduceMax(attn_mask, ints(-1), keepdims=1), shut)
    else:
        open_ = op.CastLike(attn_mask, query)
        added = op.Mul(op.Sub(like(query, 1.0), open_), like(query, LOWEST))
        some = op.Greater(op.ReduceMax(open_, ints(-1), keepdims=1), like(query, 0.0))
    answer = op.MatMul(op.Softmax(op.Add(scores, added), axis=-1), value)
    return op.Mul(answer, op.CastLike(some, query))


def _repeated(heads: Any, times: int) -> Any:
    """Each head several times in a row: (…, H, S, E) -> (…, H·times, S, E)."""
    rank = len(heads.shape)
    each = op.Expand(op.Unsqueeze(heads, ints(rank - 2)), ints(*[1] * (rank - 2), times, 1, 1))
    before, after = op.Shape(heads, end=rank - 3), op.Shape(heads, start=rank - 2)
    return op.Reshape(each, op.Concat(before, ints(heads.shape[rank - 3] * times), after, axis=0))


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """ATen operator -> translation."""
    return {aten.scaled_dot_product_attention.default: attention}
