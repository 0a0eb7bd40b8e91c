"""Restricted Boltzmann machines: energy, conditional probabilities, free energy (Smolensky 1986, Hinton 2002).

    E(v, h) = -b·v - c·h - vᵀWh        p(v, h) ∝ exp(-E)        F(v) = -log Σₕ exp(-E(v, h))

Given one side, the units of the other are independent of each other. F(v) is the negative logarithm of the probability
but for a constant of the machine: it compares data, and shows over-fitting where it parts for learnt and held-out data.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn


class RBM(nn.Module):
    """A machine of binary units. Shares between 0 and 1 on the visible side stand for probabilities.

    Args:
        visible: units V, those of the label included.
        hidden: units H.
        classes: the last so many visible units are one soft-max group, exactly one of which is on: the label beside
            the activity that it goes with (Hinton, Osindero, Teh 2006, section 6).
        generator: of the initial weights, normal with a standard deviation of .01 (Hinton 2010, section 8).

    Attributes:
        weight: W, (V, H).
        visible_bias: b, (V,).
        hidden_bias: c, (H,).
    """

    def __init__(self, visible: int, hidden: int, *, classes: int = 0, generator: Generator | None = None) -> None:
        super().__init__()
        if not 0 <= classes <= visible:
            raise ValueError(f"{classes} of {visible} visible units cannot be the label")
        self.classes = classes
        # Learnt by contrastive divergence, never by back-propagation.
        self.weight = nn.Parameter(0.01 * torch.randn(visible, hidden, generator=generator), requires_grad=False)
        self.visible_bias = nn.Parameter(torch.zeros(visible), requires_grad=False)
        self.hidden_bias = nn.Parameter(torch.zeros(hidden), requires_grad=False)

    def energy(self, visible: Tensor, hidden: Tensor) -> Tensor:
        """E(v, h) of (..., V) and (..., H) -> (...), in nats."""
        both = ((visible @ self.weight) * hidden).sum(dim=-1)
        return -(visible @ self.visible_bias) - hidden @ self.hidden_bias - both

    def free_energy(self, visible: Tensor) -> Tensor:
        """F(v) = -b·v - Σⱼ log(1 + exp(cⱼ + v·Wⱼ)) of (..., V) -> (...), in nats."""
        return -(visible @ self.visible_bias) - F.softplus(visible @ self.weight + self.hidden_bias).sum(dim=-1)

    def hidden_probabilities(self, visible: Tensor) -> Tensor:
        """p(hⱼ = 1 | v), (..., V) -> (..., H)."""
        return torch.sigmoid(visible @ self.weight + self.hidden_bias)

    def visible_probabilities(self, hidden: Tensor) -> Tensor:
        """p(vᵢ = 1 | h), (..., H) -> (..., V)."""
        logits = hidden @ self.weight.T + self.visible_bias
        if not self.classes:
            return torch.sigmoid(logits)
        units, label = logits[..., : -self.classes], logits[..., -self.classes :]
        return torch.cat([torch.sigmoid(units), label.softmax(dim=-1)], dim=-1)

    def sample_hidden(self, visible: Tensor, generator: Generator) -> Tensor:
        """Draws h given v, (N, V) -> (N, H)."""
        return torch.bernoulli(self.hidden_probabilities(visible), generator=generator)

    def sample_visible(self, hidden: Tensor, generator: Generator) -> Tensor:
        """Draws v given h, (N, H) -> (N, V); of the label's units exactly one is on."""
        probabilities = self.visible_probabilities(hidden)
        if not self.classes:
            return torch.bernoulli(probabilities, generator=generator)
        units, label = probabilities[:, : -self.classes], probabilities[:, -self.classes :]
        drawn = torch.multinomial(label, 1, generator=generator).squeeze(1)
        return torch.cat([torch.bernoulli(units, generator=generator), F.one_hot(drawn, self.classes).to(units)], dim=1)
