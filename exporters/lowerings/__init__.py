"""Translations of ATen operators whose form in torch.onnx loses range, changes an answer or is missing.

Each is exact to a few units in the last place wherever torch in float32 is, and written in standard operators of
opset 18. What cannot be written so is refused by name, see `unsupported`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any


@cache
def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The ``custom_translation_table`` of `torch.onnx.export` for these operators."""
    from exporters.lowerings import (
        activations,
        algebra,
        attention,
        ordering,
        pairs,
        placing,
        pooling,
        reductions,
        resampling,
        sizes,
    )

    parts = (activations, algebra, attention, ordering, pairs, placing, pooling, reductions, resampling, sizes)
    return {operator: function for part in parts for operator, function in part.translations().items()}
