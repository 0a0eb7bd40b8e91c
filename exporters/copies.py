"""Fresh copies of a user's module, which neither tracing nor an earlier call has touched."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import CellType, FunctionType, MethodType
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from exporters.errors import GuardError

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def plain(module: nn.Module) -> nn.Module:
    """The user's own module: of a compiled or wrapped one, what lies inside.

    Raises:
        GuardError: it is a TorchScript module or no module at all.
    """
    if not isinstance(module, nn.Module):
        raise GuardError(f"expected a torch.nn.Module, found {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule):
        raise GuardError(
            f"{type(module).__name__} is a TorchScript module (torch.jit.script or torch.jit.trace), which keeps no "
            "Python code to export; export the nn.Module that it was made from"
        )
    inner = getattr(module, "_orig_mod", None)  # torch.compile
    if isinstance(inner, nn.Module):
        return plain(inner)
    if isinstance(module, _WRAPPERS):
        return plain(module.module)
    for name, part in module.named_modules():
        packed = type(part).__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized"))
        if packed and type(part).__name__ != "FloatFunctional":  # which adds and multiplies floats
            raise GuardError(
                f"{name or 'the module'} is quantised ({type(part).__name__}): its weights are packed for torch's own "
                "kernels. Export the float network and quantise the bundle (edgedl quantize)"
            )
        if any(isinstance(parameter, nn.UninitializedParameter) for parameter in part.parameters(recurse=False)):
            raise GuardError(
                f"{name or 'the module'} is a lazy layer ({type(part).__name__}) that has not seen an input yet; call "
                "the module once before it is exported"
            )
        if isinstance(part, torch.jit.ScriptModule):
            raise GuardError(
                f"the submodule {name} is a TorchScript module (torch.jit.script or torch.jit.trace), which keeps no "
                "Python code to export; put the nn.Module that it was made from in its place"
            )
    return module


def fresh(module: nn.Module) -> nn.Module:
    """A copy in evaluation without gradients. Tensors that are kept from a forward pass are copied as they are.

    Raises:
        GuardError: the module cannot be copied.
    """
    try:
        # A tensor that was computed (an old weight_norm's weight, a cached activation) has no copy of its own: torch
        # refuses, because its gradients would be lost. Nothing is learnt here.
        kept = {id(tensor): tensor.detach().clone() for tensor in _computed(module)}
        return duplicate(module, dict(kept)).requires_grad_(False)
    except Exception as error:
        raise GuardError(
            f"the module cannot be copied ({type(error).__name__}: {error}). A parity gate compares fresh copies of "
            "it: keep open files, locks, sessions and generators out of its attributes"
        ) from error


def duplicate(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A deep copy of a module whose hooks and other functions have the copy in mind.

    Python's copies share their functions. A hook that closes over the module, or over a list that it keeps, would act
    on the module that was copied.

    Args:
        module: What to copy.
        memo: Of `copy.deepcopy`: by identity, what not to copy but to put in the place of something.
    """
    copied = copy.deepcopy(module, memo)
    rebound = _Rebound(memo)
    for part in copied.modules():
        for name, value in list(vars(part).items()):
            if name not in ("_parameters", "_buffers", "_modules"):
                vars(part)[name] = rebound(value)
    return copied


class _Rebound:
    """Puts copies in the place of what functions close over.

    Args:
        memo: What was copied, by the identity of what it was.
    """

    def __init__(self, memo: Mapping[int, Any]) -> None:
        self._memo = memo
        self._seen: dict[int, Any] = {}

    def __call__(self, value: Any) -> Any:
        """The same value, or another one where something in it was copied; dicts and lists are changed in place."""
        if isinstance(value, dict):
            for key, item in list(value.items()):
                value[key] = self(item)
        elif type(value) is list:
            value[:] = [self(item) for item in value]
        elif type(value) is tuple:
            return tuple(self(item) for item in value)
        elif isinstance(value, functools.partial):
            return functools.partial(self(value.func), *value.args, **value.keywords)
        elif isinstance(value, FunctionType) and value.__closure__:
            return self._function(value)
        return value

    def _function(self, function: FunctionType) -> FunctionType:
        if id(function) in self._seen:
            return self._seen[id(function)]  # type: ignore[no-any-return]
        cells = function.__closure__ or ()
        others = tuple(CellType() for _ in cells)
        made = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, others)
        made.__dict__.update(function.__dict__)
        made.__kwdefaults__, made.__qualname__ = function.__kwdefaults__, function.__qualname__
        made.__module__, made.__annotations__ = function.__module__, function.__annotations__
        self._seen[id(function)] = made  # before its cells, which may hold the function itself
        changed = False
        for cell, other in zip(cells, others, strict=True):
            with suppress(ValueError):  # an empty cell
                other.cell_contents = self._copied(cell.cell_contents)
                changed |= other.cell_contents is not cell.cell_contents
        if not changed:
            self._seen[id(function)] = function
        return self._seen[id(function)]  # type: ignore[no-any-return]

    def _copied(self, value: Any) -> Any:
        """What a function is to close over: the copy, where there is one."""
        if id(value) in self._memo:
            return self._memo[id(value)]
        if isinstance(value, MethodType) and id(value.__self__) in self._memo:
            return MethodType(value.__func__, self._memo[id(value.__self__)])
        if isinstance(value, FunctionType) and value.__closure__:
            return self._function(value)
        return value


def without_parametrizations(module: nn.Module) -> nn.Module:
    """Puts the weights that parametrisations compute (weight_norm, orthogonal) in their place, in a copy of its own.

    They depend on weights alone, and ONNX has no form for some of them. torch's own function takes them out of the
    class, which all copies share.
    """
    for part in list(module.modules()):
        if parametrize.is_parametrized(part):
            parametrised = cast(nn.ModuleDict, part.parametrizations)
            computed = {name: getattr(part, name).detach() for name in parametrised}
            part.__class__ = parametrize.type_before_parametrizations(part)
            del part._modules["parametrizations"]
            for name, value in computed.items():
                part.register_parameter(name, nn.Parameter(value, requires_grad=False))
    return module


def _computed(module: nn.Module) -> Iterator[torch.Tensor]:
    """The tensors in the attributes of a module that carry a graph of how they were computed."""
    seen: set[int] = set()
    waiting: list[Any] = [vars(part) for part in module.modules()]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            if not value.is_leaf:
                yield value
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
