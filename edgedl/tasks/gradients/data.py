"""Store and recall: a value that came with one command has to be told when another command asks for it.

At every step a value comes in. With the command *store* it is to be kept; all others are distractors. With the command
*recall* the answer is the value that was stored last; else it is 0. After Bellec et al. 2018 ("Long short-term memory
and learning-to-learn in networks of spiking neurons"), whose STORE-RECALL keeps bits, and the latch problem of Bengio,
Simard, Frasconi 1994 ("Learning long-term dependencies with gradient descent is difficult"), where what comes first
decides and noise follows. Here a real number is kept: a bit can be held by units that saturate, which lets the gradient
vanish although nothing is forgotten; to tell x_1 at step t, ∂(answer)_t/∂x_1 has to be 1.

What is decided here:

- Values are uniform from -1 to 1. Always answering 0 has a mean squared error of 1/3 where something is asked.
- The first step stores, the last one recalls. In between a step stores with a chance of 1 in 40 and recalls with 1 in
  8; no step does both. So most of what is asked lies a few steps back, and some lies at the beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError

NAME = "store-recall"
STEPS = 60
"""T, unless said otherwise."""
STORES, RECALLS = 1 / 40, 1 / 8
"""The chance of each command at a step in between."""
SPACING = 10
"""Steps from recall to recall where only the first value is stored."""

Split = Literal["train", "val", "test"]
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class RecallSequences:
    """What goes in and what should come out.

    Attributes:
        inputs: (n, T, 3) value, store, recall; commands are 0 or 1.
        targets: (n, T).
        lag: (n, T) steps since the last store.
    """

    inputs: Array
    targets: Array
    lag: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def asked(self) -> NDArray[np.bool_]:
        """(n, T) the steps of a recall."""
        found: NDArray[np.bool_] = self.inputs[..., 2] > 0.5
        return found


def draw_sequences(
    count: int, *, steps: int = STEPS, seed: int = 0, split: Split = "train", part: int = 0
) -> RecallSequences:
    """Draws sequences; equal arguments give equal sequences, and no two splits share one but by chance.

    Args:
        count: n sequences.
        steps: T of each.
        seed: of all that is drawn.
        split: ``train``, ``val`` or ``test``.
        part: a number of one's own, e.g. the epoch.

    Raises:
        InputError: there is no such split, or a size is out of range.
    """
    chance = _chance(count, steps, seed, split, part)
    values = chance.uniform(-1, 1, (count, steps))
    luck = chance.random((count, steps))
    stores, recalls = luck < STORES, (luck >= STORES) & (luck < STORES + RECALLS)
    stores[:, 0], recalls[:, 0] = True, False
    stores[:, -1], recalls[:, -1] = False, True
    return _sequences(values, stores, recalls)


def draw_kept(count: int, *, steps: int = STEPS, seed: int = 0, split: Split = "test") -> RecallSequences:
    """Sequences whose first value is kept throughout and asked for every ten steps, and at the last one.

    Args:
        count: n sequences.
        steps: T of each.
        seed: of all that is drawn.
        split: as of `draw_sequences`.

    Raises:
        InputError: as of `draw_sequences`.
    """
    chance = _chance(count, steps, seed, split, 1)
    values = chance.uniform(-1, 1, (count, steps))
    stores, recalls = np.zeros((2, count, steps), np.bool_)
    stores[:, 0] = True
    recalls[:, SPACING - 1 :: SPACING] = True
    recalls[:, -1] = True
    return _sequences(values, stores, recalls)


def recall_targets(inputs: Array) -> Array:
    """The right answers (n, T) to inputs (n, T, 3), by the rules above; a command above one half is given.

    Before anything is stored the answer is 0; a step with both commands tells what it stores.
    """
    last = _last_store(inputs[..., 1] > 0.5)
    held = np.take_along_axis(inputs[..., 0], np.maximum(last, 0), axis=1)
    return np.where((inputs[..., 2] > 0.5) & (last >= 0), held, np.float32(0))


def _chance(count: int, steps: int, seed: int, split: Split, part: int) -> np.random.Generator:
    if split not in get_args(Split):
        raise InputError(f"there is no split {split!r} of {NAME} sequences; there is {', '.join(get_args(Split))}")
    if count < 1 or steps < 2:
        raise InputError(f"sequences are at least 1 and their steps at least 2, found {count} of {steps}")
    return np.random.default_rng([seed, get_args(Split).index(split), part, steps])


def _sequences(values: NDArray[np.float64], stores: NDArray[np.bool_], recalls: NDArray[np.bool_]) -> RecallSequences:
    inputs = np.stack([values, stores, recalls], axis=-1).astype(np.float32)
    return RecallSequences(inputs, recall_targets(inputs), np.arange(values.shape[1]) - _last_store(stores))


def _last_store(stores: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The step (n, T) of the latest store up to each step, -1 before the first."""
    last: NDArray[np.int64] = np.maximum.accumulate(np.where(stores, np.arange(stores.shape[1]), -1), axis=1)
    return last
