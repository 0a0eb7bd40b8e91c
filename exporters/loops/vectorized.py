"""Operators for all steps at once, and operators that take a tensor for a number that depends on the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from exporters.loops import operators
from exporters.loops.program import Value

aten = torch.ops.aten

_ANY_RANK = {
    aten.alias.default,
    aten._to_copy.default,
    aten.to.dtype,
    aten.contiguous.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    operators.one_hot,
}
_AXES: dict[Any, tuple[int, int | None]] = {
    aten.select.int: (1, None),
    aten.unsqueeze.default: (1, None),
    aten.squeeze.dim: (1, None),
    aten.slice.Tensor: (1, 0),
    aten.softmax.int: (1, None),
    aten.log_softmax.int: (1, None),
    aten.chunk.default: (2, 0),
    aten.split.Tensor: (2, 0),
    aten.split_with_sizes.default: (2, 0),
    aten.unbind.int: (1, 0),
    aten.sum.dim_IntList: (1, None),
    aten.mean.dim: (1, None),
    aten.amax.default: (1, None),
    aten.amin.default: (1, None),
    aten.max.dim: (1, None),
    aten.min.dim: (1, None),
    aten.argmax.default: (1, None),
    aten.argmin.default: (1, None),
    aten.cumsum.default: (1, None),
    aten.linalg_vector_norm.default: (2, None),
    aten.permute.default: (1, None),
    aten.flip.default: (1, None),
    aten.gather.default: (1, None),
}
"""Operators along axes: which argument names them, and what it is if it is left out."""

_TWO_AXES = {aten.transpose.int, aten.flatten.using_ints}
_SHAPES = {aten.view.default, aten.reshape.default, aten.expand.default, aten._unsafe_view.default}
_TRANSPOSES = {aten.t.default, aten.numpy_T.default, aten.mT.default}
"""Of matrices."""

_PRODUCTS = {aten.matmul.default, aten.mm.default, aten.bmm.default}
_FOLDED = {
    aten.conv1d.default: 3,
    aten.conv1d.padding: 3,
    aten.conv2d.default: 4,
    aten.conv2d.padding: 4,
    aten.conv3d.default: 5,
    aten.max_pool2d.default: 4,
    aten.avg_pool2d.default: 4,
    aten.adaptive_avg_pool2d.default: 4,
    aten.batch_norm.default: None,
    aten.group_norm.default: None,
}
"""Operators whose first axis is the batch, with the rank that they have then: the steps are more rows of it."""

_COMPARED = {aten.fill.Scalar, aten.masked_fill.Scalar, aten.rsub.Scalar, aten.full_like.default}
_FILLED = {aten.full.default: 1, aten.new_full.default: 2, aten.scalar_tensor.default: 0}
"""Operators that fill a tensor with a number: which argument it is."""


def takes_number(value: Value, slot: int) -> bool:
    """Whether the number in an argument may depend on the step.

    Args:
        value: A computation.
        slot: The argument's number among all leaves.
    """
    if type(value.leaves()[slot]) not in (int, float):
        return False
    target, place = value.target, _argument(value, slot)
    if target in _FILLED:
        return place == _FILLED[target]
    if target is aten.select.int or target is aten.select_scatter.default:
        return slot == len(value.leaves()) - 1
    if target is aten.slice.Tensor:
        return place in (2, 3) and (len(value.args) < 5 or value.args[4] == 1)
    return (torch.Tag.pointwise in getattr(target, "tags", ()) or target in _COMPARED) and not value.kwargs


def _argument(value: Value, slot: int) -> int | None:
    """Which positional argument a leaf is; None if it is in a list or goes by name."""
    for place, arg in enumerate(value.args):
        if slot == 0 and not isinstance(arg, list | tuple):
            return place
        slot -= len(torch.utils._pytree.tree_leaves(arg))
        if slot < 0:
            return None
    return None


@dataclass(frozen=True, slots=True)
class Numbered:
    """An operator that takes a tensor where the original takes a number (see `takes_number`)."""

    target: Any
    width: int = 0
    """Of a slice: how many elements it has."""

    @property
    def __name__(self) -> str:
        return str(self.target)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The operator over all steps at once."""
        target = self.target
        if target in _FILLED:
            return self._fill(*args, **kwargs)
        if target is aten.select.int:
            x, dim, index = args
            return x.index_select(dim, _counted(index, x.shape[dim]).reshape(1)).squeeze(dim)
        if target is aten.slice.Tensor:
            x, dim, start = args[:3]
            return x.index_select(dim, (start + torch.arange(self.width)).clamp(min=0).clamp(max=x.shape[dim] - 1))
        if target is aten.select_scatter.default:
            x, part, dim, index = args
            dim %= x.dim()
            places = torch.arange(x.shape[dim]).reshape(-1, *(1 for _ in x.shape[dim + 1 :]))
            return torch.where(places == _counted(index, x.shape[dim]), part.unsqueeze(dim), x)
        if target is aten.full_like.default:
            return args[1].to(args[0].dtype).expand(args[0].shape).clone()
        tensors = [arg for arg in args if isinstance(arg, Tensor) and arg.dim()]
        kind = next((x.dtype for x in tensors if x.is_floating_point()), None)
        return target.overloadpacket(*(_as_number(arg, kind) for arg in args), **kwargs)

    def _fill(self, *args: Any, **kwargs: Any) -> Tensor:
        number = args[_FILLED[self.target]]
        given = args[0] if self.target is aten.new_full.default else None
        dtype = kwargs.get("dtype") or (given.dtype if given is not None else None)
        number = number.to(dtype or (torch.get_default_dtype() if number.is_floating_point() else number.dtype))
        if self.target is aten.scalar_tensor.default:
            return number.clone()  # type: ignore[no-any-return]
        return number.expand(tuple(args[1 if given is not None else 0])).clone()  # type: ignore[no-any-return]


def _counted(index: Tensor, size: Any) -> Tensor:
    return torch.where(index < 0, index + size, index)


def _as_number(arg: Any, kind: torch.dtype | None) -> Any:
    """A tensor of no axes as the number that it stands for would be taken."""
    if not isinstance(arg, Tensor) or arg.dim() or arg.dtype not in (torch.int64, torch.float64):
        return arg
    if kind is None:
        return arg.to(torch.get_default_dtype()) if arg.is_floating_point() else arg
    return arg.to(kind)


def has_all(first: Value, target: Any, over: Sequence[bool]) -> bool:
    """Whether `for_all` can compute an operator for all steps at once.

    Args:
        first: What is computed at one step.
        target: The operator.
        over: Of each tensor and constant among its arguments, whether it differs from step to step.
    """
    if isinstance(target, Numbered):
        pointwise = torch.Tag.pointwise in getattr(target.target, "tags", ())
        return pointwise or target.target in (aten.masked_fill.Scalar, aten.rsub.Scalar)
    if torch.Tag.pointwise in getattr(target, "tags", ()) or target in _ANY_RANK:
        return True
    if target in (aten.linear.default, aten.layer_norm.default, aten.rms_norm.default):
        return over[0] and not any(over[1:])
    if target in _FOLDED:
        return over[0] and not any(over[1:]) and _FOLDED[target] in (None, first.args[0].fake.dim())
    if target in _AXES:
        place = _AXES[target][0]
        all_tensors = all(over[: sum(isinstance(arg, Value) for arg in first.args)])
        return all_tensors and (len(first.args) <= place or first.args[place] not in (None, []))  # else all axes
    if target in _TWO_AXES or target in _SHAPES or target in _TRANSPOSES:
        return over[0] and (target not in _TRANSPOSES or first.fake.dim() <= 2)
    if target in _PRODUCTS:
        return all(isinstance(arg, Value) and arg.fake.dim() >= 2 for arg in first.args)
    if target is aten.addmm.default:
        return over[:3] == [False, True, False] and not first.kwargs
    if target is aten.embedding.default:
        return list(over[:2]) == [False, True]
    return target in (aten.cat.default, aten.stack.default) and all(over[: len(first.args[0])])


def for_all(
    target: Any, over: Sequence[bool], ranks: Sequence[int], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """An operator at all steps at once.

    Args:
        target: The operator, for which `has_all` holds.
        over: See `has_all`.
        ranks: How many axes the result has at one step, and the first argument.
        args: What differs from step to step has its steps first.
        kwargs: Constants.
    """
    args = list(args)
    if target in _AXES:
        place, default = _AXES[target]
        args += [default] * (place + 1 - len(args))
        args[place] = _behind_steps(args[place])
        if target is aten.permute.default:
            args[place] = [0, *(axis % (ranks[0] + 1) for axis in args[place])]
    elif target in _TWO_AXES:
        axes = [*args[1:], *[0, -1][len(args) - 1 :]]
        args[1:] = [_behind_steps(axis) for axis in axes]
    elif target in _TRANSPOSES:
        return args[0].transpose(-1, -2) if ranks[1] == 2 else args[0]
    elif target in _SHAPES:
        x = args[0]
        if target is aten.expand.default:
            x = x.reshape(x.shape[0], *[1] * (ranks[0] - ranks[1]), *x.shape[1:])
        return (aten.expand.default if target is aten.expand.default else aten.reshape.default)(
            x, [x.shape[0], *args[1]]
        )
    elif target in _PRODUCTS:
        return torch.matmul(*args)
    elif target is aten.addmm.default:
        return args[0] + torch.matmul(args[1], args[2])
    elif target in _FOLDED:
        steps = args[0].shape[0]
        rows = args[0].shape[1]
        return target(args[0].flatten(0, 1), *args[1:], **kwargs).unflatten(0, (steps, rows))
    elif target in (aten.cat.default, aten.stack.default):
        args[1:] = [_behind_steps(args[1] if len(args) > 1 else 0)]
    elif torch.Tag.pointwise in getattr(target, "tags", ()) or isinstance(target, Numbered):
        moving = iter(over)
        if isinstance(target, Numbered):
            kinds = [a.dtype for a in args if isinstance(a, Tensor) and a.dim() > 1 and a.is_floating_point()]
            fixed = [a.dtype for a, moves in zip(args, over, strict=True) if isinstance(a, Tensor) and not moves]
            kind = next((k for k in (*kinds, *fixed) if k.is_floating_point), None)
            args = [
                _as_numbers(a, kind) if moves and isinstance(a, Tensor) and a.dim() == 1 else a
                for a, moves in zip(args, over, strict=True)
            ]
            target = target.target.overloadpacket
        args = [_of_rank(arg, ranks[0] + 1) if next(moving) else arg for arg in args]
    return target(*args, **kwargs)


def _as_numbers(series: Tensor, kind: torch.dtype | None) -> Tensor:
    if series.dtype not in (torch.int64, torch.float64):
        return series
    if kind is None:
        return series.to(torch.get_default_dtype()) if series.is_floating_point() else series
    return series.to(kind)


def _behind_steps(axes: Any) -> Any:
    """Axes of a step where the steps come first; those that count from the end stay."""
    if isinstance(axes, list | tuple):
        return [_behind_steps(axis) for axis in axes]
    return axes + 1 if axes >= 0 else axes


def _of_rank(x: Tensor, rank: int) -> Tensor:
    """A tensor with axes of size 1 after the steps, so that it is broadcast as each step would be."""
    while x.dim() < rank:
        x = x.unsqueeze(1)
    return x
