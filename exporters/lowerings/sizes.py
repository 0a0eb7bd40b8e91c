"""Numbers that forward computes of sizes: ``int(T * 0.3)``, ``T ** -0.5``, ``math.sqrt(T)``.

Python computes them in float64, and so does the graph. In float32, 100 · 0.29 is 29, whose whole part is another than
that of Python's 28.999….
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import onnx_ir
import torch
from onnxscript import opset18 as op

from exporters.lowerings.constants import as_tensors, double, int64, is_float, typed

SINGLE, DOUBLE = onnx_ir.DataType.FLOAT, onnx_ir.DataType.DOUBLE


def _exact(x: Any) -> Any:
    """A number in float64; one that this module has rounded as it was before."""
    maker = None if isinstance(x, int | float) else x.producer()
    if maker is not None and maker.op_type == "Cast" and maker.inputs[0].dtype == DOUBLE:
        return maker.inputs[0]
    return double(x)


def _rounded(x: Any) -> Any:
    """A number in float32, as tensors take it."""
    return typed(op.Cast(typed(x, DOUBLE), to=SINGLE.value), SINGLE)


def _of_two(a: Any, b: Any, *, compute: Callable[..., Any], always: bool = False) -> Any:
    if always or any(isinstance(x, float) or (not isinstance(x, int) and is_float(x)) for x in (a, b)):
        return _rounded(compute(_exact(a), _exact(b)))
    return compute(*as_tensors(a, b))


def as_float(size: Any) -> Any:
    """A size as a float."""
    return _rounded(_exact(size))


def _whole(x: Any, *, compute: Callable[..., Any]) -> Any:
    return int64(compute(_exact(x)))


def nearest(x: Any, ndigits: None = None) -> Any:
    """The nearest whole number, of two the even one."""
    return int64(op.Round(_exact(x)))


def trunc(x: Any) -> Any:
    """The whole part."""
    return int64(_exact(x))


def square_root(x: Any) -> Any:
    """√x."""
    return _rounded(op.Sqrt(_exact(x)))


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For `exporters.lowerings.onnx_translations`."""
    symbolic: Any = torch  # its stubs do not know the function
    return {
        operator.add: partial(_of_two, compute=op.Add),
        operator.sub: partial(_of_two, compute=op.Sub),
        operator.mul: partial(_of_two, compute=op.Mul),
        operator.pow: partial(_of_two, compute=op.Pow),
        operator.truediv: partial(_of_two, compute=op.Div, always=True),
        torch.sym_float: as_float,
        math.floor: partial(_whole, compute=op.Floor),
        math.ceil: partial(_whole, compute=op.Ceil),
        math.trunc: trunc,
        round: nearest,
        symbolic._sym_sqrt: square_root,
    }
