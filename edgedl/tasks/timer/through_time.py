"""Back-propagation through time, full or truncated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from runtime.errors import InputError

Recurrent = Callable[..., tuple[Tensor, ...]]
"""(inputs (B, T, …), each part of the state) -> (outputs (B, T, …), each part of the next state)."""


def through_time(
    network: Recurrent, inputs: Tensor, state: Sequence[Tensor], truncate: int | None = None
) -> tuple[Tensor, ...]:
    """Runs a recurrent network so that gradients reach back over all steps, or over fewer than `truncate`.

    Truncated, the sequence is cut into windows of p steps. The state goes from window to window as a number, without
    its history: outputs are what they would be in full, and no gradient leaves a window. So a loss at step t hears of
    the steps of its own window with their full gradients, and of nothing that lies p steps or more behind. With p ≥ T
    there is one window, and the computation is the full one.
    All windows share one backward pass and one step of the optimiser.

    Args:
        network: answers a piece of a sequence.
        inputs: (B, T, …).
        state: before the first step.
        truncate: p; None for full back-propagation.

    Returns:
        The outputs (B, T, …) and each part of the state after the last step.

    Raises:
        InputError: p is below 1.
    """
    if truncate is not None and truncate < 1:
        raise InputError(f"back-propagation through time is truncated after at least 1 step, not {truncate}")
    if truncate is None or truncate >= inputs.shape[1]:
        return network(inputs, *state)
    outputs = []
    for start in range(0, inputs.shape[1], truncate):
        output, *after = network(inputs[:, start : start + truncate], *state)
        outputs.append(output)
        state = [part.detach() for part in after]
    return (torch.cat(outputs, dim=1), *after)
