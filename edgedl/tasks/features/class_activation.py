"""Which places of a picture speak for a score: Grad-CAM (Selvaraju et al. 2017).

It weighs the channels of a layer by the mean gradient of the score, so it works for every network. Behind global
average pooling and one linear layer it equals the class activation map of Zhou et al. 2016, "Learning deep features
for discriminative localization", but for the ReLU and a factor of one over the number of places.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def grad_cam(network: nn.Module, layer: nn.Module, levels: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """L(x, y) = ReLU(Σ_c α_c·f_c(x, y)), α_c the mean over places of ∂score/∂f_c: Selvaraju et al., equations 1 and 2.

    Args:
        network: in evaluation mode; it is not changed.
        layer: the module within it whose answer (N, C, h, w) is weighed, called once in a forward pass.
        levels: (N, 3, S, S), what the network takes.
        score: what the network answers -> (N,), one score for each picture.

    Returns:
        (N, h, w), at least 0.

    Raises:
        ValueError: the layer was not reached, or gives no map.
    """
    features = _Kept(layer)
    with features, torch.enable_grad():
        answers = score(network(levels.detach().requires_grad_()))
    if features.found is None or features.found.ndim != 4:
        raise ValueError(f"the network does not reach {type(layer).__name__}, or it gives no map (N, C, h, w)")
    (gradient,) = torch.autograd.grad(answers.sum(), features.found)
    importance = gradient.mean(dim=(2, 3))  # (N, C)
    return torch.einsum("nchw,nc->nhw", features.found.detach(), importance).relu()


class _Kept:
    """Keeps what a module answers while the block runs."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.found: Tensor | None = None

    def __enter__(self) -> None:
        self.handle = self.layer.register_forward_hook(self._keep)

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _keep(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self.found = output


def layer_answer(network: nn.Module, layer: nn.Module, levels: Tensor) -> Tensor:
    """What a layer inside a network answers, without gradients.

    Raises:
        ValueError: the network does not reach the layer.
    """
    kept = _Kept(layer)
    with kept, torch.no_grad():
        network(levels)
    if kept.found is None:
        raise ValueError(f"the network does not reach {type(layer).__name__}")
    return kept.found
