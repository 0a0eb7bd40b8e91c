"""Makes batch normalisation of a published network fit for training, without changing what the network answers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

TRAINING_MOMENTUM = 0.05
"""Share of a batch in the running statistics while fine-tuning: slower than torch's 0.1, the statistics are known."""


@torch.no_grad()
def absorb_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Gives every BatchNorm2d the statistics of real data and changes its scale and shift so that nothing else moves.

    A network published with its normalisation folded into one affine carries statistics of 0 and 1. In training mode
    it would normalise with the batch's own statistics instead and be another function from the first step on.

    Args:
        network: in evaluation mode; answers the same afterwards.
        batches: inputs of the network, of any sizes; the more the finer the statistics.

    Raises:
        ValueError: the network is in training mode.
    """
    if network.training:
        raise ValueError("the network is in training mode; call eval() first")
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    sums: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers}

    def record(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].double()
        sums[layer].append(len(x) * torch.stack([x.mean(dim=(0, 2, 3)), x.square().mean(dim=(0, 2, 3))]))

    hooks = [layer.register_forward_pre_hook(record) for layer in layers]
    count = 0
    try:
        for batch in batches:
            network(batch)
            count += len(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for layer in layers:
        mean, square = (torch.stack(sums[layer]).sum(dim=0) / count).to(layer.weight.dtype)
        variance = (square - mean.square()).clamp(min=1e-6)
        old_mean, old_variance = layer.running_mean, layer.running_var
        assert old_mean is not None and old_variance is not None  # noqa: S101, PT018 - narrows the types
        slope = layer.weight / (old_variance + layer.eps).sqrt()
        offset = layer.bias - slope * old_mean
        old_mean.copy_(mean)
        old_variance.copy_(variance)
        layer.weight.copy_(slope * (variance + layer.eps).sqrt())
        layer.bias.copy_(offset + slope * mean)
        layer.momentum = TRAINING_MOMENTUM
