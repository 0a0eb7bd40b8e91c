"""How readers of digits are trained unless said otherwise, and what a run was begun with."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from edgedl.data.digits import NAME
from edgedl.tasks.run_config import RunConfig, flag, given, option, trained_with
from edgedl.training.options import TrainOptions
from runtime.errors import InputError

Model = Literal["softmax", "cnn", "dbn"]
MODELS: tuple[Model, ...] = get_args(Model)
MODEL: Model = "cnn"

DROPOUT: Mapping[Model, float] = {"softmax": 0.0, "cnn": 0.3, "dbn": 0.1}
SMOOTHING: Mapping[Model, float] = {"softmax": 0.0, "cnn": 0.05, "dbn": 0.0}


@dataclass(frozen=True, slots=True)
class PretrainOptions:
    """How a machine learns.

    Attributes:
        epochs: passes over the data.
        batch_size: samples of an update; with PCD also the number of chains.
        lr: learning rate; it falls linearly to 0 over the last half of the epochs, without which PCD's chains, which
            follow the machine, would lag behind it to the end.
        momentum: of the updates, .5 in the first five epochs (Hinton 2010, section 9).
        weight_decay: of the weights, not of the biases (Hinton 2010, section 10).
        steps: k of CD-k.
        persistent: PCD instead of CD.
        sampled: the visible units of the chains are drawn; else their probabilities stand for them, as shares of ink do
            in the data (Hinton 2010, section 3.2).
    """

    epochs: int = 100
    batch_size: int = 20
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 2e-4
    steps: int = 1
    persistent: bool = False
    sampled: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} of contrastive divergence must be at least 1, not {getattr(self, name)}")
        if not self.lr > 0:
            raise InputError(f"the learning rate of contrastive divergence must be above 0, not {self.lr}")


_PRETRAINING = {"epochs": "pretrain_epochs", "lr": "pretrain_lr", "steps": "cd_steps", "persistent": "persistent"}
"""What of `PretrainOptions` is an option: the keys of ``pretraining`` in ``config.json``, and the fields' names."""

BELIEF: Mapping[str, Any] = {"hidden": (256, 256)} | {
    name: getattr(PretrainOptions(), key) for key, name in _PRETRAINING.items()
}
"""The defaults of what belongs to a deep belief net only."""


def recipe(model: Model) -> TrainOptions:
    """How a model is trained unless said otherwise; so small networks gain nothing from a second thread."""
    shared: dict[str, Any] = {
        "batch_size": 64, "optimiser": "adamw", "schedule": "one-cycle", "ema": 0.99, "threads": 1
    }  # fmt: skip
    if model == "softmax":
        return TrainOptions(epochs=40, lr=0.05, weight_decay=1e-3, **shared)
    if model == "cnn":
        return TrainOptions(epochs=40, lr=5e-3, weight_decay=0.01, **shared)
    return TrainOptions(epochs=120, lr=5e-3, weight_decay=1e-3, **shared)


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitsConfig(RunConfig):
    """The configuration of a reader of digits. What is None belongs to a deep belief net only.

    Attributes:
        model: The network.
        dropout: Share dropped while training.
        hidden: Units of each layer, from below.
        pretrain_epochs: Of each Boltzmann machine, before fine-tuning.
        pretrain_lr: Learning rate of the machines.
        cd_steps: Steps of Gibbs sampling, the k of CD-k.
        persistent: PCD instead of CD.
    """

    task = "digits"

    model: Model = option()
    dropout: float
    hidden: tuple[int, ...] | None = option(least=1, default=None)
    pretrain_epochs: int | None = option(least=1, default=None)
    pretrain_lr: float | None = option(above=0, default=None)
    cd_steps: int | None = option(least=1, default=None)
    persistent: bool | None = option(default=None)

    def __post_init__(self) -> None:
        """Checks what belongs to which model."""
        RunConfig.__post_init__(self)
        for name in BELIEF:
            if self.model != "dbn" and getattr(self, name) is not None:
                raise InputError(f"{flag(name)} belongs to a deep belief net; add --model dbn")
            if self.model == "dbn" and getattr(self, name) is None:
                raise InputError(f"a deep belief net has no {name}; the run was written by another version of edgedl")

    @property
    def machines(self) -> PretrainOptions:
        """How the machines of a deep belief net learn."""
        given = {key: getattr(self, name) for key, name in _PRETRAINING.items()}
        return PretrainOptions(**given, sampled=given["persistent"])

    @classmethod
    def asked(cls, args: Namespace, options: TrainOptions, samples: int) -> DigitsConfig:
        """The configuration that the command line asks for, to learn from so many digits.

        Raises:
            InputError: an option is out of range, or belongs to another model.
        """
        asked: dict[str, Any] = {"model": MODEL} | given(args, cls)
        model = asked["model"]
        data = {"name": NAME, "n": samples, "skipped": {}, "notes": []}
        defaults = BELIEF if model == "dbn" else {}
        return cls(**{**defaults, **asked}, dropout=DROPOUT[model], data=data, **trained_with(options))

    @classmethod
    def from_json(cls, config: Mapping[str, Any], where: str = "config.json") -> Self:
        """Reads the form that `to_json` writes.

        Raises:
            InputError: a key is missing, or its value has another type.
        """
        nested = config.get("pretraining", {})
        if not isinstance(nested, dict):
            raise InputError(f"{where}: pretraining is {nested!r:.60}, expected an object")
        flat = {name: nested[key] for key, name in _PRETRAINING.items() if key in nested}
        return super(DigitsConfig, cls).from_json({**config, **flat}, where)

    def to_json(self) -> dict[str, Any]:
        """The entries of ``config.json``; how the machines learn is an object of its own."""
        entries = RunConfig.to_json(self)
        nested = {key: entries.pop(name) for key, name in _PRETRAINING.items() if name in entries}
        return entries | ({"pretraining": nested} if nested else {})
