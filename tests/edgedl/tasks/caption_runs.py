"""Runs of `edgedl train caption` without the training: the captioner for tests in a run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgedl.tasks.caption import training as caption_training
from edgedl.tasks.caption.config import CaptionConfig
from edgedl.training.run import Run
from tests.edgedl.tasks.captioners import WORDS, SmallEncoder, captioner

CONFIG: dict[str, Any] = {
    "task": "caption",
    "encoder": "small",
    "pooled": False,
    "cell": "lstm",
    "hidden": 16,
    "embedding": 10,
    "spread": 0.08,
    "dropout": 0.3,
    "memory_dropout": 0.0,
    "beam": 3,
    "max_length": 8,
    "length_penalty": 0.7,
    "frames": {"kind": "even", "n": 3},
    "shorter": 64,
    "frozen": True,
    "weights": [],
    "license": "Apache-2.0",
    "data": {"name": "nothing", "n": 0, "skipped": {}, "notes": []},
    "learning": {},
    "seed": 5,
    "lr": 0.01,
    "epochs": 3,
    "optimiser": "adam",
    "vocabulary": list(WORDS),
}
DECODERS = {"attention": "attention", "mean": "mean-pool"}
HISTORY = [{"epoch": e, "train_loss": 3 / e, "validation_loss": 3.3 / e, "CIDEr-D": 0.1 * e} for e in (1, 2, 3)]


def know_the_small_encoder(patch: pytest.MonkeyPatch) -> None:
    """Runs may name the encoder ``small``."""
    patch.setitem(caption_training._ENCODERS, "small", lambda config: SmallEncoder())


def small_config(**changes: Any) -> CaptionConfig:
    """The configuration of such a run."""
    return CaptionConfig.from_json({**CONFIG, "decoder": "attention", "places": 16, **changes})


def write_run(path: Path, kind: str = "attention") -> Run:
    """A run whose best network is `captioner(kind)`."""
    places = {"attention": 16, "mean": 0}[kind]
    run = Run.create(path, {**CONFIG, "decoder": DECODERS[kind], "places": places})
    run.save_best(captioner(kind).state_dict(), epoch=3, metric="CIDEr-D", value=0.3)
    run.write_history(HISTORY)
    return run
