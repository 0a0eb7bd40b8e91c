"""Complex numbers as pairs of real ones, before a program is written in ONNX, which has no complex operators.

torch.onnx knows some operators on complex numbers, and neither ``z[:, :k] = w`` nor ``z * 1j`` nor ``z.exp()``. Here a
traced program is run once more while it is traced, each complex value as its real and its imaginary part. Only Fourier
transforms get and give complex tensors; for those there is an operator.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import traceback as fx_traceback
from torch.utils import _pytree

from exporters.calling import with_forward


@dataclass(frozen=True, slots=True)
class Pair:
    """The two parts of a complex tensor."""

    re: Tensor
    im: Tensor


PARTWISE = frozenset(
    ("alias", "cat", "chunk", "clone", "constant_pad_nd", "contiguous", "copy", "cumsum", "detach", "diag_embed",
     "diagonal", "expand", "expand_as", "fill", "flatten", "flip", "gather", "index", "index_add", "index_put",
     "index_select", "lift_fresh_copy", "masked_fill", "mean", "movedim", "narrow", "neg", "pad", "permute", "repeat",
     "repeat_interleave", "reshape", "roll", "scatter", "select", "select_scatter", "slice", "slice_scatter", "split",
     "split_with_sizes", "squeeze", "stack", "sum", "t", "tile", "transpose", "tril", "triu", "unbind", "unflatten",
     "unfold", "unsqueeze", "view", "view_as", "where", "_unsafe_view", "zero")
)  # fmt: skip
"""Operators that do to each part what they do to the whole."""

VALUED = {"fill": 1, "masked_fill": 2, "where": 1, "constant_pad_nd": 2}
"""Those of them whose arguments from some place on may be a number of the same kind."""

PRODUCTS = frozenset(("mul", "matmul", "mm", "bmm", "mv", "dot", "outer"))

FACTORIES = frozenset(
    ("empty", "empty_like", "eye", "full", "full_like", "new_empty", "new_full", "new_ones", "new_zeros", "ones",
     "ones_like", "scalar_tensor", "zeros", "zeros_like")
)  # fmt: skip


def has_complex(program: torch.export.ExportedProgram) -> bool:
    """Whether a traced program computes with complex numbers."""
    return any(_is_complex(node.meta.get("val")) for node in program.graph.nodes)


def _is_complex(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.is_complex() for leaf in _pytree.tree_leaves(value))


@contextmanager
def as_pairs(module: nn.Module, program: torch.export.ExportedProgram) -> Iterator[None]:
    """While it lasts, a module runs as a program that was traced of it, without complex numbers.

    Args:
        module: It is left as it was.
        program: Traced of the module.
    """

    def forward(*tensors: Tensor) -> Any:
        with fx_traceback.preserve_node_meta():
            return _Pairs(program.module(check_guards=False), module).run(*tensors)

    with with_forward(module, forward):
        yield


class _Pairs(torch.fx.Interpreter):
    """Runs a program with pairs for its complex values, and with the weights of a module."""

    def __init__(self, program: torch.fx.GraphModule, owner: nn.Module) -> None:
        super().__init__(program)
        self._owner = owner

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        found: Any = self._owner
        for name in target.split("."):
            found = getattr(found, name, None)
        found = found if isinstance(found, Tensor) else super().get_attr(target, args, kwargs)
        return _split(found)

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        return _split(super().placeholder(target, args, kwargs))

    def output(self, target: Any, args: Any, kwargs: Any) -> Any:
        return super().output(target, _whole(args), kwargs)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        name = getattr(target, "_opname", "")
        leaves = _pytree.tree_leaves((args, kwargs))
        pairs = any(isinstance(leaf, Pair) for leaf in leaves)
        if name in FACTORIES and _asks_for_complex(args, kwargs):
            return _made(target, args, kwargs)
        if not pairs and not any(isinstance(leaf, complex) for leaf in leaves) and name not in _OF_REAL:
            return _split(super().call_function(target, args, kwargs))
        plain = name.removesuffix("_") if name != "_" else name
        found = _computed(target, plain, args, kwargs)
        if found is NotImplemented:
            return _split(super().call_function(target, *_whole((args, kwargs))))
        if name.endswith("_") and plain not in PARTWISE and isinstance(args[0], Pair):
            args[0].re.copy_(found.re)
            args[0].im.copy_(found.im)
            return args[0]
        return found


def _asks_for_complex(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    dtype = kwargs.get("dtype")
    like = isinstance(args[0], Pair) if args else False
    return bool(dtype.is_complex if dtype is not None else like)


def _made(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Pair:
    """A new tensor: its parts are made as it would be."""
    dtype = kwargs.get("dtype") or (args[0].re.dtype.to_complex() if isinstance(args[0], Pair) else None)
    more = dict(kwargs) | {"dtype": dtype.to_real() if dtype is not None else None}

    def part(index: int) -> Any:
        filled = _pytree.tree_map(lambda leaf: _part(leaf, index) if isinstance(leaf, Pair | complex) else leaf, args)
        made = target(*filled, **more)
        return made if index == 0 or any(isinstance(leaf, complex) for leaf in args) else torch.zeros_like(made)

    return Pair(part(0), part(1))


def _computed(target: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if name in PARTWISE:
        return _partwise(target, name, args, kwargs)
    if name in PRODUCTS and not kwargs and len(args) == 2:
        return _product(functools.partial(_functional(target)), *args)
    form = _FORMS.get(name)
    return NotImplemented if form is None else form(*args, **kwargs)


def _functional(target: Any) -> Any:
    """The operator that does not change its first argument."""
    if not target._schema.is_mutable:
        return target
    return getattr(getattr(torch.ops.aten, target._opname[:-1]), target._overloadname)


def _partwise(target: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if isinstance(args[0], Tensor) and target._schema.is_mutable:
        return NotImplemented
    first = VALUED.get(name, len(args))

    def part(index: int) -> Any:
        def of(leaf: Any) -> Any:
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                return leaf if index == 0 else torch.zeros_like(leaf)
            return _part(leaf, index) if isinstance(leaf, Pair | complex) else leaf

        def number(leaf: Any) -> Any:
            return _part(leaf, index) if isinstance(leaf, int | float) and not isinstance(leaf, bool) else leaf

        given = [of(arg) if not isinstance(arg, list | tuple) else _pytree.tree_map(of, arg) for arg in args]
        given[first:] = [number(arg) for arg in given[first:]]
        more = {key: _pytree.tree_map(of, value) for key, value in kwargs.items()}
        if "dtype" in more and isinstance(more["dtype"], torch.dtype):
            more["dtype"] = more["dtype"].to_real()
        return target(*given, **more)

    re, im = part(0), part(1)
    if isinstance(re, Tensor):
        return Pair(re, im)
    return [Pair(one, other) for one, other in zip(re, im, strict=True)]


def _part(value: Any, index: int) -> Any:
    if isinstance(value, Pair):
        return value.im if index else value.re
    number = complex(value)
    return number.imag if index else number.real


def _split(value: Any) -> Any:
    """Pairs instead of the complex tensors in a value."""

    def pair(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_complex():
            return leaf
        parts = torch.view_as_real(leaf.resolve_conj())
        return Pair(parts.select(-1, 0), parts.select(-1, 1))

    return _pytree.tree_map(pair, value)


def _whole(value: Any) -> Any:
    """Complex tensors instead of the pairs in a value."""
    return _pytree.tree_map(lambda leaf: torch.complex(leaf.re, leaf.im) if isinstance(leaf, Pair) else leaf, value)


def _product(multiply: Callable[..., Any], x: Any, y: Any) -> Any:
    x, y = (value if isinstance(value, Pair | complex) else (value, None) for value in (x, y))
    (a, b), (c, d) = (_parts(value) for value in (x, y))
    if b is None:
        return Pair(multiply(a, c), multiply(a, d))
    if d is None:
        return Pair(multiply(a, c), multiply(b, c))
    return Pair(multiply(a, c) - multiply(b, d), multiply(a, d) + multiply(b, c))


def _parts(value: Any) -> tuple[Any, Any]:
    """Real and imaginary part; None for that of a real number."""
    if isinstance(value, tuple):
        return value
    if isinstance(value, Pair):
        return value.re, value.im
    return (value.real, value.imag) if isinstance(value, complex) else (value, None)


def _sum(x: Any, y: Any, alpha: Any = 1, *, sign: int = 1) -> Pair:
    (a, b), (c, d) = _parts(x), _parts(y)
    scale = sign * alpha
    re = a + scale * c
    of_other = torch.zeros_like(re) if d is None else scale * d + torch.zeros_like(re)
    return Pair(re, of_other if b is None else b + of_other)


def _quotient(x: Any, y: Any, rounding_mode: None = None) -> Any:
    c, d = _parts(y)
    if d is None:
        return Pair(x.re / c, x.im / c)
    size = c * c + d * d
    return _product(torch.mul, x, Pair(c / size, -d / size) if isinstance(y, Pair) else complex(c, -d) / size)


def _size(z: Pair) -> Tensor:
    """The absolute value, without squares that leave float32."""
    a, b = z.re.abs(), z.im.abs()
    most = torch.maximum(a, b)
    least = torch.minimum(a, b)
    ratio = least / torch.where(most > 0, most, torch.ones_like(most))
    return most * (1 + ratio * ratio).sqrt()


def _polar(size: Tensor, angle: Tensor) -> Pair:
    return Pair(size * angle.cos(), size * angle.sin())


def _exponential(z: Pair) -> Pair:
    return _polar(z.re.exp(), z.im)


def _root(z: Pair) -> Pair:
    return _polar(_size(z).sqrt(), torch.atan2(z.im, z.re) / 2)


def _power(z: Any, exponent: Any) -> Any:
    if not isinstance(z, Pair) or not isinstance(exponent, int) or not 1 <= exponent <= 4:
        return NotImplemented
    found = z
    for _ in range(exponent - 1):
        found = _product(torch.mul, found, z)
    return found


def _sign(z: Pair) -> Pair:
    size = _size(z)
    size = torch.where(size > 0, size, torch.ones_like(size))
    return Pair(z.re / size, z.im / size)


def _cast(x: Any, dtype: Any = None, *rest: Any, **more: Any) -> Any:
    """``to`` with a type; of a complex number to a real one the real part stays."""
    wanted = more.get("dtype", dtype)
    if not isinstance(wanted, torch.dtype):
        return x if isinstance(x, Pair) else NotImplemented
    re, im = _parts(x)
    if not wanted.is_complex:
        return re.to(wanted)
    real = wanted.to_real()
    return Pair(re.to(real), torch.zeros_like(re, dtype=real) if im is None else im.to(real))


def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    product = _product(torch.nn.functional.linear, x, weight)
    return product if bias is None else _sum(product, bias)


def _einsum(equation: str, operands: Sequence[Any], **more: Any) -> Any:
    if len(operands) != 2:
        return NotImplemented
    return _product(lambda a, b: torch.einsum(equation, a, b), *operands)


_FORMS: dict[str, Callable[..., Any]] = {
    "abs": _size,
    "absolute": _size,
    "add": _sum,
    "angle": lambda z: torch.atan2(z.im, z.re),
    "complex": Pair,
    "conj": lambda z: Pair(z.re, -z.im),
    "_conj": lambda z: Pair(z.re, -z.im),
    "conj_physical": lambda z: Pair(z.re, -z.im),
    "_conj_physical": lambda z: Pair(z.re, -z.im),
    "div": _quotient,
    "einsum": _einsum,
    "exp": _exponential,
    "imag": lambda z: z.im,
    "linear": _linear,
    "log": lambda z: Pair(_size(z).log(), torch.atan2(z.im, z.re)),
    "polar": _polar,
    "pow": _power,
    "real": lambda z: z.re,
    "reciprocal": lambda z: _quotient(Pair(torch.ones_like(z.re), torch.zeros_like(z.re)), z),
    "resolve_conj": lambda z: z,
    "resolve_neg": lambda z: z,
    "rsub": lambda x, y, alpha=1: _sum(y, x, alpha, sign=-1),
    "sgn": _sign,
    "sqrt": _root,
    "square": lambda z: _product(torch.mul, z, z),
    "sub": functools.partial(_sum, sign=-1),
    "to": _cast,
    "_to_copy": _cast,
    "view_as_complex": lambda x: Pair(x.select(-1, 0), x.select(-1, 1)),
    "view_as_real": lambda z: torch.stack([z.re, z.im], -1),
}

_OF_REAL = frozenset(("complex", "polar", "view_as_complex"))
"""Operators that make complex numbers of real ones."""
