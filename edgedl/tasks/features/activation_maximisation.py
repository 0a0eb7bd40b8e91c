"""The picture that a unit answers most to: gradient ascent on the input.

Erhan et al. 2009, "Visualizing higher-layer features of a deep network"; against the noise that plain ascent ends in,
the picture is a sum of coarse and fine layers (so that large shapes move first) and is shifted by chance at every step
(Mordvintsev et al. 2015, "Inceptionism"). The network is not trained for such pictures: they show what excites a unit,
not what it has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIDDLE = 127.5
START = 0.02
"""Standard deviation of the noise that the ascent begins with, before the hyperbolic tangent."""

COARSER = 0.6
"""Strength of each layer of the picture relative to the one that is half as fine: noise is fine, things are not."""


class _Reached(Exception):  # noqa: N818 - no error: what lies behind the unit need not be computed
    """Carries a layer's answer out of the network."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer


def maximise(
    network: nn.Module,
    layer: nn.Module,
    units: Sequence[int],
    size: int,
    *,
    steps: int = 96,
    rate: float = 0.05,
    shift: int = 4,
    octaves: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """One picture for each unit, all in one batch.

    Args:
        network: levels (N, 3, S, S) in, in evaluation mode; it is not changed.
        layer: the module within it whose answer (N, C, h, w) or (N, C) holds the units.
        units: numbers of channels; of a map, the mean over its places is what grows.
        size: S, in pixels.
        steps: of Adam.
        rate: of Adam.
        shift: the picture is shifted by up to so many pixels at each step.
        octaves: layers of the picture, each half as fine as the one before.
        seed: of the noise and the shifts.
        progress: is told how many of how many steps are done.

    Returns:
        (len(units), 3, size, size), levels 0..255.
    """
    chance = torch.Generator().manual_seed(seed)
    sides = [max(1, size >> octave) for octave in range(octaves)]
    layers = [START * torch.randn(len(units), 3, side, side, generator=chance) for side in sides]
    layers = [layer_.requires_grad_() for layer_ in layers]
    strengths = [COARSER ** (octaves - 1 - octave) for octave in range(octaves)]  # Adam moves all of them alike
    optimiser = torch.optim.Adam(layers, lr=rate)
    rows = torch.arange(len(units))

    def picture() -> Tensor:
        drawn = [
            strength * F.interpolate(x, (size, size), mode="bilinear", align_corners=False)
            for strength, x in zip(strengths, layers, strict=True)
        ]
        return MIDDLE + MIDDLE * torch.stack(drawn).sum(dim=0).tanh()

    handle = layer.register_forward_hook(_leave)
    frozen = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for step in range(steps):
            across, down = (int(torch.randint(-shift, shift + 1, (), generator=chance)) for _ in range(2))
            answer = _reach(network, picture().roll((down, across), dims=(2, 3)))
            excitement = answer[rows, torch.tensor(units)].reshape(len(units), -1).mean(dim=1)
            for drawn, gradient in zip(layers, torch.autograd.grad(-excitement.sum(), layers), strict=True):
                drawn.grad = gradient
            optimiser.step()
            if progress is not None:
                progress(step + 1, steps)
    finally:
        handle.remove()
        for parameter in frozen:
            parameter.requires_grad_(True)
    return picture().detach()


def _leave(module: nn.Module, inputs: object, output: Tensor) -> None:
    raise _Reached(output)


def _reach(network: nn.Module, levels: Tensor) -> Tensor:
    try:
        network(levels)
    except _Reached as reached:
        return reached.answer
    raise ValueError("the network does not reach the layer whose units are asked for")
