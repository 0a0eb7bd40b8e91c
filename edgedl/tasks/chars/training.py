"""How a language model of characters is trained: its recipe, its data, and the network of a run."""

from __future__ import annotations

import logging
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgedl.tasks.chars.batches import TextBatches, TextLearning
from edgedl.tasks.chars.data.texts import Text, open_text
from edgedl.tasks.chars.network import STATES, CharacterNetwork
from edgedl.training.arguments import train_options
from edgedl.training.fit import fit
from edgedl.training.lightning_module import TaskModule
from edgedl.training.options import TrainOptions
from edgedl.training.run import Run
from runtime.characters import Characters
from runtime.errors import InputError

log = logging.getLogger(__name__)

NETWORK: Mapping[str, Any] = {"cell": "lstm", "hidden": 128, "layers": 1, "embedding": 32, "dropout": 0.0}
SEQUENCE = 50

RAREST = 3
"""Characters of a file that occur less often are unknown ones: so the model learns that there are such, and a text that
is judged later may hold new ones."""

JUDGED = 50_000
"""Characters of the validation part that choose the epoch, read in one piece."""

JUDGED_WINDOW = 1_000


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


def train_chars(args: Namespace, run_path: Path) -> dict[str, Any]:
    """Trains a language model as the command line says.

    Returns:
        Nats per character of the best epoch on the validation part, its number, and the seconds taken.

    Raises:
        InputError: options that do not fit, or data that cannot be learnt from.
    """
    _check(args)
    began = time.monotonic()
    options = train_options(args, recipe())
    text = open_text(args.data)
    run = Run.open(run_path) if args.resume else None
    config = dict(run.config) if run else _config(args, text, options)
    if config["data"]["sha256"] != text.sha256:
        raise InputError(f"{run_path} was begun on another text, {config['data']['name']}; resume it with that one")
    characters = Characters(tuple(config["characters"]))
    train, validation = (characters.encode(text.part(part)) for part in ("train", "val"))
    log.info(
        "%s: %d characters to learn from, %d of them different, %d to validate",
        text.name, len(train), len(characters) - 1, len(validation),
    )  # fmt: skip
    window = int(config["sequence"])
    source = TextBatches(train, window, options.batch_size, train=True, seed=options.seed)
    judged = TextBatches(validation[:JUDGED], JUDGED_WINDOW, 1, train=False)
    torch.manual_seed(options.seed)
    network = network_of(config)
    if run is None:
        run = Run.create(run_path, config)
    result = fit(TaskModule(network, TextLearning()), source, judged, run, options)
    return {
        "metric": result.metric,
        "best": result.best,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "seconds": round(time.monotonic() - began, 1),
        "characters": len(characters) - 1,
    }


def network_of(config: Mapping[str, Any]) -> CharacterNetwork:
    """The network that a run's configuration describes, with weights from chance.

    Raises:
        InputError: a network that this version does not have.
    """
    if config["cell"] not in STATES:
        raise InputError(f"unknown cell {config['cell']!r}; there is {', '.join(STATES)}")
    shape = {name: config[name] for name in NETWORK}
    return CharacterNetwork(len(config["characters"]) + 1, **shape)


def model_of(run: Run) -> tuple[CharacterNetwork, Characters]:
    """The best network of a run, in evaluation mode, and its characters.

    Raises:
        InputError: no epoch has ended yet, or a network that this version does not have.
    """
    network = network_of(run.config)
    network.load_state_dict(run.best_weights())
    return network.eval(), Characters(tuple(run.config["characters"]))


def _check(args: Namespace) -> None:
    for name in ("hidden", "layers", "embedding", "sequence", "rarest"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, not {value}")
    if args.dropout is not None and not 0 <= args.dropout < 1:
        raise InputError(f"--dropout is a share from 0 to below 1, not {args.dropout}")


def _config(args: Namespace, text: Text, options: TrainOptions) -> dict[str, Any]:
    """Everything needed to build the network again and to say where it came from."""
    shape = {name: value if (value := getattr(args, name)) is not None else NETWORK[name] for name in NETWORK}
    rarest = args.rarest or (RAREST if args.data else 1)
    # Only of the part that is learnt from: what the end of the text holds must not be known before.
    characters = Characters.of(text.part("train"), rarest)
    return {
        "task": "chars",
        **shape,
        "sequence": args.sequence or SEQUENCE,
        "characters": list(characters.known),
        "weights": [],
        "license": "LicenseRef-training-data" if args.data else "Apache-2.0",
        "data": {"name": text.name, "n": len(text.content), "sha256": text.sha256, "skipped": {}, "notes": []},
        "seed": options.seed,
        "lr": options.lr,
        "epochs": options.epochs,
        "optimiser": options.optimiser,
    }
