"""Operators of one or two numbers, with numbers of all magnitudes, zeros of both signs, infinities and ties."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from exporters.spec import Input
from tests.exporters.operator_groups import Arrays, Group

with np.errstate(over="ignore"):
    MAGNITUDES = np.concatenate([
        10.0 ** np.arange(-30, 31, 0.5), np.arange(1, 12) / 10,
        [1.5, 2.5, 3.5, 5, 8, 10, 12, 15, 17, 18, 19, 20, 21, 25, 30, 40, 60, 80, 86, 88, 89, 95, 100, 104, 127,
         128, 300],
    ])  # fmt: skip
    NUMBERS = np.concatenate([
        MAGNITUDES, -MAGNITUDES, [0.0, -0.0, math.inf, -math.inf, math.nan], np.linspace(-12, 12, 97),
        np.random.default_rng(1).normal(size=200),
    ]).astype(np.float32)  # fmt: skip
    MEETING = np.array([
        0.0, -0.0, math.inf, -math.inf, math.nan, 1, -1, 2, -2, 3, -3, 0.5, 7.5, -7.5, 1e-30, -1e-30, 1e-7, -1e-7, 1e7,
        -1e7, 16777217, 1e9, -1e9, 1e20, -1e20, 1e30, -1e30, 88, -88, 100, -100, 0.1, -0.1, 1 / 3, 5.5, -5.5,
    ], np.float32)  # fmt: skip
WHOLE = np.array(
    [0, 1, -1, 2, -2, 3, -3, 5, 7, -7, 63, 64, 127, -128, 255, 256, 1000003, -1000003, 2**31 - 1, -(2**31)]
)
HUGE = np.array([2**62, -(2**62), 2**63 - 1, -(2**63), 2**53 + 1, -(2**53 + 1), 10**18])
DIVISORS = np.array([1, 2, 3, -2, -3, 7, -7, 10**9, 2**53 + 1])


def crossed(*values: Any) -> Arrays:
    return tuple(grid.ravel() for grid in np.meshgrid(*values))


def finite(arrays: Arrays) -> Arrays:
    keep = np.logical_and.reduce([np.isfinite(array) for array in arrays])
    return tuple(array[keep] for array in arrays)


def divisible(arrays: Arrays, dtype: Any = np.int64) -> Arrays:
    """Without a zero below and without the one quotient that has no place."""
    x, y = arrays
    limits = np.iinfo(dtype)
    keep = (y != 0) & (x > limits.min) & (x <= limits.max) & (y >= limits.min) & (y <= limits.max)
    return x[keep].astype(dtype), y[keep].astype(dtype)


def whole_pairs(dtype: Any) -> Arrays:
    pairs = [divisible(crossed(WHOLE, WHOLE), dtype)]
    if dtype is np.int64:
        pairs.append(divisible(crossed(HUGE, DIVISORS)))
    return tuple(np.concatenate(parts) for parts in zip(*pairs, strict=True))


ONE: Mapping[str, Callable[..., Any]] = {
    "log_sigmoid": F.logsigmoid,
    "log_sigmoid_by_hand": lambda x: torch.log(torch.sigmoid(x)),
    "log_of_sigmoid_and_a_floor": lambda x: torch.log(torch.sigmoid(x) + 1e-12),
    "log_of_one_minus_sigmoid": lambda x: torch.log(torch.sigmoid(-x).clamp(min=1e-30)),
    "sigmoid": torch.sigmoid,
    "expit": torch.special.expit,
    "silu": F.silu,
    "glu": lambda x: F.glu(torch.cat([x, x.flip(0)])),
    "softplus": F.softplus,
    "softplus_steep": lambda x: F.softplus(x, 2.0, 5.0),
    "softplus_flat": lambda x: F.softplus(x, 0.3, 1.0),
    "elu": F.elu,
    "elu_of_half": lambda x: F.elu(x, 0.5),
    "celu": lambda x: F.celu(x, 0.7),
    "selu": F.selu,
    "mish": F.mish,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": lambda x: F.hardtanh(x, -2.0, 3.0),
    "tanh": torch.tanh,
    "tanhshrink": F.tanhshrink,
    "softsign": F.softsign,
    "threshold": lambda x: F.threshold(x, 0.1, 20.0),
    "log1p": torch.log1p,
    "expm1": torch.expm1,
    "erf": torch.erf,
    "erfc": torch.erfc,
    "erfcx": torch.special.erfcx,
    "ndtr": torch.special.ndtr,
    "log_ndtr": torch.special.log_ndtr,
    "logit": torch.logit,
    "logit_bounded": lambda x: torch.logit(x, 1e-6),
    "entropy": torch.special.entr,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "log": torch.log,
    "log2": torch.log2,
    "log10": torch.log10,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "atan": torch.atan,
    "asinh": torch.asinh,
    "acosh": torch.acosh,
    "atanh": torch.atanh,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "sinc": torch.sinc,
    "round": torch.round,
    "round_to_hundredths": lambda x: torch.round(x.clamp(-1e4, 1e4), decimals=2),
    "frac": torch.frac,
    "trunc": torch.trunc,
    "signbit": torch.signbit,
    "square_root_as_power": lambda x: x**0.5,
    "reciprocal_root_as_power": lambda x: x**-0.5,
    "squared": lambda x: x**2,
    "cubed": lambda x: x**3,
    "inverse": lambda x: x**-1,
    "inverse_square": lambda x: x**-2.0,
    "odd_power": lambda x: x**1.7,
    "power_of_minus_three": lambda x: torch.pow(-3.0, x),
    "clamp": lambda x: x.clamp(-1, 1),
    "clamp_reversed": lambda x: x.clamp(1, -1),
    "clamp_from_below": lambda x: x.clamp(min=0.5),
    "clamp_from_above": lambda x: x.clamp(max=0.5),
    "relu_then_clamp": lambda x: F.relu(x).clamp(max=6.0),
    "nan_to_num": torch.nan_to_num,
    "remainder": lambda x: x % 3,
    "remainder_of_minus": lambda x: x % -3.0,
    "remainder_of_a_tenth": lambda x: x % 0.1,
    "remainder_of_one": lambda x: x % 1.0,
    "remainder_of_a_number": lambda x: torch.remainder(5.0, x),
    "fmod": lambda x: torch.fmod(x, -0.7),
    "floor_divide": lambda x: x // 3,
    "floor_divide_by_a_tenth": lambda x: x // -0.1,
    "div_trunc": lambda x: torch.div(x, 3, rounding_mode="trunc"),
    "div_floor": lambda x: torch.div(x, 0.1, rounding_mode="floor"),
    "plus_1e-8": lambda x: 1 / (x.clamp(min=0).nan_to_num(0, 1e30) + 1e-8),
    "plus_1e-12": lambda x: (x * 0 + 1e-12).log(),
    "times_1.000001": lambda x: x * 1.000001 - x,
}

TWO: Mapping[str, Callable[..., Any]] = {
    "logaddexp": torch.logaddexp,
    "logaddexp2": torch.logaddexp2,
    "atan2": torch.atan2,
    "remainder": torch.remainder,
    "fmod": torch.fmod,
    "floor_divide": torch.floor_divide,
    "div_trunc": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    "div_floor": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "pow": torch.pow,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "fmax": torch.fmax,
    "fmin": torch.fmin,
    "copysign": torch.copysign,
    "isclose": torch.isclose,
    "isclose_with_nan": lambda x, y: torch.isclose(x, y, 1e-3, 1e-3, equal_nan=True),
    "where": lambda x, y: torch.where(x < y, x, y),
    "masked_fill": lambda x, y: x.masked_fill(y > 0, -math.inf),
    "clamp_by_tensors": lambda x, y: torch.clamp(x, min=y, max=-y),
    "xlogy": torch.xlogy,
    "xlog1py": torch.special.xlog1py,
    "xlogy_of_a_number": lambda x, y: torch.xlogy(x, 2.0) + torch.special.xlog1py(0.5, y),
    "bce_with_logits": lambda x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid().nan_to_num(), reduction="none"),
    "bce": lambda x, y: F.binary_cross_entropy(
        x.nan_to_num().clamp(0, 1), y.nan_to_num().clamp(0, 1), reduction="none"
    ),
    "soft_margin": lambda x, y: F.soft_margin_loss(x, y, reduction="none"),
}

LENGTHS = {"hypot": torch.hypot, "lerp": lambda x, y: torch.lerp(x, y, 0.3), "heaviside": torch.heaviside}

INTEGERS: Mapping[str, Callable[..., Any]] = {
    "remainder": torch.remainder,
    "fmod": torch.fmod,
    "floor_divide": torch.floor_divide,
    "div": torch.div,
    "div_trunc": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    "div_floor": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "div_trunc_3": lambda x, y: torch.div(x, 3, rounding_mode="trunc"),
    "remainder_3": lambda x, y: x % 3,
    "floor_divide_3": lambda x, y: x // 3,
    "remainder_of_a_number": lambda x, y: torch.remainder(17, y),
    "remainder_of_a_size": lambda x, y: x % x.shape[0],
    "remainder_2.5": lambda x, y: x % 2.5,
    "floor_divide_2.5": lambda x, y: torch.div(x, 2.5, rounding_mode="floor"),
    "and": torch.bitwise_and,
    "or": torch.bitwise_or,
    "xor": torch.bitwise_xor,
    "not": lambda x, y: ~x,
    "shift_left": lambda x, y: x << (y % 7),
    "shift_right": lambda x, y: x >> (y % 7),
    "shift_left_3": lambda x, y: x << 3,
    "shift_right_3": lambda x, y: x >> 3,
    "bits": lambda x, y: (x >> 4) & 15,
    "clamp": lambda x, y: x.clamp(-3, 100) if x.dtype != torch.uint8 else x.clamp(3, 100),
    "clamp_reversed": lambda x, y: x.clamp(5, 1),
    "amax": lambda x, y: x.amax(),
    "isin": lambda x, y: torch.isin(x, torch.tensor([1, 5, 7])),
    "sort": lambda x, y: torch.sort(x % 17, stable=True),
    "median": lambda x, y: torch.median(x % 17),
    "argmax": lambda x, y: (x % 17).argmax(),
}
SIGNED = {
    "minus_3": lambda x, y: (x % -3, x // -3, torch.fmod(x, -3)),
    "power": lambda x, y: ((x % 1000) ** 2, (x % 11) ** (y % 5)),
    "sums": lambda x, y: ((x % 1000).sum(), (x % 1000).cumsum(0), (x[:7] % 7).prod(), (x[:9] % 5).cumprod(0)),
    "sign": lambda x, y: (x.sign(), x.abs(), -x),
}


def _integers(dtype: Any, operators: Mapping[str, Callable[..., Any]]) -> Group:
    name = np.dtype(dtype).name
    return Group((Input("x", name, ("N",)), Input("y", name, ("N",))), (whole_pairs(dtype),), operators)


NORMAL = tuple(np.random.default_rng(2).normal(size=(2, 500)).astype(np.float32) * 5)
PAIRS: Arrays = tuple(np.concatenate(parts) for parts in zip(crossed(MEETING, MEETING), NORMAL, strict=True))
X = (Input("x", "float32", ("N",)),)
XY = (*X, Input("y", "float32", ("N",)))

GROUPS = {
    "one": Group(X, ((NUMBERS,),), ONE, floors={"gelu_tanh": 1e-7, "tanhshrink": 1e-6, "log_ndtr": 1e-7}),
    "two": Group(XY, (PAIRS,), TWO),
    "lengths": Group(XY, (finite(PAIRS),), LENGTHS),
    "int64": _integers(np.int64, {**INTEGERS, **SIGNED}),
    "int32": _integers(np.int32, {**INTEGERS, **SIGNED}),
    "uint8": _integers(np.uint8, INTEGERS),
}
