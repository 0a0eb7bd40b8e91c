"""How the networks of long time lags are trained unless said otherwise, and what each of them was begun with."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from edgedl.data.digits import embedded_digits
from edgedl.tasks.comparison import TrainingConfig
from edgedl.tasks.longlag.data import PROBLEMS, ProblemName, check_length
from edgedl.tasks.run_config import given, option, trained_with
from edgedl.training.options import TrainOptions

Network = Literal["elman", "lstm", "gru", "orthogonal"]
NETWORKS: tuple[Network, ...] = get_args(Network)
PROBLEM: ProblemName = "adding"

RATES: Mapping[Network, float] = {"elman": 1e-3, "lstm": 1e-2, "gru": 1e-2, "orthogonal": 1e-3}
"""Peak learning rates."""
_GATES: Mapping[Network, int] = {"elman": 1, "gru": 3, "lstm": 4, "orthogonal": 1}


@dataclass(frozen=True, slots=True)
class Budget:
    """What every network of a problem gets.

    Attributes:
        units: of an LSTM; the others get as many as make no more weights than it has.
        epochs: of training.
        batches: updates of an epoch.
    """

    units: int
    epochs: int
    batches: int = 50


BUDGETS: Mapping[ProblemName, Budget] = {
    "adding": Budget(units=32, epochs=20),
    "copy": Budget(units=48, epochs=20),
    "order": Budget(units=32, epochs=20),
    "digits": Budget(units=48, epochs=80, batches=20),
}


def recipe(problem: ProblemName, network: Network) -> TrainOptions:
    """How a network is trained unless said otherwise; so small ones gain nothing from a second thread."""
    return TrainOptions(
        epochs=BUDGETS[problem].epochs, batch_size=64, optimiser="adam", lr=RATES[network], schedule="one-cycle",
        ema=0.0, clip=1.0, threads=1,
    )  # fmt: skip


def default_units(problem: ProblemName, network: Network) -> int:
    """The units of a network unless said otherwise: as many as make no more weights than the budget's LSTM has."""
    return units_within(problem, network, weight_count(problem, "lstm", BUDGETS[problem].units))


def weight_count(problem: ProblemName, network: Network, hidden: int) -> int:
    """Weights and biases of a network with H units: g·(H·F + H² + 2·H) + H·K + K with g gates."""
    about = PROBLEMS[problem]
    return _GATES[network] * (hidden * about.features + hidden**2 + 2 * hidden) + (hidden + 1) * about.outputs


def units_within(problem: ProblemName, network: Network, weights: int) -> int:
    """The most units that make no more than so many weights, at least one."""
    hidden = 1
    while weight_count(problem, network, hidden + 1) <= weights:
        hidden += 1
    return hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class LagConfig(TrainingConfig):
    """The configuration of one network.

    Attributes:
        problem: What is learnt.
        length: T, the steps of the lag.
        network: The recurrent layer.
        hidden: Its units.
        batch_size: Sequences of an update.
    """

    task = "longlag"
    each = "network"
    shared = ("problem", "length", "seed", "data")

    problem: ProblemName = option()
    length: int = option()
    network: Network = option()
    hidden: int = option(least=1)
    batch_size: int

    def __post_init__(self) -> None:
        """Checks what depends on more than one option."""
        TrainingConfig.__post_init__(self)
        check_length(self.problem, self.length)

    def begun_with(self, recipe: TrainOptions) -> TrainOptions:
        """See `RunConfig.begun_with`; the size of the batches has always been told."""
        return replace(TrainingConfig.begun_with(self, recipe), batch_size=self.batch_size)

    def resumed_with(self, options: TrainOptions) -> LagConfig:
        """This configuration with the options of the training that goes on."""
        return replace(self, batch_size=options.batch_size, **trained_with(options))

    @classmethod
    def asked(cls, args: Namespace, network: Network, options: TrainOptions) -> LagConfig:
        """The configuration of one of the networks that the command line asks for.

        Raises:
            InputError: an option is out of range.
        """
        asked: dict[str, Any] = {"problem": PROBLEM} | given(args, cls) | {"network": network}
        problem: ProblemName = asked["problem"]
        drawn = options.epochs * BUDGETS[problem].batches * options.samples_a_step
        count = len(embedded_digits("train")) if problem == "digits" else drawn
        defaults = {"length": PROBLEMS[problem].length, "hidden": default_units(problem, network)}
        return cls(
            **defaults | asked,
            batch_size=options.batch_size,
            data={"name": f"longlag-{problem}", "n": count, "skipped": {}, "notes": []},
            **trained_with(options),
        )
