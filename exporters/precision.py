"""The float type that a network computes in, exchanged for another while it runs.

A reference in float64 is worth something only if nothing in the network rounds to float32 on the way. Published code
says ``x.float()``, ``dtype=torch.float32`` and ``torch.zeros(n)``; RMSNorm and soft-max with a ``dtype`` do so inside
of torch. While a network runs under `computing_in`, what asks for its own float type gets the other one.
A cast to a narrower type stays what it is, because it changes the answers that the network gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from exporters.places import current_line

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""From wide to narrow."""

_CASTS: Mapping[Any, torch.dtype] = {
    torch.Tensor.float: torch.float32,
    torch.Tensor.double: torch.float64,
    torch.Tensor.half: torch.float16,
    torch.Tensor.bfloat16: torch.bfloat16,
}

_LAYERS = frozenset({torch.gru, torch.lstm, torch.rnn_relu, torch.rnn_tanh})
"""Recurrent layers keep the type of what they are given, and choose nothing. Watched operator by operator, each step
costs ten times as much, and a range of 65,536 steps cannot be swept within the budget."""


def own_dtype(module: nn.Module) -> torch.dtype:
    """The float type of most of a network's parameters and buffers; float32 where it has none."""
    counts: dict[torch.dtype, int] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.numel()
    return max(counts, key=lambda dtype: counts[dtype], default=torch.float32)


class _Functions(TorchFunctionMode):
    """Exchanges the float types that Python code asks for."""

    def __init__(self, exchanged: Mapping[torch.dtype, torch.dtype]) -> None:
        super().__init__()
        self._exchanged = exchanged

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _CASTS:
            wanted = _CASTS[func]
            return args[0].to(self._exchanged.get(wanted, wanted), **(kwargs or {}))
        if func in _LAYERS:
            with _disable_current_modes():
                return func(*args, **(kwargs or {}))
        return func(*_exchange(args, self._exchanged), **_exchange(kwargs or {}, self._exchanged))


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Exchanges the float types that operators inside of torch ask for."""

    def __init__(self, exchanged: Mapping[torch.dtype, torch.dtype]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._exchanged = exchanged

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*_exchange(args, self._exchanged), **_exchange(kwargs or {}, self._exchanged))


class NarrowCasts(TorchFunctionMode):
    """Watches for float types narrower than the network's own, and notes the user's lines.

    Attributes:
        casts: What is cast, with the line.
        regions: The regions of autocast.
    """

    def __init__(self, own: torch.dtype) -> None:
        super().__init__()
        self.casts: list[str] = []
        self.regions: list[str] = []
        self._narrow = FLOATS[FLOATS.index(own) + 1 :]

    def __enter__(self) -> NarrowCasts:
        _watching.append(self)
        return super().__enter__()  # type: ignore[no-any-return, no-untyped-call]

    def __exit__(self, *raised: Any) -> None:
        _watching.remove(self)
        super().__exit__(*raised)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        wanted = [_CASTS.get(func), *args, *(kwargs or {}).values()]
        found = next((one for one in wanted if isinstance(one, torch.dtype) and one in self._narrow), None)
        if found is not None:
            self.note(short(found), self.casts)
        return func(*args, **(kwargs or {}))

    def note(self, what: str, among: list[str]) -> None:
        """Keeps something with the line that is being run, once."""
        told = f"{what} at {current_line() or 'forward'}"
        if told not in among:
            among.append(told)

    def told(self) -> list[str]:
        """What a report has to say of it."""
        notes = [f"rounded as forward asks for it: {', '.join(self.casts[:3])}"] if self.casts else []
        if self.regions:
            notes.append(f"computed in the network's own type: {', '.join(self.regions[:3])}")
        return notes


_watching: list[NarrowCasts] = []


def short(dtype: torch.dtype) -> str:
    """The name of a type without ``torch.``."""
    return str(dtype).removeprefix("torch.")


@contextmanager
def computing_in(
    dtype: torch.dtype, own: torch.dtype, *, operators: bool = True, rounding: bool = True
) -> Iterator[None]:
    """While it lasts, code that asks for the float type ``own`` gets ``dtype``.

    Args:
        dtype: What is computed in.
        own: The network's float type. Wider types are exchanged as well, as far as ``dtype`` is not narrower.
        operators: Exchange it inside of torch, too. Off for control flow such as ``torch.cond``, which torch does not
            run under a mode of operators.
        rounding: Leave narrower types what they are. Off, they are exchanged as well.
    """
    width = FLOATS.index
    last = width(own) if rounding else len(FLOATS)
    wider = {wanted for wanted in FLOATS if width(dtype) <= width(wanted) <= last}
    exchanged = {wanted: dtype for wanted in wider | {own} if wanted != dtype}
    if exchanged and complex_of(own) != complex_of(dtype):
        exchanged[complex_of(own)] = complex_of(dtype)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with (
            mock.patch.object(torch.amp.autocast_mode.autocast, "__enter__", _without_autocast),
            mock.patch.object(torch, "embedding_bag", _bags),
        ):
            if not exchanged:
                yield
            elif operators:
                with _Operators(exchanged), _Functions(exchanged):
                    yield
            else:
                with _Functions(exchanged):
                    yield
    finally:
        torch.set_default_dtype(before)


_embedding_bag = torch.embedding_bag


def _bags(weight: torch.Tensor, ids: torch.Tensor, offsets: torch.Tensor, *rest: Any, **more: Any) -> Any:
    """Raises where torch reads memory that is not its own and ends the process: ids that lie in no bag."""
    if isinstance(offsets.shape[0], int) and offsets.shape[0] == 0 and ids.shape[0] > 0:
        raise RuntimeError("embedding_bag has ids and no bag")
    return _embedding_bag(weight, ids, offsets, *rest, **more)


_enter_autocast = torch.amp.autocast_mode.autocast.__enter__


def _without_autocast(self: Any) -> Any:
    """A region of autocast computes in the network's own type: what it rounds is no part of the network."""
    if self._enabled and _watching:
        _watching[-1].note(f"autocast to {short(self.fast_dtype)}", _watching[-1].regions)
    self._enabled = False
    return _enter_autocast(self)  # type: ignore[no-untyped-call]  # torch's own


def in_dtype(module: nn.Module, dtype: torch.dtype, own: torch.dtype) -> nn.Module:
    """Casts the parameters, the buffers and the plain tensor attributes of a network's own float type, in place."""

    def cast(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_complex():  # to a real type, it would lose its imaginary part
            return tensor.to(complex_of(dtype))
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    module._apply(cast)  # type: ignore[no-untyped-call]  # torch's own
    for part in module.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, torch.Tensor) and value.dtype in (own, torch.float32, torch.complex64):
                setattr(part, name, cast(value))
    return module


def complex_of(dtype: torch.dtype) -> torch.dtype:
    """The complex type whose parts are of a float type, or the narrowest that every operator has."""
    return torch.complex128 if dtype == torch.float64 else torch.complex64


def _exchange(value: Any, exchanged: Mapping[torch.dtype, torch.dtype]) -> Any:
    if isinstance(value, torch.dtype):
        return exchanged.get(value, value)
    if isinstance(value, tuple):
        return tuple(_exchange(item, exchanged) for item in value)
    if isinstance(value, dict):
        return {key: _exchange(item, exchanged) for key, item in value.items()}
    return value
