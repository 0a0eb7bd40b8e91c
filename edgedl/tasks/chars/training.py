"""How a language model of characters is trained, and the network of a run."""

from __future__ import annotations

import logging
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from edgedl.tasks.chars.batches import TextBatches, TextLearning
from edgedl.tasks.chars.config import CharsConfig, recipe
from edgedl.tasks.chars.data.texts import open_text
from edgedl.tasks.chars.network import CharacterNetwork
from edgedl.tasks.run_config import trained_with
from edgedl.training.arguments import train_options
from edgedl.training.fit import fit
from edgedl.training.lightning_module import TaskModule
from edgedl.training.run import Run
from runtime.errors import InputError

log = logging.getLogger(__name__)

JUDGED = 50_000
"""Characters of the validation part that choose the epoch, read in one piece."""

JUDGED_WINDOW = 1_000


def train_chars(args: Namespace, run_path: Path) -> dict[str, Any]:
    """Trains a language model as the command line says.

    Returns:
        Nats per character of the best epoch on the validation part, its number, and the seconds taken.

    Raises:
        InputError: options that do not fit, or data that cannot be learnt from.
    """
    began = time.monotonic()
    run = Run.open(run_path) if args.resume else None
    begun = CharsConfig.of(run) if run else None
    options = train_options(args, begun.begun_with(recipe()) if begun else recipe())
    text = open_text(args.data)
    config = begun or CharsConfig.asked(args, text, options)
    if config.data["sha256"] != text.sha256:
        raise InputError(f"{run_path} was begun on another text, {config.data['name']}; resume it with that one")
    config.check_resumed(args, run_path)
    characters = config.vocabulary
    train, validation = (characters.encode(text.part(part)) for part in ("train", "val"))
    log.info(
        "%s: %d characters to learn from, %d of them different, %d to validate",
        text.name, len(train), len(characters) - 1, len(validation),
    )  # fmt: skip
    source = TextBatches(train, config.sequence, options.batch_size, train=True, seed=options.seed)
    judged = TextBatches(validation[:JUDGED], JUDGED_WINDOW, 1, train=False)
    torch.manual_seed(options.seed)
    network = network_of(config)
    run = Run.create(run_path, config.to_json()) if run is None else run.amended(**trained_with(options))
    result = fit(TaskModule(network, TextLearning()), source, judged, run, options)
    return {
        "metric": result.metric,
        "best": result.best,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "seconds": round(time.monotonic() - began, 1),
        "characters": len(characters) - 1,
    }


def network_of(config: CharsConfig) -> CharacterNetwork:
    """The network that a run's configuration describes, with weights from chance."""
    return CharacterNetwork(
        len(config.vocabulary),
        cell=config.cell,
        hidden=config.hidden,
        layers=config.layers,
        embedding=config.embedding,
        dropout=config.dropout,
    )


def trained_network(run: Run) -> CharacterNetwork:
    """The network of a run as it was in its best epoch, in evaluation mode.

    Raises:
        InputError: the run is none of characters, or none of its epochs has ended.
    """
    network = network_of(CharsConfig.of(run))
    network.load_state_dict(run.best_weights())
    return network.eval()
