"""What the methods of a comparison were begun with."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgedl.tasks.comparison import TrainingConfig
from edgedl.tasks.run_config import given, option, trained_with
from edgedl.tasks.sgd.data import NAME, GaugeReadings
from edgedl.tasks.sgd.methods import METHODS
from edgedl.training.options import TrainOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class SgdConfig(TrainingConfig):
    """The configuration of one method of descent; but for its own, the attributes are those of `TrainOptions`.

    Attributes:
        method: Its name.
        dropout: Share of the readings dropped while training.
        cost: The data term, see `edgedl.tasks.sgd.quadratic_cost.QuadraticCost.to_json`.
    """

    task = "sgd"
    each = "method"
    shared = ("seed", "cost", "data")

    method: str = option()
    dropout: float = option(least=0, below=1)
    batch_size: int
    momentum: float
    nesterov: bool
    schedule: str
    l2: float
    l1: float
    weight_decay: float
    cost: Mapping[str, Any]

    @classmethod
    def asked(
        cls,
        args: Namespace,
        method: str,
        options: TrainOptions,
        cost: Mapping[str, Any],
        train: GaugeReadings,
        validation: GaugeReadings,
    ) -> SgdConfig:
        """The configuration that the command line asks for.

        Raises:
            InputError: an option is out of range.
        """
        names = ("nesterov", "schedule", "l2", "l1", "weight_decay")
        chosen: dict[str, Any] = {"dropout": METHODS[method].dropout} | given(args, cls) | {"method": method}
        return cls(
            **chosen,
            batch_size=min(options.batch_size, len(train)),
            momentum=options.momentum if options.optimiser == "sgd" else 0.0,
            **{name: getattr(options, name) for name in names},
            cost=cost,
            license=license_of(train.name),
            data={"name": train.name, "n": len(train), "n_validation": len(validation)},
            **trained_with(options),
        )


def license_of(data: str) -> str:
    """The licence of weights that were learnt on data of that name."""
    return "Apache-2.0" if data == NAME else "LicenseRef-training-data"
