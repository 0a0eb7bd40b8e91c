"""The embedded captioner: bouncing digits, an encoder that learns words from still frames, and a small decoder."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgedl.data.bouncing_digits import ABSENT, DIGIT_WORDS, BouncingDigits
from edgedl.data.clip_features import ClipFeatures
from edgedl.nn.strided import StridedEncoder

log = logging.getLogger(__name__)

STEPS = 1200
BATCH = 64
LEARNING_RATE = 4e-3

ONE_PLACE = 4.0
"""Subtracted from the soft maximum over the 64 places of a grid: a frame without the word starts at low odds."""


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


def features_of(encoder: StridedEncoder, dataset: BouncingDigits) -> ClipFeatures:
    """The features of all clips, in memory."""
    clips = dataset.pixels()
    parts: list[NDArray[np.float16]] = []
    with torch.no_grad():
        for start in range(0, len(clips), BATCH):
            frames = clips[start : start + BATCH].reshape(-1, *clips.shape[2:])
            parts.append(encoder(_levels(frames)).flatten(2).transpose(1, 2).numpy().astype(np.float16))
    return ClipFeatures({"plain": np.concatenate(parts)}, np.arange(len(clips) + 1) * clips.shape[1])


def _levels(frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> Tensor:
    """Grey frames (N, H, W) as levels (N, 3, H, W)."""
    return torch.from_numpy(np.asarray(frames)).float().unsqueeze(1).expand(-1, 3, -1, -1)
