"""Equal values of which one is chosen: torch says nothing about which, so an answer that hangs on it proves nothing.

A black picture gives a detector the same score everywhere, and its four best places are any four.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_TOP, _KTH = torch.ops.aten.topk.default, torch.ops.aten.kthvalue.default


class Ties(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Watches for a choice among equal values.

    Attributes:
        found: The operator that made one; None while there is none.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: str | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (_TOP, _KTH):
            x, k, *rest = args
            dim, largest = (*rest, -1)[0], func is _KTH or (*rest, -1, True)[1]
            if _is_tied(x, int(k), int(dim), bool(largest) and func is _TOP):
                self.found = func.overloadpacket.__name__
        return func(*args, **(kwargs or {}))


def _is_tied(x: torch.Tensor, k: int, dim: int, largest: bool) -> bool:
    """Whether two of the k first values, or the last of them and the next, are equal."""
    if x.dim() == 0:
        return False
    ordered = x.sort(dim, descending=largest).values.narrow(dim, 0, min(k + 1, x.shape[dim]))
    return bool((ordered.diff(dim=dim) == 0).any())
