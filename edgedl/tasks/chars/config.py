"""How language models of characters are trained unless said otherwise, and what a run was begun with."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from edgedl.tasks.chars.data.texts import Text
from edgedl.tasks.run_config import RunConfig, given, option, trained_with
from edgedl.training.options import TrainOptions
from runtime.characters import Characters

Cell = Literal["lstm", "gru"]
CELLS: tuple[Cell, ...] = get_args(Cell)

NETWORK: Mapping[str, Any] = {"cell": "lstm", "hidden": 128, "layers": 1, "embedding": 32, "dropout": 0.0}
SEQUENCE = 50
RAREST, EMBEDDED_RAREST = 3, 1
"""Characters of a file that occur less often are unknown ones: so the model learns that there are such, and a text that
is judged later may hold new ones. The embedded stories have no others."""


def recipe() -> TrainOptions:
    """char-rnn's clipping at 5; half its batch and a rate that rises and falls, because the training is short."""
    return TrainOptions(
        epochs=20,
        batch_size=25,
        optimiser="adamw",
        lr=5e-3,
        betas=(0.9, 0.99),
        weight_decay=0.0,
        schedule="one-cycle",
        ema=0.98,
        clip=5.0,
        # So small a network gains nothing from a second thread.
        threads=1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CharsConfig(RunConfig):
    """The configuration of a language model of characters.

    Attributes:
        cell: The kind of the recurrent layers.
        hidden: Units of a layer.
        layers: Recurrent layers.
        embedding: Width of a character's vector.
        dropout: Share dropped around each layer, while training.
        sequence: Characters that a gradient sees.
        rarest: Characters of the text that occur less often are unknown; None in runs that did not note it.
        characters: Those that are known, in the order of their tokens, which begin with 1.
    """

    task = "chars"

    cell: Cell = option()
    hidden: int = option(least=1)
    layers: int = option(least=1)
    embedding: int = option(least=1)
    dropout: float = option(least=0, below=1)
    sequence: int = option(least=1)
    rarest: int | None = option(least=1, default=None)
    characters: tuple[str, ...]

    @property
    def vocabulary(self) -> Characters:
        """The known characters and the unknown one."""
        return Characters(self.characters)

    @classmethod
    def asked(cls, args: Namespace, text: Text, options: TrainOptions) -> CharsConfig:
        """The configuration that the command line asks for.

        Raises:
            InputError: an option is out of range, or the text holds too few or too many characters.
        """
        defaults = {**NETWORK, "sequence": SEQUENCE, "rarest": RAREST if args.data else EMBEDDED_RAREST}
        chosen: dict[str, Any] = defaults | given(args, cls)
        # Only of the part that is learnt from: what the end of the text holds must not be known before.
        characters = Characters.of(text.part("train"), chosen["rarest"])
        return cls(
            **chosen,
            characters=characters.known,
            license="LicenseRef-training-data" if args.data else "Apache-2.0",
            data={"name": text.name, "n": len(text.content), "sha256": text.sha256, "skipped": {}, "notes": []},
            **trained_with(options),
        )
