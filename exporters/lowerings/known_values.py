"""Numbers that forward reads out of weights and buffers: ``int(self.k)``, ``if self.ready``, ``scale.exp().item()``.

While a module is traced its tensors have no numbers. Those that depend on no input have always the same ones, which are
worked out here from the module's own. So are windows and what linear algebra makes of weights, which ONNX has no
operators for.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree
from torch.utils._python_dispatch import _disable_current_modes

from exporters.purity import RandomOperators
from exporters.value_checks import passes

_READERS = (
    Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__, torch.is_nonzero,
    torch.equal, torch.allclose,
)  # fmt: skip


_QUESTIONS = (Tensor.__bool__, torch.is_nonzero, torch.equal, torch.allclose)
"""Those of them that answer yes or no."""

_WINDOWS = (torch.hamming_window, torch.blackman_window, torch.bartlett_window, torch.kaiser_window)
_OF_MATRICES = (torch.matrix_exp, torch.inverse, Tensor.inverse, torch.det, torch.svd, torch.cholesky_inverse)


class KnownValues(TorchFunctionMode):
    """While it lasts, numbers that depend on weights and buffers alone are read from a module's own.

    Args:
        module: Before it is traced.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = module
        self._numbers = dict(_tensors(module))
        # Tensors are kept with how they were made, so that no other one can get the identity of one that is gone.
        self._made: dict[int, tuple[Tensor, Any, Any, Any]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _READERS:
            found = self._read(func, args, kwargs)
            if found is not NotImplemented:
                return found
            if func in _QUESTIONS and (passed := passes(sys._getframe(1))) is not None:
                return passed
        if func in _WINDOWS + _OF_MATRICES or getattr(func, "__name__", "").startswith("linalg_"):
            found = self._read(func, args, kwargs)  # of what depends on weights alone ONNX needs the numbers only
            if found is not NotImplemented:
                return _pytree.tree_map_only(Tensor, lambda one: torch.tensor(one.tolist(), dtype=one.dtype), found)
        answer = func(*args, **kwargs)
        if _is_in_place(getattr(func, "__name__", "")):
            self._made[id(args[0])] = (args[0], None, args, kwargs)  # changed in place: no longer what it was made as
        elif isinstance(answer, Tensor):
            self._made[id(answer)] = (answer, func, args, kwargs)
        return answer

    def _read(self, func: Any, args: Any, kwargs: Any) -> Any:
        known = {id(tensor): self._numbers[name] for name, tensor in _tensors(self._module) if name in self._numbers}
        try:
            with torch._C.DisableTorchFunction(), _disable_current_modes(), RandomOperators() as watched:
                given, more = self._numbers_of((args, kwargs), known)
                found = func(*given, **more)
        except (_UnknownError, RecursionError):
            return NotImplemented
        return NotImplemented if watched.found else found

    def _numbers_of(self, tree: Any, known: dict[int, Any]) -> Any:
        """Arguments with numbers in the place of traced tensors; those that are worked out join ``known``."""

        def number(leaf: Any) -> Any:
            if isinstance(leaf, torch.SymInt | torch.SymFloat | torch.SymBool):
                raise _UnknownError
            if not isinstance(leaf, Tensor):
                return leaf
            func: Any
            _, func, args, kwargs = self._made.get(id(leaf), (None, None, (), {}))
            if func is None and (id(leaf) in self._made or id(leaf) not in known):
                raise _UnknownError
            if id(leaf) not in known:
                given, more = self._numbers_of((args, kwargs), known)
                known[id(leaf)] = func(*given, **more)
            return known[id(leaf)]

        return _pytree.tree_map(number, tree)


class _UnknownError(Exception):
    """A tensor depends on an input."""


def _is_in_place(name: str) -> bool:
    operator = name.startswith("__i") and hasattr(Tensor, f"__{name[3:]}")
    return operator or name == "__setitem__" or (name.endswith("_") and not name.startswith("__"))


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]
