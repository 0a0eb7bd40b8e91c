"""The networks whose features can be looked at, and where in them the steps from edges to objects lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgedl.nn.age import AgeNetwork
from runtime.errors import InputError

PUBLIC = "efficientnet-lite0"

# Of ImageNet's 1000 classes (Russakovsky et al. 2015), those that are named here; others are shown by number.
IMAGENET_NAMES = {
    1: "goldfish", 107: "jellyfish", 130: "flamingo", 207: "golden retriever", 291: "lion", 323: "monarch butterfly",
    340: "zebra", 388: "giant panda", 409: "analog clock", 417: "balloon", 451: "bolo tie", 457: "bow tie",
    530: "digital clock", 652: "military uniform", 667: "mortarboard", 779: "school bus", 793: "shower cap",
    834: "suit", 906: "Windsor tie", 949: "strawberry", 953: "pineapple", 954: "banana", 963: "pizza", 985: "daisy",
}  # fmt: skip

OBJECTS = (340, 130, 323, 409)
"""Classes with a look of their own, which the ascent is asked for: zebra, flamingo, monarch butterfly, analog clock."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A depth of the network: what is built there, and the module that answers with a map (N, C, h, w)."""

    name: str
    layer: nn.Module


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to look at.

    Attributes:
        name: what it is called.
        network: levels (N, 3, S, S) -> scores (N, K), in evaluation mode.
        first: its first convolution, which sees three colours.
        stages: texture, motif and part, from shallow to deep.
        last: the deepest module that still answers with a map.
        side: S that the photo is brought to.
        ascent_side: S of the pictures that excite units.
        objects: numbers of scores whose pictures are drawn.
        ask: scores (1, K) of the photo -> for each map: a name, and the scores' function whose gradient is taken.
        label: the name of a score.
    """

    name: str
    network: nn.Module
    first: nn.Conv2d
    stages: tuple[Stage, ...]
    last: nn.Module
    side: int
    ascent_side: int
    objects: tuple[int, ...]
    ask: Callable[[Tensor], Sequence[tuple[str, Callable[[Tensor], Tensor]]]]
    label: Callable[[int], str]


class _Logits(nn.Module):
    """An age network from the levels on: (N, 3, S, S) -> class scores (N, K)."""

    def __init__(self, age: AgeNetwork) -> None:
        super().__init__()
        self.age = age

    def forward(self, levels: Tensor) -> Tensor:
        """Scores of the years."""
        return self.age.logits(levels)


def subject(source: str) -> Subject:
    """The public ImageNet network by its name, or the network of an age run.

    Raises:
        InputError: neither, or a run of a task without such a network.
        WeightsError: the public weights cannot be had.
    """
    path = Path(source)
    if source == PUBLIC and not path.exists():
        return _public()
    from edgedl.training.run import Run

    run = Run.open(path)
    if run.task != "age":
        raise InputError(f"{path} is a run of {run.task}; features are shown of runs of age and of {PUBLIC}")
    from edgedl.tasks.age.config import AgeConfig
    from edgedl.tasks.age.training import trained_network

    return _age(trained_network(run), f"{AgeConfig.of(run).network} of {path.name}")


def _public() -> Subject:
    from edgedl.weights.efficientnet_lite import load_imagenet_classifier

    network = load_imagenet_classifier()
    encoder = network.encoder
    first = encoder.stem[1]
    assert isinstance(first, nn.Conv2d)  # noqa: S101 - narrows the type
    return Subject(
        name="EfficientNet-Lite0, ImageNet",
        network=network,
        first=first,
        stages=(
            Stage("texture", encoder.blocks[2]),
            Stage("motif", encoder.blocks[4]),
            Stage("part", encoder.blocks[10]),
        ),
        last=encoder,
        side=224,
        ascent_side=112,
        objects=OBJECTS,
        ask=lambda scores: [(_imagenet(index), _score(index)) for index in scores[0].topk(2).indices.tolist()],
        label=_imagenet,
    )


def _age(network: AgeNetwork, name: str) -> Subject:
    backbone: Any = network.backbone
    years = network.years
    first = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    steps = list(backbone.blocks if hasattr(backbone, "blocks") else backbone.layers)
    depth = len(steps)

    def ask(scores: Tensor) -> Sequence[tuple[str, Callable[[Tensor], Tensor]]]:
        age = float(network.answers(scores)[0])
        return [(f"older than {age:.0f}", _expected(network)), (f"younger than {age:.0f}", _negated(network))]

    return Subject(
        name=name,
        network=_Logits(network),
        first=first,
        stages=(
            Stage("texture", steps[0]),
            Stage("motif", steps[depth // 2]),
            Stage("part", steps[-1]),
        ),
        last=steps[-1],
        side=network.size,
        ascent_side=network.size,
        objects=tuple(int(i) for i in torch.linspace(0, len(years) - 1, 6)[1:5].round()),
        ask=ask,
        label=lambda index: f"{years[index]:.0f} years",
    )


def _imagenet(index: int) -> str:
    return IMAGENET_NAMES.get(index, f"class {index}")


def _score(index: int) -> Callable[[Tensor], Tensor]:
    return lambda scores: scores[:, index]


def _expected(network: AgeNetwork) -> Callable[[Tensor], Tensor]:
    return lambda scores: network.answers(scores)[0]


def _negated(network: AgeNetwork) -> Callable[[Tensor], Tensor]:
    return lambda scores: -network.answers(scores)[0]
