"""Optimisers by name and their parameter groups: weights are decayed, biases and norms not, a head may run faster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import nn
from torch.optim import Optimizer

from edgedl.training.options import OptimiserName
from edgedl.training.penalties import weight_names
from runtime.errors import InputError


def parameter_groups(
    network: nn.Module, *, lr: float, weight_decay: float, head: Sequence[str] = (), head_lr: float = 1.0
) -> list[dict[str, Any]]:
    """Splits the trainable parameters into up to four groups: body and head, each with and without decay.

    Args:
        network: The network.
        lr: Learning rate of the body.
        weight_decay: Decay of the weights; biases and norm parameters get none.
        head: Prefixes of the parameter names that belong to the head, such as ``("head",)``.
        head_lr: The head's learning rate as a multiple of ``lr``.

    Raises:
        InputError: A prefix matches nothing, or nothing can be trained.
    """
    for prefix in head:
        if not any(_below(name, prefix) for name, _ in network.named_parameters()):
            raise InputError(f"no parameter of {type(network).__name__} lies below {prefix!r}")
    decayed = weight_names(network)
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        in_head = any(_below(name, prefix) for prefix in head)
        key = f"{'head' if in_head else 'body'} {'weights' if name in decayed else 'biases and norms'}"
        group = groups.setdefault(
            key,
            {
                "name": key,
                "params": [],
                "lr": lr * head_lr if in_head else lr,
                "weight_decay": weight_decay if name in decayed else 0.0,
            },
        )
        group["params"].append(parameter)
    if not groups:
        raise InputError(f"{type(network).__name__} has no parameter that can be trained")
    return list(groups.values())


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def build_optimiser(
    network: nn.Module,
    name: OptimiserName = "sgd",
    *,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
    head: Sequence[str] = (),
    head_lr: float = 1.0,
) -> Optimizer:
    """Builds an optimiser; ``momentum`` and ``nesterov`` are SGD's, ``betas`` are Adam's and AdamW's.

    Raises:
        InputError: An unknown name, or options that do not go together.
    """
    if name not in get_args(OptimiserName):
        raise InputError(f"no optimiser is called {name!r}; there are {', '.join(get_args(OptimiserName))}")
    if lr <= 0:
        raise InputError(f"the learning rate must be above 0, not {lr}")
    groups = parameter_groups(network, lr=lr, weight_decay=weight_decay, head=head, head_lr=head_lr)
    if name == "sgd":
        if nesterov and momentum <= 0:
            raise InputError("Nesterov's step needs a momentum above 0")
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, betas=betas, fused=True)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
