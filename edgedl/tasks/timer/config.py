"""How timers are trained unless said otherwise, and what a run was begun with."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from edgedl.tasks.run_config import RunConfig, given, option, trained_with
from edgedl.tasks.timer.data import NAME, SCALE, SPACING, check_scale
from edgedl.training.options import TrainOptions
from runtime.errors import InputError

Network = Literal["elman", "jordan", "lstm", "gru"]
NETWORKS: tuple[Network, ...] = get_args(Network)

TRAINING_LENGTH = 8
"""Scales in a training sequence: four starts on average."""
BATCHES = 100
"""Batches of an epoch."""
HIDDEN: Mapping[str, int] = {"elman": 32, "jordan": 32, "lstm": 24, "gru": 24}
SELF_WEIGHT = 0.5


def recipe(network: Network) -> TrainOptions:
    """How a network is trained unless said otherwise; so small ones gain nothing from a second thread."""
    gated = network in ("lstm", "gru")
    return TrainOptions(
        epochs=30 if gated else 70, batch_size=32, optimiser="adam", lr=1e-2 if gated else 6e-3, schedule="one-cycle",
        ema=0.0, clip=1.0, threads=1,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerConfig(RunConfig):
    """The configuration of a timer.

    Attributes:
        network: The recurrent layer.
        hidden: Its units.
        scale: How many steps u2 = 1 stands for.
        steps: Steps of a training sequence.
        spacing: Scales from a start to the next in training sequences, on average; those that choose the best epoch,
            and those of `edgedl evaluate`, always have two.
        truncate: Steps that a gradient goes back; None goes back to the start.
        self_weight: The weight of a Jordan network's context units on themselves; None for other networks.
    """

    task = "timer"

    network: Network = option()
    hidden: int = option(least=1)
    scale: int = option(default=SCALE)
    steps: int = option(least=1)
    spacing: float = option(above=0, default=SPACING)
    truncate: int | None = option(least=1, default=None)
    self_weight: float | None = option(least=0, below=1, default=None)

    def __post_init__(self) -> None:
        """Checks what depends on more than one option."""
        RunConfig.__post_init__(self)
        check_scale(self.scale)
        if self.self_weight is not None and self.network != "jordan":
            raise InputError("--self-weight belongs to a Jordan network's context; add --network jordan")

    @classmethod
    def asked(cls, args: Namespace, options: TrainOptions) -> TimerConfig:
        """The configuration that the command line asks for.

        Raises:
            InputError: an option is out of range, or belongs to another network.
        """
        asked: dict[str, Any] = {"network": NETWORKS[0], "scale": SCALE} | given(args, cls)
        network, scale = asked["network"], asked["scale"]
        defaults: dict[str, Any] = {"hidden": HIDDEN[network], "steps": TRAINING_LENGTH * scale}
        if network == "jordan":
            defaults["self_weight"] = SELF_WEIGHT
        data = {"name": NAME, "n": options.epochs * BATCHES * options.samples_a_step, "skipped": {}, "notes": []}
        return cls(**defaults | asked, data=data, **trained_with(options))
