"""Networks that read digits, and one that draws them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.tasks.digits.ink import SIDE, Ink
from edgedl.tasks.digits.rbm import RBM

CLASSES = 10
PIXELS = SIDE * SIDE

PASSES = 12
"""Times that the top of a deep belief net goes up and down with its label before a picture is drawn."""

TEMPERATURE = 0.25
"""τ of the relaxed samples. At 1 the network reads 3 of 10 drawings as what they should be, at .5 8, at .25 over 9.
Real samples do as well, but one unit that a device rounds otherwise would make another picture."""


class SoftmaxClassifier(nn.Module):
    """Multinomial logistic regression: ink (N, 8, 8) -> logits (N, 10), one weight per pixel and class."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(PIXELS, CLASSES)

    def forward(self, ink: Tensor) -> Tensor:
        """The logits."""
        return self.linear(ink.flatten(1))  # type: ignore[no-any-return]


class ConvolutionalClassifier(nn.Module):
    """Three convolutions, two poolings, two linear layers: ink (N, 8, 8) -> logits (N, 10).

    Args:
        dropout: before each linear layer.
        channels: of each convolution. The defaults make 34,000 weights.
        hidden: units of the first linear layer.
    """

    def __init__(
        self, dropout: float = 0.3, *, channels: tuple[int, int, int] = (24, 32, 48), hidden: int = 64
    ) -> None:
        super().__init__()
        first, second, third = channels
        self.conv1 = nn.Conv2d(1, first, 3, padding=1)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.conv3 = nn.Conv2d(second, third, 3, padding=1)
        self.linear = nn.Linear(third * 2 * 2, hidden)
        self.head = nn.Linear(hidden, CLASSES)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ink: Tensor) -> Tensor:
        """The logits."""
        x = F.relu(self.conv1(ink.unsqueeze(1)))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # (N, C2, 4, 4)
        x = F.max_pool2d(F.relu(self.conv3(x)), 2)  # (N, C3, 2, 2)
        x = F.relu(self.linear(self.dropout(x.flatten(1))))
        return self.head(self.dropout(x))  # type: ignore[no-any-return]


class DeepBeliefNet(nn.Module):
    """Boltzmann machines stacked on each other (Hinton, Osindero, Teh 2006): the way up reads, the way down draws.

    The last machine sees the layer below beside the label. After their greedy training, `unroll` copies the machines'
    weights into the way up, which back-propagation then fine-tunes; the machines stay as they are for the way down.

    Args:
        hidden: units of each layer, from below.
        dropout: of each layer's activity while the way up is fine-tuned.
    """

    def __init__(self, hidden: Sequence[int] = (256, 256), dropout: float = 0.1) -> None:
        super().__init__()
        sizes = [PIXELS, *hidden]
        last = len(hidden) - 1
        self.machines = nn.ModuleList(
            RBM(below + (CLASSES if layer == last else 0), above, classes=CLASSES if layer == last else 0)
            for layer, (below, above) in enumerate(zip(sizes, hidden, strict=False))
        )
        self.up = nn.ModuleList(nn.Linear(below, above) for below, above in zip(sizes, hidden, strict=False))
        self.head = nn.Linear(hidden[-1], CLASSES)
        self.dropout = nn.Dropout(dropout)

    @property
    def layers(self) -> list[RBM]:
        """The machines, from below."""
        return [cast(RBM, machine) for machine in self.machines]

    def forward(self, ink: Tensor) -> Tensor:
        """The way up, ink (N, 8, 8) -> logits (N, 10)."""
        activity = ink.flatten(1)
        for layer in self.up:
            activity = self.dropout(torch.sigmoid(layer(activity)))
        return self.head(activity)  # type: ignore[no-any-return]

    def activity(self, ink: Tensor, layers: int) -> Tensor:
        """What the machines below make of ink (N, 8, 8): the activity that layer number `layers` sees, (N, V)."""
        activity = ink.flatten(1)
        for machine in self.layers[:layers]:
            activity = machine.hidden_probabilities(activity)
        return activity

    @torch.no_grad()
    def unroll(self) -> None:
        """Starts the way up at what the machines learnt, the label's weights as the soft-max layer."""
        for layer, machine in zip(self.up, self.layers, strict=True):
            linear = cast(nn.Linear, layer)
            linear.weight.copy_(machine.weight[: linear.in_features].T)
            linear.bias.copy_(machine.hidden_bias)
        top = self.layers[-1]
        self.head.weight.copy_(top.weight[-CLASSES:])
        self.head.bias.copy_(top.visible_bias[-CLASSES:])


class DigitReader(nn.Module):
    """The graph ``digits``: pixels of any size in, the digit out."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.ink = Ink()
        self.classifier = copy.deepcopy(classifier)
        if isinstance(self.classifier, DeepBeliefNet):
            self.classifier.machines = nn.ModuleList()  # the way down is another graph

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reads one digit from each picture.

        Args:
            pixels: (N, H, W, 3) uint8 RGB.

        Returns:
            The digit (N,) int64, the probabilities of all ten (N, 10), and the ink (N, 8, 8) that was looked at.
        """
        ink = self.ink(pixels)
        probabilities = self.classifier(ink).softmax(dim=1)
        return probabilities.argmax(dim=1), probabilities, ink


class DigitPainter(nn.Module):
    """The graph ``draw``, a deep belief net's way down: a label, a first idea and chance in, a picture out.

    The top machine goes up and down in turn with its label held; the layers below then only go down. A unit that is on
    with the probability σ(z) is relaxed to σ((z + ε)/τ), ε from the logistic distribution (Maddison, Mnih, Teh 2017):
    for τ → 0 that is a sample, above it the graph is smooth, so that no rounding turns a unit over, and the same
    chance gives the same picture on every device. Without chance (½ everywhere) all pictures of a label are nearly one.
    """

    def __init__(self, net: DeepBeliefNet) -> None:
        super().__init__()
        self.machines = nn.ModuleList(net.layers)

    def forward(self, label: Tensor, top: Tensor, chance: Tensor) -> Tensor:
        """Draws.

        Args:
            label: (N,) int64, 0 … 9.
            top: (N, H) activity of the top layer to start from, 0 … 1.
            chance: (N, PASSES, H) uniform between 0 and 1.

        Returns:
            Ink (N, 8, 8), 0 … 1.
        """
        *below, last = (cast(RBM, machine) for machine in self.machines)
        told = (label[:, None] == torch.arange(CLASSES, device=label.device)).to(top.dtype)
        inner = chance.clamp(1e-6, 1 - 1e-6)
        noise = torch.log(inner) - torch.log(1 - inner)
        for turn in range(PASSES):
            activity = last.visible_probabilities(top)[:, :-CLASSES]
            logits = torch.cat([activity, told], dim=1) @ last.weight + last.hidden_bias
            top = torch.sigmoid((logits + noise[:, turn]) / TEMPERATURE)
        activity = last.visible_probabilities(top)[:, :-CLASSES]
        for machine in reversed(below):
            activity = machine.visible_probabilities(activity)
        return activity.view(-1, SIDE, SIDE)
