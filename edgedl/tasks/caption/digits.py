"""The embedded captioner: bouncing digits, an encoder that learns words from still frames, and a small decoder."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgedl.tasks.caption.data.bouncing_digits import ABSENT, DIGIT_WORDS, BouncingDigits
from edgedl.tasks.caption.data.clip_features import ClipFeatures
from edgedl.tasks.caption.network.strided import GRID, StridedEncoder
from exporters.denormals import flush_denormals

log = logging.getLogger(__name__)

STEPS = 1200
BATCH = 64
LEARNING_RATE = 4e-3

ONE_PLACE = 4.0
"""Subtracted from the soft maximum over the 64 places of a grid: a frame without the word starts at low odds."""


@flush_denormals()
def learn_visual_words(encoder: StridedEncoder, dataset: BouncingDigits, seed: int, steps: int = STEPS) -> None:
    """Teaches the encoder on single frames which words their captions hold (Fang et al. 2015, section 3).

    Args:
        encoder: of as many words as there are digits; left in evaluation mode.
        dataset: training clips; the frames are those of the clips whose digits are anywhere.
        seed: of the order.
        steps: of a batch of frames each.
    """
    stills = dataset.pixels()[dataset.jumping()]  # (n, T, H, W)
    digits = dataset.digits()[dataset.jumping()]
    told = np.zeros((len(digits), len(DIGIT_WORDS)), np.float32)
    for column in range(digits.shape[1]):
        there = digits[:, column] != ABSENT
        told[there, digits[there, column]] = 1
    chance = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.15)
    encoder.train()
    sum_of_losses = 0.0
    for step in range(steps):
        rows = chance.integers(len(stills), size=BATCH)
        frames = stills[rows, chance.integers(stills.shape[1], size=BATCH)]
        evidence = encoder.evidence(_levels(frames)).flatten(2).logsumexp(dim=2) - ONE_PLACE
        loss = F.binary_cross_entropy_with_logits(evidence, torch.from_numpy(told[rows]))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch declares no types for it
        optimiser.step()
        schedule.step()
        sum_of_losses += loss.item()
        if (step + 1) % (steps // 4 or 1) == 0:
            log.info("visual words: step %d/%d  loss %.3f", step + 1, steps, sum_of_losses / (steps // 4 or 1))
            sum_of_losses = 0.0
    encoder.eval()


@flush_denormals()
def features_of(encoder: StridedEncoder, dataset: BouncingDigits, *, recombined: bool = False) -> ClipFeatures:
    """The features of all clips, in memory.

    Args:
        encoder: in evaluation mode.
        dataset: n clips.
        recombined: adds a second view, see `recombine`.
    """
    clips = dataset.pixels()
    parts: list[NDArray[np.float16]] = []
    with torch.no_grad():
        for start in range(0, len(clips), BATCH):
            frames = clips[start : start + BATCH].reshape(-1, *clips.shape[2:])
            parts.append(encoder(_levels(frames)).flatten(2).transpose(1, 2).numpy().astype(np.float16))
    views = {"plain": np.concatenate(parts)}
    if recombined:
        shape = (*clips.shape[:2], *views["plain"].shape[1:])
        views["recombined"] = recombine(views["plain"].reshape(shape), dataset).reshape(views["plain"].shape)
    return ClipFeatures(views, np.arange(len(clips) + 1) * clips.shape[1])


def recombine(features: NDArray[np.float16], dataset: BouncingDigits, seed: int = 0) -> NDArray[np.float16]:
    """Gives the digits of each clip that jump about the traces of digits that move, in another clip taken by chance.

    A jumping clip teaches which digits there are, and nothing else (see `learnt_words` of the clips). With its own
    traces, a decoder learns to name digits that jump; with these, to name a digit however it moves.

    Args:
        features: (n, T, W, F) of a `StridedEncoder`.
        dataset: the n clips.
        seed: of the choice.

    Returns:
        (n, T, W, F); clips that move are as they were.
    """
    trace = slice(0, 2 * GRID)  # of a word's features: its rows and columns
    digits, jumping = dataset.digits(), dataset.jumping()
    apart = ~jumping & (digits[:, 0] != digits[:, 1])
    chance = np.random.default_rng(seed)
    mixed = features.copy()
    for two in (False, True):
        givers = np.flatnonzero(apart & ((digits[:, 1] != ABSENT) == two))
        takers = np.flatnonzero(jumping & ((digits[:, 1] != ABSENT) == two))
        if not len(givers):
            continue
        for taker, giver in zip(takers, chance.choice(givers, len(takers)), strict=True):
            columns = range(1 + two)
            given = [features[giver, :, digits[giver, column], trace] for column in columns]
            if two and digits[taker, 0] == digits[taker, 1]:
                given = [np.maximum(*given)] * 2
            for column in columns:
                mixed[taker, :, digits[taker, column], trace] = given[column]
    return mixed


def _levels(frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> Tensor:
    """Grey frames (N, H, W) as levels (N, 3, H, W)."""
    return torch.from_numpy(np.asarray(frames)).float().unsqueeze(1).expand(-1, 3, -1, -1)
