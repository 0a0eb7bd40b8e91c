"""A module is a function of its inputs, or it is refused: no randomness, and no state that reaches an answer.

The judge are the answers themselves. After calls on A, B and A again, the answers to A and to B equal, bit for bit,
those of copies that saw A or B alone. A cache passes; a counter, a running mean, a scale that the first input sets or a
drawn number does not. What is found then by watching operators and by comparing attributes names the culprit only.
"""

from __future__ import annotations

import copy as copier
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from exporters.errors import GuardError
from exporters.places import current_line

Arrays = dict[str, NDArray[Any]]

ADVICE = (
    "a graph has to give the same answer each time: take a random number as an input, or switch the randomness off for "
    "inference (dropout: F.dropout(x, p, training=self.training))"
)


def check_function(
    module: nn.Module,
    copy: Callable[[], nn.Module],
    run: Callable[[nn.Module, Any], Arrays],
    first: Any,
    second: Any,
) -> None:
    """Holds a module to being a function of its inputs.

    Args:
        module: The user's own.
        copy: Makes a fresh copy of it.
        run: Calls a copy on a case.
        first: A case.
        second: Another one.

    Raises:
        GuardError: an answer depends on chance or on earlier calls; the message names what and where.
    """
    own, used = dict(_attributes(module)), copy()
    before = dict(_attributes(used))
    with RandomOperators() as watched:
        answers = run(used, first)
        after = run(used, second)
        again = run(used, first)
        alone, apart = run(copy(), first), run(copy(), second)
    touched = [name for name, value in _attributes(copy()) if _changed(own.get(name), value)]
    if touched:
        raise GuardError(
            f"a copy of the module is not as the module is: calls have changed {', '.join(touched[:4])} in all copies. "
            "Let __deepcopy__ copy it, or keep it in no object that copies share"
        )
    if same(answers, again) and same(answers, alone) and same(after, apart):
        return
    if watched.found:
        raise GuardError(f"forward is random: {'; '.join(watched.found[:3])} — {ADVICE}")
    changed = [name for name, value in _attributes(used) if not _equal(before.get(name, ...), value)]
    if changed:
        raise GuardError(
            f"forward keeps a state that reaches its answers: {', '.join(changed[:4])} changes from call to call. Hand "
            "the state in as an input and out as an output (state=), or do not update it in evaluation mode"
        )
    raise GuardError(
        "forward is not a function of its inputs: the same input gives another answer in a second call, by chance or "
        f"by a state outside of the module; {ADVICE}"
    )


class RandomOperators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Watches for operators that draw random numbers and notes their names and the user's lines."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            name = func.overloadpacket.__name__
            place = current_line()
            told = f"{name} at {place}" if place else name
            if told not in self.found:
                self.found.append(told)
        return func(*args, **(kwargs or {}))


def same(first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]]) -> bool:
    """Whether two sets of answers are equal bit for bit; NaN equals NaN."""
    return all(
        array.shape == second[name].shape and array.tobytes() == second[name].tobytes() for name, array in first.items()
    )


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Buffers and plain attributes by name, each as it is now."""
    for path, part in module.named_modules():
        plain = {name: value for name, value in vars(part).items() if not name.startswith("_")}
        for name, value in (plain | dict(part.named_buffers(recurse=False))).items():
            try:
                frozen = copier.deepcopy(value.detach() if isinstance(value, torch.Tensor) else value)
            except Exception:  # noqa: BLE001 - what cannot be copied is compared by itself
                frozen = value
            yield f"{path}.{name}".lstrip("."), frozen


def _changed(before: Any, after: Any) -> bool:
    """Whether a tensor, a number or a text is another one; other objects need not compare, and types are cast."""
    if isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor) and before.dtype != after.dtype:
        return before.shape != after.shape
    return isinstance(after, torch.Tensor | int | float | str) and not _equal(before, after)


def _equal(before: Any, after: Any) -> bool:
    if isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor):
        return before.shape == after.shape and bool(np.array_equal(before.numpy(), after.numpy(), equal_nan=True))
    try:
        return bool(before == after)
    except Exception:  # noqa: BLE001 - objects of any kind
        return before is after
