"""Long time lags: what an answer depends on stands far before it, and nothing in between tells of it.

Four problems, drawn by chance except for the last:

- ``adding``: Hochreiter and Schmidhuber 1997, "Long short-term memory", section 5.4. Pairs of a value from [-1, 1] and
  a marker; two pairs X1 and X2 are marked by 1, one among the first ten and one among the first T/2 - 1 that are still
  unmarked; the first and the last pair carry -1, all others 0. The target is .5 + (X1 + X2)/4 at the end, right within
  .04. In the rare case that the first pair is marked, its value is 0. T to T + T/10 pairs.
- ``copy``: Arjovsky, Shah and Bengio 2016, "Unitary evolution recurrent neural networks", section 5.1. Ten of eight
  symbols, T - 1 blanks, a sign to answer, ten blanks; the answer is T + 10 blanks and then the ten symbols.
- ``order``: temporal order, Hochreiter and Schmidhuber's experiment 6a. A sequence begins with E and ends with B; at
  two places stands an X or a Y, elsewhere a, b, c or d by chance; which of XX, XY, YX, YY was it? Right if every output
  is within .3 of its target. T = 100: T to 110 symbols, the two places from 10 to 20 and from 50 to 60.
- ``digits``: handwritten digits of 8×8 pixels, a pixel at each of 64 steps, row by row. Split before anything else is
  done with them; those of training are shifted by up to a pixel.

What the papers leave open is decided here: all choices are uniform, places count from 0, which is the E, and for
another T than 100 the bounds of experiment 6a grow with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgedl.data.digits import CLASSES, SIDE, embedded_digits
from runtime.errors import InputError

ProblemName = Literal["adding", "copy", "order", "digits"]
Split = Literal["train", "val", "test"]
Array = NDArray[Any]

FIRST = 10
"""Among so many pairs the first marked one is."""
ADDING_TOLERANCE, ORDER_TOLERANCE = 0.04, 0.3

COPIED, SYMBOLS = 10, 8
"""How many symbols are to be copied, and of how many kinds they are."""
BLANK, GO = 8, 9

NOISE, BEGIN, END, CROSS = 4, 4, 5, 6
"""Ids of temporal order: a, b, c, d are 0 to 3, E is 4, B is 5, X is 6, Y is 7."""
ORDERS = ("XX", "XY", "YX", "YY")


@dataclass(frozen=True, slots=True, eq=False)
class LagSequences:
    """What goes in and what should come out.

    Attributes:
        inputs: (n, S, 2) float32 of ``adding``, (n, S) int64 of ``copy`` and ``order``, (n, S) uint8 of ``digits``;
            zeros after the end of a row.
        lengths: (n,) int64, steps of each row.
        targets: (n,) float32 of ``adding``, (n, S) int64 of ``copy``, (n,) int64 of the others.
    """

    inputs: Array
    lengths: NDArray[np.int64]
    targets: Array

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is fixed about a problem.

    Attributes:
        name: of the problem.
        length: T unless said otherwise.
        shortest: the least T.
        features: numbers at each step, once symbols are one-hot.
        outputs: numbers of the answer.
        every_step: whether each step is answered, not only the last.
    """

    name: ProblemName
    length: int
    shortest: int
    features: int
    outputs: int
    every_step: bool = False

    def steps(self, length: int) -> int:
        """S, the most steps of a sequence of nominal length T."""
        if self.name in ("adding", "order"):
            return length + length // 10
        return length + 2 * COPIED if self.name == "copy" else length

    def constant(self, length: int) -> float:
        """The least loss of an answer that does not look at the sequence: of ``adding`` the MSE, else nats.

        Of ``adding`` (2 - p)/48, p being the chance that the first pair is marked and X1 or X2 thus 0: each of two
        values has a variance of 1/3, and the target is a quarter of their sum. Of ``copy`` 10·ln 8/(T + 20).
        """
        if self.name == "adding":
            first = 1 / FIRST
            return (2 - first - (1 - first) / (length // 2 - 1)) / 48
        if self.name == "copy":
            return COPIED * math.log(SYMBOLS) / (length + 2 * COPIED)
        return math.log(self.outputs)


PROBLEMS: Mapping[str, Problem] = {
    "adding": Problem("adding", length=100, shortest=20, features=2, outputs=1),
    "copy": Problem("copy", length=100, shortest=1, features=SYMBOLS + 2, outputs=SYMBOLS + 1, every_step=True),
    "order": Problem("order", length=100, shortest=20, features=NOISE + 4, outputs=len(ORDERS)),
    "digits": Problem("digits", length=SIDE * SIDE, shortest=SIDE * SIDE, features=1, outputs=CLASSES),
}


def check_length(problem: str, length: int) -> None:
    """Refuses a length that a problem does not have.

    Raises:
        InputError: it is too short, or the problem has but one.
    """
    shortest = PROBLEMS[problem].shortest
    if problem == "digits" and length != shortest:
        raise InputError(f"a digit has {shortest} pixels, so its length is {shortest}, not {length}")
    if length < shortest:
        raise InputError(f"the length of {problem} is at least {shortest} steps, found {length}")


def draw_sequences(
    problem: str, count: int, *, length: int | None = None, seed: int = 0, split: Split = "train", part: int = 0
) -> LagSequences:
    """Draws sequences; equal arguments give equal sequences, and no two splits share one but by chance.

    Of ``digits`` the training part is drawn from, without repetition as long as it lasts, and of the other parts the
    first ``count`` are taken as they are.

    Args:
        problem: ``adding``, ``copy``, ``order`` or ``digits``.
        count: n sequences.
        length: T, by default the problem's own.
        seed: of all that is drawn.
        split: ``train``, ``val`` or ``test``.
        part: a number of one's own, e.g. the epoch.

    Raises:
        InputError: there is no such problem or split, or a size is out of range.
    """
    if problem not in PROBLEMS:
        raise InputError(f"there is no problem {problem!r} of long time lags; there is {', '.join(PROBLEMS)}")
    if split not in get_args(Split):
        raise InputError(f"there is no split {split!r} of {problem}; there is {', '.join(get_args(Split))}")
    length = PROBLEMS[problem].length if length is None else length
    check_length(problem, length)
    if count < 1:
        raise InputError(f"at least 1 sequence is drawn, not {count}")
    number = list(PROBLEMS).index(problem)
    chance = np.random.default_rng([seed, get_args(Split).index(split), part, number, length])
    if problem == "digits":
        return _digits(count, split, chance)
    drawn: Mapping[str, Callable[[int, int, np.random.Generator], LagSequences]] = {
        "adding": _adding, "copy": _copy, "order": _order,
    }  # fmt: skip
    return drawn[problem](count, length, chance)


def right_rows(problem: str, answers: Array, targets: Array) -> NDArray[np.bool_]:
    """Which sequences (n,) were answered rightly, by the rule of each paper.

    Args:
        problem: whose rule it is.
        answers: of ``adding`` (n,) on the scale of the targets; of ``copy`` probabilities (n, S, 9), of the others
            (n, K).
        targets: as in `LagSequences`.

    Returns:
        Of ``adding`` within .04; of ``order`` every probability within .3 of 0 or 1; of ``copy`` all of the ten
        symbols the likeliest; of ``digits`` the right one the likeliest.
    """
    right: NDArray[np.bool_]
    if problem == "adding":
        right = np.less(np.abs(answers.astype(np.float64) - targets), ADDING_TOLERANCE)
    elif problem == "order":
        wanted = np.eye(answers.shape[-1])[targets]
        right = np.less(np.abs(answers.astype(np.float64) - wanted).max(axis=-1), ORDER_TOLERANCE)
    elif problem == "copy":
        right = (answers[:, -COPIED:].argmax(axis=-1) == targets[:, -COPIED:]).all(axis=-1)
    else:
        right = np.equal(answers.argmax(axis=-1), targets)
    return right


def _adding(count: int, length: int, chance: np.random.Generator) -> LagSequences:
    steps, rows = PROBLEMS["adding"].steps(length), np.arange(count)
    lengths = chance.integers(length, steps + 1, count)
    values = chance.uniform(-1, 1, (count, steps))
    first = chance.integers(0, FIRST, count)
    second = chance.integers(0, length // 2 - 1, count)
    second += second >= first  # the second among those that are still unmarked
    values[(first == 0) | (second == 0), 0] = 0
    markers = np.zeros((count, steps))
    markers[:, 0] = markers[rows, lengths - 1] = -1
    markers[rows, first] = markers[rows, second] = 1
    inputs = (np.stack([values, markers], axis=-1) * _there(lengths, steps)[..., None]).astype(np.float32)
    targets = 0.5 + (inputs[rows, first, 0] + inputs[rows, second, 0]) / 4
    return LagSequences(inputs, lengths, targets.astype(np.float32))


def _copy(count: int, length: int, chance: np.random.Generator) -> LagSequences:
    steps = PROBLEMS["copy"].steps(length)
    inputs = np.full((count, steps), BLANK)
    targets = np.full((count, steps), BLANK)
    inputs[:, :COPIED] = targets[:, -COPIED:] = chance.integers(0, SYMBOLS, (count, COPIED))
    inputs[:, -COPIED - 1] = GO
    return LagSequences(inputs, np.full(count, steps), targets)


def _order(count: int, length: int, chance: np.random.Generator) -> LagSequences:
    steps, rows = PROBLEMS["order"].steps(length), np.arange(count)
    lengths = chance.integers(length, steps + 1, count)
    inputs = chance.integers(0, NOISE, (count, steps))
    first = chance.integers(length // 10, length // 5 + 1, count)
    second = chance.integers(length // 2, length * 6 // 10 + 1, count)
    which = chance.integers(0, 2, (count, 2))  # 0 an X, 1 a Y
    inputs[:, 0] = BEGIN
    inputs[rows, first], inputs[rows, second] = CROSS + which[:, 0], CROSS + which[:, 1]
    inputs[rows, lengths - 1] = END
    return LagSequences(inputs * _there(lengths, steps), lengths, 2 * which[:, 0] + which[:, 1])


def _digits(count: int, split: Split, chance: np.random.Generator) -> LagSequences:
    part = embedded_digits(split)
    pixels, labels = part.pixels[..., 0], part.labels
    if split == "train":
        rows = np.concatenate([chance.permutation(len(part)) for _ in range(-(-count // len(part)))])[:count]
        down, right = chance.integers(0, 3, (2, count, 1, 1))
        wide = np.pad(pixels, ((0, 0), (1, 1), (1, 1)))
        place = np.arange(SIDE)
        pixels = wide[rows[:, None, None], down + place[:, None], right + place]
        labels = labels[rows]
    pixels, labels = pixels[:count], labels[:count]
    return LagSequences(
        pixels.reshape(len(pixels), -1).copy(), np.full(len(pixels), SIDE * SIDE), labels.astype(np.int64)
    )


def _there(lengths: NDArray[np.int64], steps: int) -> NDArray[np.bool_]:
    """Which steps (n, S) a row has."""
    there: NDArray[np.bool_] = np.arange(steps) < lengths[:, None]
    return there
