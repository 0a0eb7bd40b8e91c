"""The ways of descending that `edgedl train sgd` compares: each is a recipe of training options and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgedl.tasks.sgd.data import TRAIN
from edgedl.training.options import TrainOptions

EPOCHS = 40

PENALTY = 6.4
"""λ of the methods that have one: λ/T = 0.1 with 64 readings, a little more than the curvature along the valley."""


@dataclass(frozen=True, slots=True)
class Method:
    """One way of descending.

    Attributes:
        label: what a figure calls it.
        recipe: its options.
        dropout: share of the readings dropped while training.
    """

    label: str
    recipe: TrainOptions
    dropout: float = 0.0


def _recipe(**options: Any) -> TrainOptions:
    # The path has to be that of the weights themselves, so nothing is averaged; a second thread would only wait.
    plain: dict[str, Any] = {"momentum": 0.0, "schedule": "constant", "ema": 0.0, "threads": 1, "device": "cpu"}
    return TrainOptions(**(plain | {"epochs": EPOCHS, "progress": False} | options))


_DECAYED: dict[str, Any] = {
    "batch_size": TRAIN,
    "epochs": 100,
    "lr": 0.3,
    "betas": (0.8, 0.95),
    "schedule": "cosine",
    "weight_decay": PENALTY / TRAIN,
}

METHODS: Mapping[str, Method] = {
    "full": Method("full batch", _recipe(batch_size=TRAIN, lr=0.9)),
    "momentum": Method("with momentum", _recipe(batch_size=TRAIN, lr=0.9, momentum=0.6)),
    "nesterov": Method("with Nesterov's momentum", _recipe(batch_size=TRAIN, lr=0.45, momentum=0.7, nesterov=True)),
    "mini": Method("mini-batches of 8", _recipe(batch_size=8, lr=0.3)),
    "online": Method("online", _recipe(batch_size=1, lr=0.1)),
    "decay": Method("online, rate decays", _recipe(batch_size=1, lr=0.1, schedule="cosine")),
    "l2": Method("L2", _recipe(batch_size=TRAIN, lr=0.7, momentum=0.6, schedule="cosine", l2=PENALTY)),
    "l1": Method("L1", _recipe(batch_size=TRAIN, lr=0.7, momentum=0.6, schedule="cosine", l1=0.1)),
    "dropout": Method("dropout", _recipe(batch_size=8, epochs=80, lr=0.1, schedule="cosine"), dropout=0.2),
    "adam": Method("Adam, decay λ/T", _recipe(optimiser="adam", **_DECAYED)),
    "adamw": Method("AdamW, decay λ/T", _recipe(optimiser="adamw", **_DECAYED)),
}
