"""Where reference answers come from: the user's own module, in a fresh copy for every case.

A copy that tracing or an earlier case has touched may answer otherwise: a table that is kept in an attribute holds the
numbers of whatever came first. Parameters are shared between the copies, everything else is a copy's own.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree

from exporters.calling import Call, bind, check_call, flatten, named_answers
from exporters.copies import duplicate, fresh, plain, without_parametrizations
from exporters.errors import GuardError
from exporters.precision import NarrowCasts, computing_in, in_dtype, own_dtype, short
from exporters.purity import check_function
from exporters.reference import Arrays
from exporters.spec import Case, Signature, bind_sizes
from exporters.ties import Ties


class TorchRefusalError(GuardError):
    """``forward`` itself raises; the sizes or values are none that the network takes."""


class Source(Protocol):
    """Where reference answers come from.

    Attributes:
        signature: As declared.
        name: What answers, for messages.
        tied: The operator that chose among equal values in the last call in float64.
    """

    signature: Signature
    name: str
    tied: str | None

    def answers(self, case: Case, dtype: torch.dtype) -> Arrays:
        """The answers to a case, computed in a float type."""

    def unrounded(self, case: Case) -> Arrays | None:
        """The answers in float64 without the narrower casts that the network asks for; None where it asks for none."""


class ModuleSource:
    """A module with a way to call it.

    Args:
        module: In evaluation mode, on the CPU. It is not changed.
        signature: As declared.
        call: How ``forward`` takes the inputs; None finds out.

    Raises:
        GuardError: the module cannot be copied.
    """

    def __init__(self, module: nn.Module, signature: Signature, call: Call | None = None) -> None:
        self.module = plain(module)
        self.signature = signature
        self.own = own_dtype(self.module)
        halves = [tensor.name for tensor in signature.tensors if tensor.dtype == "float16"]
        if halves and self.own in (torch.float16, torch.bfloat16):
            raise GuardError(
                f"{', '.join(halves)}: declared is float16, but a network in half precision becomes a float32 graph; "
                "declare float32"
            )
        self._masters: dict[torch.dtype, nn.Module] = {}
        self._operators = True
        self.tied: str | None = None
        self.narrow = NarrowCasts(self.own)
        self.name = "torch"
        if call is not None:
            check_call(call, signature.inputs)
        self._call = call

    def copied(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """A fresh copy that computes in a float type; call it under `computing_in`."""
        if dtype not in self._masters:
            self._masters[dtype] = in_dtype(fresh(self.module), dtype, self.own)
        master = self._masters[dtype]
        return duplicate(master, {id(parameter): parameter for parameter in master.parameters()})

    def settle(self, case: Case) -> Call:
        """Finds out how ``forward`` takes the inputs, by a case, unless it was said.

        Raises:
            GuardError: no way of calling it works.
        """
        if self._call is None:

            def works(call: Call) -> str | None:
                try:
                    self._run(self.copied(), call, case, torch.float32)
                except GuardError as error:
                    return str(error)
                return None

            self._call = bind(self.module, self.signature.inputs, works)
        return self._call

    def answers(self, case: Case, dtype: torch.dtype) -> Arrays:
        """What the module answers to a case, computed in a float type.

        Raises:
            TorchRefusalError: forward itself raises.
            GuardError: what it returns is not what was declared.
        """
        return self._run(self.copied(dtype), self.settle(case), case, dtype)

    def unrounded(self, case: Case) -> Arrays | None:
        """See `Source.unrounded`."""
        if not self.narrow.casts:
            return None
        module, call = self.copied(torch.float64), self.settle(case)
        return self._named(self._called(module, call, case, torch.float64, rounding=False), case)

    def check_function(self, cases: Sequence[Case]) -> None:
        """Refuses randomness, and a state that reaches an answer; see `exporters.purity`.

        Raises:
            GuardError: the module is not a function of its inputs.
        """
        first, second = cases[0], cases[-1]
        call = self.settle(first)
        with NarrowCasts(self.own) as self.narrow:
            self._run(self.copied(), call, first, torch.float32)
        check_function(
            self.module,
            self.copied,
            lambda module, case: self._run(module, call, case, torch.float32),
            first,
            second,
        )

    def check_fast_path(self, cases: Sequence[Case], answers: Sequence[Arrays]) -> None:
        """Refuses an encoder of torch whose fast path answers zeros for padded steps, or cuts them off.

        Raises:
            GuardError: its layers themselves answer otherwise in a case.
        """
        if not any(
            isinstance(part, nn.TransformerEncoder) and part.use_nested_tensor for part in self.module.modules()
        ):
            return
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            plainly = [self.answers(case, torch.float32) for case in cases]
        finally:
            torch.backends.mha.set_fastpath_enabled(before)
        for case, one, other in zip(cases, answers, plainly, strict=True):
            for name in one:
                near = one[name].shape == other[name].shape
                if not near or not np.allclose(one[name], other[name], rtol=1e-2, atol=1e-2, equal_nan=True):
                    raise GuardError(
                        f"output {name}, case {case.name!r}: torch has a fast path for nn.TransformerEncoder, which "
                        "answers zeros for padded steps; its layers answer otherwise. Build it with "
                        "enable_nested_tensor=False, or call torch.backends.mha.set_fastpath_enabled(False), so that "
                        "there is one answer"
                    )

    def traceable(self, case: Case) -> nn.Module:
        """A fresh copy in float32 whose forward takes the inputs and returns the outputs in the order declared.

        Args:
            case: Any case, to see in which order the answers come.
        """
        call, copied = self.settle(case), self.copied()
        names = [tensor.name for tensor in self.signature.inputs]
        returned = self._called(copied, call, case, torch.float32)
        kept = named_answers(returned, self.signature.outputs)
        leaves = [leaf for leaf in _pytree.tree_leaves(returned) if isinstance(leaf, Tensor)]
        in_order = len(leaves) == len(kept) and all(a is b for a, b in zip(leaves, kept.values(), strict=True))
        copied = without_parametrizations(self.copied())
        parameters = inspect.signature(copied.forward).parameters.values()
        as_declared = call == Call(tuple(names)) and all(one.kind is not one.VAR_POSITIONAL for one in parameters)
        return copied if in_order and as_declared else flatten(copied, self.signature, call)

    def _run(self, module: nn.Module, call: Call, case: Case, dtype: torch.dtype) -> Arrays:
        return self._named(self._called(module, call, case, dtype), case)

    def _called(self, module: nn.Module, call: Call, case: Case, dtype: torch.dtype, rounding: bool = True) -> object:
        tensors: dict[str, Tensor] = {}
        for tensor in self.signature.inputs:
            given = torch.from_numpy(case.inputs[tensor.name].copy())
            tensors[tensor.name] = given.to(dtype) if given.is_floating_point() else given
        args, kwargs = call.fill(tensors)
        try:
            computing = computing_in(dtype, self.own, operators=self._operators, rounding=rounding)
            with torch.no_grad(), computing, mock.patch.object(torch, "cond", _one_way), ExitStack() as watch:
                ties = watch.enter_context(Ties()) if dtype == torch.float64 and self._operators else None
                returned = module(*args, **kwargs)
            self.tied = ties and ties.found
            return returned
        # Whatever forward raises is told with the case that made it.
        except Exception as error:
            if self._operators and re.search("higher.?order", str(error), re.IGNORECASE):
                self._operators = False  # torch.cond and its kin do not run under a mode of operators
                return self._called(module, call, case, dtype, rounding)
            lines = str(error).strip().splitlines()
            raise TorchRefusalError(
                f"case {case.name!r}: forward itself fails in torch {short(dtype)}: {type(error).__name__}: "
                f"{lines[0] if lines else ''}"
            ) from error

    def _named(self, returned: object, case: Case) -> Arrays:
        arrays: Arrays = {}
        for name, tensor in named_answers(returned, self.signature.outputs).items():
            declared = np.dtype(next(output.dtype for output in self.signature.outputs if output.name == name))
            if tensor.dtype == torch.bfloat16:
                tensor = tensor.float()
            array = tensor.numpy(force=True).copy()
            if (array.dtype.kind, declared.kind) != ("f", "f") and array.dtype != declared:
                raise GuardError(f"output {name} is {array.dtype} in torch, declared is {declared}")
            arrays[name] = array
        shapes = {tensor.name: tensor.shape for tensor in self.signature.tensors}
        try:
            bind_sizes(shapes, {**case.inputs, **arrays})
        except ValueError as error:
            raise GuardError(
                f"case {case.name!r}: {error}. The declaration does not hold there, or forward takes another way at "
                "this size (squeeze() drops every axis of size 1, a condition on a size branches)"
            ) from error
        return arrays


def _one_way(condition: Any, true: Any, false: Any, operands: Any = ()) -> Any:
    """What `torch.cond` answers. torch compiles it, which it does not do under modes."""
    return (true if condition else false)(*operands)


def has_nan(arrays: Mapping[str, Any]) -> str | None:
    """The first output that holds NaN."""
    return next((name for name, array in arrays.items() if array.dtype.kind == "f" and np.isnan(array).any()), None)
