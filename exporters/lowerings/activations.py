"""Functions of one number: exact where torch is, in the tails, near zero and at infinity.

torch.onnx writes ``log_sigmoid`` as Log(Sigmoid(x)), which is minus infinity from -18 on, ``elu`` as one operator that
ONNX Runtime computes as exp(x) - 1, and so on. What is here costs no more: ONNX Runtime computes Exp, Tanh, Add and Div
with vector instructions and Softplus, Mish and Elu one number after the other.

=============  ==========  ========
200,704 values  torch.onnx      here
=============  ==========  ========
elu               0.37 ms   0.21 ms
softplus          2.26 ms   0.61 ms
log_sigmoid       0.56 ms   0.61 ms
mish              2.36 ms   0.21 ms
gelu, tanh        0.25 ms   0.20 ms
expm1             0.06 ms   0.16 ms
=============  ==========  ========
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import onnx
import torch
from onnxscript import opset18 as op

from exporters.lowerings.constants import ints, is_float, like

aten = torch.ops.aten

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848, 1.0507009873554804934
SAME_FROM = 17.5
"""From here on log(1 + exp(x)) is x, rounded to float32."""

ERFCX = (-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587,
         -0.82215223, 0.17087277)  # fmt: skip
"""log(erfc(x)·exp(x²) / t) as powers of t = 1 / (1 + x / 2), for x >= 0, to 1.2e-7 (Numerical Recipes, erfcc)."""


def log1p(x: Any) -> Any:
    """log(1 + x).

    With w = 1 + x rounded, (w - 1) - x is what the rounding added, and its share in the logarithm is that over w.
    """
    one = like(x, 1.0)
    bounded = op.Min(x, like(x, 1e30))  # infinity minus infinity
    w = op.Add(bounded, one)
    added = op.Sub(op.Sub(w, one), bounded)
    return op.Sub(op.Log(op.Add(x, one)), op.Div(added, op.Max(w, like(x, 1e-30))))


def log1p_of_share(u: Any, x: Any) -> Any:
    """`log1p` of u in [0, 1], which has the type of x."""
    one = like(x, 1.0)
    w = op.Add(u, one)
    return op.Sub(op.Log(w), op.Div(op.Sub(op.Sub(w, one), u), w))


def expm1(x: Any) -> Any:
    """exp(x) - 1 = tanh(x / 2) · (exp(x) + 1)."""
    return op.Mul(op.Tanh(op.Mul(x, like(x, 0.5))), op.Add(op.Exp(x), like(x, 1.0)))


def _rest(x: Any, y: Any) -> Any:
    """log(1 + exp(-|x|)), what a smooth maximum has above the maximum; y is of the type of x."""
    return log1p_of_share(op.Exp(op.Neg(op.Abs(x))), y)


def log_sigmoid(x: Any) -> Any:
    """min(x, 0) - log(1 + exp(-|x|))."""
    return op.Sub(op.Min(x, like(x, 0.0)), _rest(x, x))


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """log(1 + exp(beta·x)) / beta, and x where beta·x is above the threshold."""
    scaled = x if beta == 1 else op.Mul(x, like(x, beta))
    smooth = op.Add(op.Max(scaled, like(x, 0.0)), _rest(scaled, x))
    result = smooth if beta == 1 else op.Div(smooth, like(x, beta))
    if threshold >= SAME_FROM:
        return result
    return op.Where(op.Greater(scaled, like(x, threshold)), x, result)


def elu(x: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Any:
    """X above zero, alpha·(exp(x) - 1) below, where exp(x) - 1 = 2t / (1 - t) with t = tanh(x / 2)."""
    t = op.Tanh(op.Mul(op.Min(x, like(x, 0.0)), like(x, 0.5 * input_scale)))
    below = op.Div(op.Mul(t, like(x, 2 * alpha * scale)), op.Sub(like(x, 1.0), t))
    above = op.Max(x, like(x, 0.0))
    return op.Add(above if scale == 1 else op.Mul(above, like(x, scale)), below)


def celu(x: Any, alpha: float = 1.0) -> Any:
    """`elu` with a slope of 1 at zero."""
    return elu(x, alpha, 1.0, 1 / alpha)


def selu(x: Any) -> Any:
    """`elu` with the two constants of self-normalising networks."""
    return elu(x, SELU_ALPHA, SELU_SCALE)


def mish(x: Any) -> Any:
    """X · tanh(softplus(x)) = x·n / (n + 2) with n = e·(e + 2) and e = exp(x), which is x from 20 on."""
    two = like(x, 2.0)
    e = op.Exp(op.Min(x, like(x, 20.0)))
    n = op.Mul(e, op.Add(e, two))
    return op.Mul(x, op.Div(n, op.Add(n, two)))


def gelu(x: Any, approximate: str = "none") -> Any:
    """X · Φ(x); the approximation by tanh is x · sigmoid(2·inner), which keeps its tail."""
    if approximate == "none":
        # ONNX Runtime makes one operator of this very form.
        phi = op.Add(op.Erf(op.Div(x, like(x, math.sqrt(2)))), like(x, 1.0))
        return op.Mul(op.Mul(x, phi), like(x, 0.5))
    factor = -2 * math.sqrt(2 / math.pi)
    inner = op.Mul(op.Add(op.Mul(op.Mul(x, x), like(x, 0.044715 * factor)), like(x, factor)), x)
    return op.Div(x, op.Add(op.Exp(inner), like(x, 1.0)))


def erfc(x: Any) -> Any:
    """1 - erf(x), and for x > 0 not by that difference."""
    scaled, square = _erfc_parts(x)
    upper = op.Mul(scaled, op.Reciprocal(square))
    return op.Where(op.Less(x, like(x, 0.0)), op.Sub(like(x, 2.0), upper), upper)


def erfcx(x: Any) -> Any:
    """erfc(x) · exp(x²)."""
    scaled, square = _erfc_parts(x)
    return op.Where(op.Less(x, like(x, 0.0)), op.Sub(op.Mul(square, like(x, 2.0)), scaled), scaled)


def _erfc_parts(x: Any) -> tuple[Any, Any]:
    """erfc(a)·exp(a²) and exp(a²) for a = |x|.

    exp(a²) is the product of exp(h²) and exp((a - h)·(a + h)) with h of few bits, so that no square is rounded.
    """
    a = op.Abs(x)
    t = op.Reciprocal(op.Add(op.Mul(a, like(x, 0.5)), like(x, 1.0)))
    logarithm = like(x, ERFCX[-1])
    for coefficient in reversed(ERFCX[:-1]):
        logarithm = op.Add(op.Mul(logarithm, t), like(x, coefficient))
    bounded = op.Min(a, like(x, 20.0))
    h = op.Div(op.Round(op.Mul(bounded, like(x, 64.0))), like(x, 64.0))
    rest = op.Mul(op.Sub(bounded, h), op.Add(bounded, h))
    return op.Mul(t, op.Exp(logarithm)), op.Mul(op.Exp(op.Mul(h, h)), op.Exp(rest))


def power(x: Any, exponent: float) -> Any:
    """X to a constant: the exponents that torch computes by other means come out as there, and faster."""
    if not is_float(x):
        if isinstance(exponent, int):
            return op.Pow(x, like(x, exponent))
        return op.Pow(op.Cast(x, to=onnx.TensorProto.FLOAT), op.Constant(value_float=exponent))
    forms: dict[float, Callable[[], Any]] = {
        0.5: lambda: op.Sqrt(x),
        -0.5: lambda: op.Reciprocal(op.Sqrt(x)),
        1: lambda: op.Identity(x),
        2: lambda: op.Mul(x, x),
        3: lambda: op.Mul(op.Mul(x, x), x),
        -1: lambda: op.Reciprocal(x),
        -2: lambda: op.Reciprocal(op.Mul(x, x)),
    }
    return forms[exponent]() if exponent in forms else op.Pow(x, like(x, exponent))


def clamp(x: Any, low: Any = None, high: Any = None) -> Any:
    """Bounded by both, the upper bound last. Clip with one bound makes infinity the largest finite number.

    A bound is a number, or a size that the graph computes.
    """
    least, most = (bound if bound is None else _bound(x, bound) for bound in (low, high))
    if least is not None and most is not None:
        is_range = isinstance(low, int | float) and isinstance(high, int | float) and low <= high
        return op.Clip(x, least, most) if is_range else op.Min(op.Max(x, least), most)
    if least is not None:
        return op.Max(x, least)
    return op.Identity(x) if most is None else op.Min(x, most)


def _bound(x: Any, bound: Any) -> Any:
    return like(x, bound) if isinstance(bound, int | float) else op.CastLike(bound, x)


def logit(x: Any, eps: float | None = None) -> Any:
    """log(x / (1 - x)), x bounded to eps … 1 - eps if there is one."""
    z = x if eps is None else op.Min(op.Max(x, like(x, eps)), like(x, 1 - eps))
    return op.Log(op.Div(z, op.Sub(like(x, 1.0), z)))


def signbit(x: Any) -> Any:
    """Whether a number is negative, minus zero included."""
    zero = like(x, 0)
    negative = op.Less(x, zero)
    return op.Or(negative, op.Less(op.Reciprocal(x), zero)) if is_float(x) else negative


def soft_max(x: Any, dim: int, dtype: int = -1, *, operator: Any = op.Softmax) -> Any:
    """A soft-max along an axis, of numbers that are cast before it and not after it."""
    cast = x if dtype in (-1, None) else op.Cast(x, to=dtype)
    return operator(cast, axis=dim) if x.shape else op.Squeeze(operator(op.Unsqueeze(cast, ints(0)), axis=0))


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """ATen operator -> translation."""
    return {
        aten.softmax.int: soft_max,
        aten.log_softmax.int: partial(soft_max, operator=op.LogSoftmax),
        aten.log1p.default: log1p,
        aten.expm1.default: expm1,
        aten.log_sigmoid.default: log_sigmoid,
        aten.softplus.default: softplus,
        aten.elu.default: elu,
        aten.celu.default: celu,
        aten.selu.default: selu,
        aten.mish.default: mish,
        aten.gelu.default: gelu,
        aten.erfc.default: erfc,
        aten.special_erfc.default: erfc,
        aten.special_erfcx.default: erfcx,
        aten.special_expm1.default: expm1,
        aten.pow.Tensor_Scalar: power,
        aten.clamp.default: clamp,
        aten.clamp_min.default: lambda x, low: clamp(x, low),
        aten.clamp_max.default: lambda x, high: clamp(x, None, high),
        aten.logit.default: logit,
        aten.special_logit.default: logit,
        aten.signbit.default: signbit,
    }
