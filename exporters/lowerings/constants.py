"""Constants for translations: of the type of the tensor that they meet, so that no cast stands in the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnxscript import opset18 as op


def like(x: Any, value: float | int | bool | Sequence[float]) -> Any:
    """A constant of the type of ``x``."""
    return typed(op.Constant(value=onnx.numpy_helper.from_array(np.array(value, x.dtype.numpy()))), x.dtype)


def int64(x: Any) -> Any:
    """A tensor or a Python number as int64."""
    if isinstance(x, int):
        return typed(op.Constant(value_int=x), onnx_ir.DataType.INT64)
    return typed(op.Cast(x, to=onnx.TensorProto.INT64), onnx_ir.DataType.INT64)


def double(x: Any) -> Any:
    """A tensor or a Python number as float64, in which sizes are divided."""
    if isinstance(x, int | float):
        return typed(op.Constant(value=onnx.numpy_helper.from_array(np.array(x, np.float64))), onnx_ir.DataType.DOUBLE)
    return typed(op.Cast(x, to=onnx.TensorProto.DOUBLE), onnx_ir.DataType.DOUBLE)


def ints(*values: int) -> Any:
    """A vector of int64, for axes and shapes."""
    return op.Constant(value_ints=list(values))


def as_tensors(x: Any, y: Any) -> tuple[Any, Any]:
    """Two operands, a Python number among them as a constant of the other's type."""
    if isinstance(x, int | float):
        return like(y, x), y
    return (x, like(x, y)) if isinstance(y, int | float) else (x, y)


def is_float(x: Any) -> bool:
    """Whether a value holds floating point numbers."""
    return bool(x.dtype.is_floating_point())


def typed(value: Any, dtype: Any) -> Any:
    """What the recorder does not note: the type of a value inside a translation."""
    value.dtype = dtype
    return value
