"""How a language model learns from one long text: truncated back-propagation through time, the state carried on.

The text is laid out as rows that are read side by side, each from its beginning to its end, a window of T characters
at a step (char-rnn's ``seq_length``). Gradients stop at the window's beginning, the state goes on; so a memory can
become longer than the window, though it is only taught within it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgedl.tasks.chars.network import CharacterNetwork, State
from edgedl.training.batches import derived_seed, rank_and_world
from runtime.errors import InputError


class TextBatches:
    """The windows of a text: {"tokens": (B, T + 1), "first": ()}; ``first`` says that the rows begin anew.

    While training, an epoch lays the rows out from a place of its own, so that windows do not always begin alike. Each
    process of a distributed training reads rows of its own.

    Args:
        tokens: (n,) of the whole text.
        window: T.
        rows: B, fewer where the text is short; 1 reads it in one piece.
        train: shuffle where the rows begin, and drop what does not fill a window.
        seed: of the places.

    Raises:
        InputError: the text is too short for one window.
    """

    def __init__(self, tokens: NDArray[np.int64], window: int, rows: int, *, train: bool, seed: int = 0) -> None:
        self.tokens, self.window, self.most_rows = tokens, window, rows
        self.train, self.seed, self.epoch = train, seed, 0
        self._layout()

    @property
    def rows(self) -> int:
        """How many this process reads side by side."""
        return self._layout()[0]

    def set_epoch(self, epoch: int) -> None:
        """Chooses where the rows of an epoch begin."""
        self.epoch = epoch

    def __len__(self) -> int:
        length = self._layout()[2]
        return -(-length // self.window)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rank = self._processes()[0]
        rows, all_rows, length = self._layout()
        spare = len(self.tokens) - 1 - all_rows * length
        shift = 0
        if self.train:
            shift = int(np.random.default_rng(derived_seed(self.seed, self.epoch)).integers(spare + 1))
        starts = shift + (rank * rows + np.arange(rows)) * length
        for number in range(len(self)):
            begin = number * self.window
            count = min(self.window, length - begin)
            places = starts[:, None] + begin + np.arange(count + 1)
            yield {"tokens": torch.from_numpy(self.tokens[places]), "first": torch.tensor(number == 0)}

    def _processes(self) -> tuple[int, int]:
        """Asked anew each time: a source is made before the processes have found each other."""
        return rank_and_world() if self.train else (0, 1)

    def _layout(self) -> tuple[int, int, int]:
        """The rows of this process, those of all, and how many characters of each are read."""
        window, world, count = self.window, self._processes()[1], len(self.tokens) - 1
        if count < 1 or (self.train and count < window * world):
            raise InputError(
                f"a text of {count + 1} characters is too short for {world} windows of {window}; give more text, or a "
                "shorter --sequence"
            )
        rows = max(1, min(self.most_rows, count // (window * world))) if self.train else self.most_rows
        length = count // (world * rows)
        return rows, world * rows, length // window * window if self.train else length


@dataclass(slots=True)
class TextLearning:
    """Minimises the cross-entropy of the next character, in nats; the state goes on from window to window."""

    monitor: str = "nats_per_character"
    mode: Literal["min", "max"] = "min"
    _states: dict[str, State] = field(default_factory=dict, init=False)

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The mean over a window's characters."""
        logits, targets = self._run(network, batch, "train")
        return F.cross_entropy(logits, targets)

    def measure(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, int]]:
        """Sums over a window and their count: nats, and the characters that were the likeliest."""
        logits, targets = self._run(network, batch, "validation")
        nats = F.cross_entropy(logits, targets, reduction="sum")
        right = (logits.argmax(dim=1) == targets).sum()
        return {
            "validation_loss": (nats, len(targets)),
            "nats_per_character": (nats, len(targets)),
            "accuracy": (right, len(targets)),
        }

    def _run(self, network: nn.Module, batch: Mapping[str, Tensor], what: str) -> tuple[Tensor, Tensor]:
        """Logits (B·T, V) and targets (B·T,)."""
        if not isinstance(network, CharacterNetwork):
            raise TypeError(f"a CharacterNetwork learns from texts, not a {type(network).__name__}")
        tokens = batch["tokens"]
        state = None if bool(batch["first"]) else self._states[what]
        logits, after = network.logits(tokens[:, :-1], state)
        self._states[what] = tuple(part.detach() for part in after)
        return logits.flatten(0, 1).float(), tokens[:, 1:].flatten()
