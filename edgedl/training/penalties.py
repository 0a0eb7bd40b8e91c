"""L2 and L1 penalties on weights, and which parameters count as weights.

The textbook's cost is J = data + λ/(2T)·ΣW², T being the number of training samples even where mini-batches are drawn.
Its gradient adds λ/T·W, which is what ``torch.optim.SGD`` adds for ``weight_decay = λ/T``: the two are the same
training, with or without momentum. They are not for Adam (the penalty's gradient would be divided by the running
root mean square) nor for AdamW (the decay never enters the gradient), so λ is refused there.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from runtime.errors import InputError

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
    nn.modules.instancenorm._InstanceNorm,
)


def weight_decay_from_lambda(strength: float, samples: int) -> float:
    """The ``weight_decay`` of SGD that equals λ/(2T)·ΣW² for λ = ``strength`` and T = ``samples``."""
    if samples < 1:
        raise InputError(f"λ is divided by the number of training samples, which must be at least 1, not {samples}")
    if strength < 0:
        raise InputError(f"λ must not be negative, not {strength}")
    return strength / samples


def weight_names(network: nn.Module) -> frozenset[str]:
    """Names of the parameters that penalties apply to: all but biases, norm parameters and other vectors."""
    names = set()
    for path, module in network.named_modules():
        if isinstance(module, _NORMS):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim > 1 and not name.startswith("bias"):
                names.add(f"{path}.{name}" if path else name)
    return frozenset(names)


def weights(network: nn.Module) -> list[Tensor]:
    """The parameters that penalties apply to; a weight shared by two layers counts once."""
    names = weight_names(network)
    return [parameter for name, parameter in network.named_parameters() if name in names and parameter.requires_grad]


def l2_penalty(tensors: Iterable[Tensor], strength: float, samples: int) -> Tensor:
    """λ/(2T)·ΣW² written out: the reference that ``weight_decay_from_lambda`` is tested against."""
    total = torch.stack([tensor.square().sum() for tensor in tensors]).sum()
    return weight_decay_from_lambda(strength, samples) / 2 * total


def l1_penalty(tensors: Iterable[Tensor], strength: float) -> Tensor:
    """strength·Σ|W|, to be added to the loss of each step; its gradient is strength·sign(W), 0 at 0."""
    return strength * torch.stack([tensor.abs().sum() for tensor in tensors]).sum()
