"""What Python and numpy make of sizes while a module is traced: symbols as long as that is possible.

``len(x)``, ``int(T / 2)`` and ``math.sqrt(T)`` give a number otherwise, and with it an axis freezes.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import nn

SYMBOLS = (torch.SymInt, torch.SymFloat)


@contextmanager
def functions_of_sizes() -> Iterator[None]:
    """Lets square roots of sizes be symbols, and logarithms, for which torch has no symbols, tensors."""
    symbols: Any = torch  # its stubs know numbers alone

    def root(x: Any, right: Any = math.sqrt) -> Any:
        return symbols._sym_sqrt(x) if isinstance(x, SYMBOLS) else right(x)

    def logarithm(x: Any, *base: Any, right: Any = math.log) -> Any:
        if not isinstance(x, SYMBOLS):
            return right(x, *base)
        return torch.log(symbols.scalar_tensor(x, dtype=torch.float64)) / right(*base or (math.e,))

    def with_base(base: int, right: Any) -> Any:
        return lambda x: logarithm(x, base) if isinstance(x, SYMBOLS) else right(x)

    changed = {"sqrt": root, "log": logarithm, "log2": with_base(2, math.log2), "log10": with_base(10, math.log10)}
    with ExitStack() as patched:
        for name, function in changed.items():
            patched.enter_context(mock.patch.object(math, name, function))
            for kind in SYMBOLS:  # numpy calls them as methods
                patched.enter_context(mock.patch.object(kind, name, function, create=True))
        yield


@contextmanager
def len_of_tensors() -> Iterator[None]:
    """Lets ``len(x)`` of a tensor be the size of its first axis."""
    right = len

    def length(value: Any) -> Any:
        return value.shape[0] if isinstance(value, torch.Tensor) and value.shape else right(value)

    with mock.patch("builtins.len", length):
        yield


class _Symbolic(type):
    """Of `_int` and `_float`: a call leaves symbols what they are."""

    def __call__(cls, value: Any = 0, *more: Any) -> Any:
        kind, symbolic = cls._stands_for()
        return symbolic(value) if isinstance(value, SYMBOLS) else kind(value, *more)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, cls._stands_for()[0])

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, cls._stands_for()[0])

    def _stands_for(cls) -> tuple[type, Any]:
        symbolic: Any = torch  # its stubs know numbers alone
        return (int, symbolic.sym_int) if "_int" in cls.__name__ else (float, symbolic.sym_float)


class _int(int, metaclass=_Symbolic):  # noqa: N801 - it stands in for Python's
    """Python's ``int``, but for sizes."""


class _float(float, metaclass=_Symbolic):  # noqa: N801 - it stands in for Python's
    """Python's ``float``, but for sizes."""


TYPED = {
    torch: (
        "arange", "as_tensor", "empty", "full", "full_like", "linspace", "ones", "ones_like", "randint", "sum",
        "tensor", "zeros", "zeros_like",
    ),
    torch.Tensor: ("cumsum", "new_empty", "new_full", "new_ones", "new_tensor", "new_zeros", "sum", "to", "type"),
}  # fmt: skip
"""Functions and methods that people give Python's ``int`` and ``float`` as a type."""


def _with_types(function: Any) -> Any:
    """A function that takes `_int` and `_float` for the types that they stand for."""

    def of_type(value: Any) -> Any:
        return torch.int64 if value is _int else torch.float64 if value is _float else value

    def typed(*args: Any, **kwargs: Any) -> Any:
        return function(*map(of_type, args), **{name: of_type(value) for name, value in kwargs.items()})

    return typed


@contextmanager
def int_of_sizes(module: nn.Module) -> Iterator[None]:
    """Lets ``int(T / 2)`` and ``float(T)`` be symbols in the code of a module and of its package."""
    kinds = {type(part) for part in module.modules()}
    code = {name for kind in kinds for name in (kind.__module__, inspect.unwrap(kind.forward).__module__)}
    packages = {name.partition(".")[0] for name in code} - {"torch", "exporters"}
    known = [
        (vars(file), kind)
        for name, file in list(sys.modules.items())
        for kind in (_int, _float)
        if name.partition(".")[0] in packages and isinstance(file, ModuleType) and kind.__name__[1:] not in vars(file)
    ]
    try:
        for names, kind in known:
            names[kind.__name__[1:]] = kind
        with ExitStack() as patched:
            for owner, functions in TYPED.items():
                for name in functions:
                    patched.enter_context(mock.patch.object(owner, name, _with_types(getattr(owner, name))))
            yield
    finally:
        for names, kind in known:
            del names[kind.__name__[1:]]
