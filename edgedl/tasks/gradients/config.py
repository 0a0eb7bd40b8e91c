"""How the networks that store and recall are trained unless said otherwise, and what each of them was begun with."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from edgedl.tasks.comparison import TrainingConfig
from edgedl.tasks.gradients.data import NAME, STEPS
from edgedl.tasks.run_config import given, option, trained_with
from edgedl.training.options import TrainOptions

Kind = Literal["rnn", "gru", "lstm", "peephole"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BLOCKS: tuple[Kind, ...] = ("lstm", "peephole")
"""The kinds that are made of memory blocks."""
COMPARED: tuple[Kind, ...] = ("rnn", "gru", "lstm")

HIDDEN: Mapping[str, int] = {"rnn": 18, "gru": 10, "lstm": 8, "peephole": 8}
"""Units that make 430 to 460 weights of each."""
RATES: Mapping[str, float] = {"rnn": 5e-3, "gru": 2e-2, "lstm": 2e-2, "peephole": 2e-2}
BATCHES = 100
"""Of an epoch."""


def recipe(kind: Kind) -> TrainOptions:
    """How a network is trained unless said otherwise: the same for all but the rate, which is the best of several."""
    return TrainOptions(
        epochs=8, batch_size=32, optimiser="adam", lr=RATES[kind], schedule="one-cycle", ema=0.0, clip=1.0, threads=1,
        device="cpu",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallConfig(TrainingConfig):
    """The configuration of one network.

    Attributes:
        network: Its kind.
        hidden: Recurrent units.
        steps: Steps of a sequence.
    """

    task = "gradients"
    each = "network"
    shared = ("steps", "seed", "license", "data")

    network: Kind = option()
    hidden: int = option(least=1)
    steps: int = option(least=2)

    @classmethod
    def asked(cls, args: Namespace, kind: Kind, options: TrainOptions) -> RecallConfig:
        """The configuration of one of the networks that the command line asks for.

        Raises:
            InputError: an option is out of range.
        """
        chosen: dict[str, Any] = {"hidden": HIDDEN[kind], "steps": STEPS} | given(args, cls) | {"network": kind}
        data = {"name": NAME, "n": options.epochs * BATCHES * options.samples_a_step, "skipped": {}, "notes": []}
        return cls(**chosen, data=data, **trained_with(options))
