"""Parts of an axis whose size is a symbol: torch's functions make a Python number of it, so that the axis freezes."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor


def at_least(size: Any, least: int) -> Any:
    """The larger of a size and a number."""
    return torch.sym_max(size, least)  # type: ignore[no-untyped-call]  # torch's own


def at_most(size: Any, most: int) -> Any:
    """The smaller of a size and a number."""
    return torch.sym_min(size, most)  # type: ignore[no-untyped-call]  # torch's own


def roll(x: Tensor, shifts: Any, dims: Any = None) -> Any:
    """Steps that are sizes."""
    pairs = list(zip(*((part if isinstance(part, tuple | list) else (part,)) for part in (shifts, dims)), strict=False))
    if dims is None or not any(isinstance(shift, torch.SymInt) for shift, _ in pairs):
        return NotImplemented
    for shift, dim in pairs:
        at = torch.arange(x.shape[dim]) - shift
        x = x.index_select(dim, torch.remainder(at, at_least(x.shape[dim], 1)))
    return x


def chunk(input: Tensor, chunks: int, dim: int = 0) -> Any:  # noqa: A002 - torch's name
    """Equal parts of an axis that is a size, as many as are asked for; torch gives fewer where it is too short."""
    size: Any = input.shape[dim]
    if not isinstance(size, torch.SymInt):
        return NotImplemented
    part = (size + (chunks - 1)) // chunks
    return tuple(_part_of(input, dim, at * part, (at + 1) * part) for at in range(chunks))


def tensor_split(input: Tensor, indices_or_sections: Any = None, dim: int = 0, *, sections: Any = None) -> Any:  # noqa: A002
    """Parts of an axis that is a size, the first ones longer by one where it has no whole parts."""
    size: Any = input.shape[dim]
    count = indices_or_sections if sections is None else sections
    if not isinstance(size, torch.SymInt) or not isinstance(count, int):
        return NotImplemented
    ends = [at * (size // count) + at_most(size % count, at) for at in range(count + 1)]
    return tuple(_part_of(input, dim, begin, end) for begin, end in itertools.pairwise(ends))


def _part_of(x: Tensor, dim: int, begin: Any, end: Any) -> Tensor:
    return x[(slice(None),) * (dim % x.dim()) + (slice(begin, end),)]


def take(input: Tensor, index: Tensor) -> Any:  # noqa: A002 - torch's name
    """Elements of a tensor as if it had one axis."""
    return input.reshape(-1)[index]


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Any:  # noqa: A002 - torch's name
    """Elements along an axis; torch compares the other axes as Python numbers to make them alike."""
    if dim is None:
        return input.reshape(-1).gather(0, indices.reshape(-1))
    axis = dim % input.dim()

    def spread(x: Tensor, other: Tensor) -> Tensor:
        sizes = [
            there if at != axis and type(own) is int and own == 1 else own
            for at, (own, there) in enumerate(zip(x.shape, other.shape, strict=True))
        ]
        return x.expand(sizes)

    return spread(input, indices).gather(axis, spread(indices, input))


def _shifted(x: Tensor, dim: Any, back: bool) -> Any:
    dims = range(x.dim()) if dim is None else (dim,) if isinstance(dim, int) else dim
    for axis in dims:
        size: Any = x.shape[axis]
        x = torch.roll(x, (size + 1) // 2 if back else size // 2, axis)
    return x


def fft_shift(x: Tensor, dim: Any = None) -> Any:
    """The zero frequency into the middle, by steps that may be sizes."""
    return _shifted(x, dim, False)


def fft_shift_back(x: Tensor, dim: Any = None) -> Any:
    """See `fft_shift`."""
    return _shifted(x, dim, True)


def tril_indices(row: Any, col: Any, offset: int = 0, **more: Any) -> Any:
    """The places below a diagonal of a matrix whose sizes are symbols: (2, K)."""
    return _places_of(torch.ones(row, col).tril(offset)) if _are_symbols(row, col) else NotImplemented


def triu_indices(row: Any, col: Any, offset: int = 0, **more: Any) -> Any:
    """The places above a diagonal, see `tril_indices`."""
    return _places_of(torch.ones(row, col).triu(offset)) if _are_symbols(row, col) else NotImplemented


def _places_of(there: Tensor) -> Tensor:
    return there.nonzero().T


def _are_symbols(*sizes: Any) -> bool:
    return any(isinstance(size, torch.SymInt) for size in sizes)
