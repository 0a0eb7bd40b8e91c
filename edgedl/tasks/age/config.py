"""What an age network's run was begun with."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from edgedl.tasks.run_config import Range, RunConfig, Settings, given, option, trained_with
from edgedl.training.objective_names import AgeObjectiveName
from edgedl.training.options import TrainOptions
from edgedl.weights.catalogue import AGE_RESNET10, FACERES_DEEP, Weights
from runtime.errors import InputError

Network = Literal["mobilenet", "resnet10", "compact"]
NETWORKS: tuple[Network, ...] = get_args(Network)
OBJECTIVES: tuple[AgeObjectiveName, ...] = get_args(AgeObjectiveName)

SMALLEST_SIZE: Mapping[Network, int] = {"mobilenet": 32, "resnet10": 39, "compact": 32}
"""Pixels below which nothing is left of a face after the network's strides."""

PUBLIC_WEIGHTS: Mapping[Network, Weights] = {"mobilenet": FACERES_DEEP, "resnet10": AGE_RESNET10}
"""What a network starts from unless told otherwise."""

WITH_DATA = "with --data"
"""How the help calls a training on given faces; the other one is on the embedded faces."""

SIZES: Mapping[Network, int] = {"mobilenet": 160, "resnet10": 80, "compact": 64}
"""Pixels that a network looks at unless told otherwise."""

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "": {"network": "compact", "dropout": 0.1, "calibration": 0.1},
    WITH_DATA: {"network": "mobilenet", "dropout": 0.4, "calibration": 0.2},
}

DEX_YEARS = tuple(float(year) for year in range(101))
"""The 101 classes of DEX, 0 to 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSettings(Settings):
    """What is minimised, see `edgedl.training.objectives.AgeObjective`.

    Attributes:
        name: The objective.
        sigma: Years, of the label distributions of dldl.
        expectation_weight: Weight of |E − age|.
    """

    name: AgeObjectiveName = option(default="dldl", named="objective")
    sigma: float = option(above=0, default=2.0)
    expectation_weight: float = option(least=0, default=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeConfig(RunConfig):
    """The configuration of an age network.

    Attributes:
        network: The network in front of the classes.
        size: Pixels, the side that it looks at.
        years: The classes.
        dropout: Share of the features that are dropped in training.
        crop: How faces are cut out, see `runtime.faces.crop_from_json`.
        objective: What is minimised.
        calibration: Share of the training faces that calibrate the interval and are not learnt from; None in runs of an
            older version, which have none.
        interval: What came of it, see `runtime.intervals.Interval.to_json`; None before the training has ended.
    """

    task = "age"
    not_kept = ("from_nothing", "format", "max_unreadable", "faces", "cache")

    network: Network = option()
    size: int = option()
    years: tuple[float, ...] = DEX_YEARS
    dropout: float = option(least=0, below=1)
    crop: Mapping[str, Any]
    objective: ObjectiveSettings
    calibration: float | None = option(least=0, below=1, default=None)
    interval: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Checks what depends on more than one option."""
        RunConfig.__post_init__(self)
        least = SMALLEST_SIZE[self.network]
        if self.size < least:
            raise InputError(f"--size {self.size} is too small: {self.network} needs at least {least} pixels")

    @classmethod
    def asked(cls, args: Namespace, options: TrainOptions) -> AgeConfig:
        """The configuration that the command line asks for; ``data`` and ``crop`` are still empty.

        Raises:
            InputError: an option is out of range.
        """
        chosen = {**DEFAULTS[WITH_DATA if args.data else ""], **given(args, cls)}
        chosen.setdefault("size", SIZES[chosen["network"]])
        public = None if args.from_nothing else PUBLIC_WEIGHTS.get(chosen["network"])
        # Weights in the public domain ask for nothing.
        terms = ["LicenseRef-training-data"] if args.data else []
        terms += [public.license] if public and public.license != "CC0-1.0" else []
        return cls(
            **chosen,
            objective=ObjectiveSettings(**given(args, ObjectiveSettings)),
            crop={},
            data={},
            license=" AND ".join([*terms, "Apache-2.0"]),
            weights=(public.name,) if public else (),
            **trained_with(options),
        )

    def check_resumed(self, args: Namespace, run_path: Path) -> None:
        """Refuses options that differ from those that the run was begun with.

        Raises:
            InputError: an option was given with another value.
        """
        RunConfig.check_resumed(self, args, run_path)
        if args.from_nothing and self.weights:
            raise InputError(f"{run_path} was begun with the public weights; resume it without --from-nothing")


def recipes() -> dict[str, TrainOptions]:
    """How an age network is trained unless said otherwise.

    Without ``--data``: from nothing, on the synthetic faces, in well under a minute. With it: from the public weights,
    on some ten thousand real faces.
    """
    return {
        "": TrainOptions(
            epochs=6,
            batch_size=64,
            optimiser="adamw",
            lr=4e-3,
            weight_decay=0.02,
            schedule="one-cycle",
            ema=0.99,
            clip=5.0,
            # So small a network gains nothing from a second thread, and on a busy machine loses a lot.
            threads=1,
        ),
        WITH_DATA: TrainOptions(
            epochs=15,
            batch_size=64,
            optimiser="adamw",
            lr=5e-4,
            weight_decay=0.1,
            schedule="cosine",
            warmup=1.0,
            ema=0.998,
            clip=5.0,
            settle=4,
            bf16=None,
            channels_last=True,
        ),
    }


def check_data_options(args: Namespace) -> None:
    """Checks the options that say what is learnt from.

    Raises:
        InputError: an option is out of range, or belongs to other data.
    """
    if args.faces is not None:
        Range(least=1).check("--faces", args.faces)
    if args.data and args.faces is not None:
        raise InputError("--faces counts embedded faces; it does not go together with --data")
    if args.format and not args.data:
        raise InputError("--format says how --data is to be read; there is no --data")
