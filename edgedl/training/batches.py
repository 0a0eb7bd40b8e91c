"""Mini-batches straight from arrays in memory: no worker processes, no Python per sample.

A batch is one gather of rows. The order of epoch e depends on (seed, e) alone, so a resumed run sees the batches that
an uninterrupted one would have seen; each process of a distributed training takes every world-th row of that order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor

from runtime.errors import InputError

Array = NDArray[Any]
Column = Array | Tensor | Sequence[Array | Tensor]


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many train together; (0, 1) outside a distributed training."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def derived_seed(*parts: int) -> int:
    """One seed from several numbers, far from the seeds of their neighbours; at most 63 bits, as torch wants."""
    words = np.random.SeedSequence(list(parts)).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


class Samples:
    """Named columns of equal length in memory; a list or tuple of arrays is one column seen in several views.

    Arrays stay what they are (a memory map as well) and are never copied as a whole.

    Example:
        ``Samples({"image": [cropped, aligned], "age": ages})`` with two arrays (n, S, S, 3) uint8 and one (n,): each
        time a sample is drawn for training, one of its two views is taken by chance.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        if not columns:
            raise InputError("samples need at least one column")
        self.columns: dict[str, tuple[Array, ...]] = {}
        for name, column in columns.items():
            views = tuple(map(_as_array, column)) if isinstance(column, list | tuple) else (_as_array(column),)
            if not views or any(view.shape != views[0].shape or view.dtype != views[0].dtype for view in views):
                found = ", ".join(f"{view.dtype}{list(view.shape)}" for view in views) or "none"
                raise InputError(f"all views of {name!r} must have one shape and dtype, found {found}")
            if views[0].ndim == 0:
                raise InputError(f"column {name!r} is a single number; expected one entry per sample")
            self.columns[name] = views
        lengths = {name: len(views[0]) for name, views in self.columns.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"columns must be of equal length, found {lengths}")
        self._length = next(iter(lengths.values()))
        if self._length == 0:
            raise InputError("there are no samples: all columns are empty")

    def __len__(self) -> int:
        return self._length

    def take(self, rows: NDArray[np.int64], chance: np.random.Generator | None = None) -> dict[str, Tensor]:
        """Gathers rows (B,) of every column as fresh tensors.

        Args:
            rows: Which samples.
            chance: Chooses a view for every sample of the step, those of other processes included, so that it does not
                depend on their number; None takes the first view of all.
        """
        return {name: torch.from_numpy(_gather(views, rows, chance)) for name, views in self.columns.items()}


def _as_array(view: Any) -> Array:
    array = view.detach().cpu().numpy() if isinstance(view, Tensor) else np.asanyarray(view)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _gather(views: tuple[Array, ...], rows: NDArray[np.int64], chance: np.random.Generator | None) -> Array:
    if len(views) == 1 or chance is None:
        return np.take(views[0], rows, axis=0)
    rank, world = rank_and_world()
    choice = chance.integers(len(views), size=world * len(rows))[rank::world]
    batch = np.empty((len(rows), *views[0].shape[1:]), dtype=views[0].dtype)
    for number, view in enumerate(views):
        batch[choice == number] = view[rows[choice == number]]
    return batch


@runtime_checkable
class BatchSource(Protocol):
    """What ``fit`` iterates over: a sized iterable of batches that can be told the epoch."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """The batches of the epoch that was set last."""
        ...

    def __len__(self) -> int:
        """How many batches this process draws per epoch."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch of training."""
        ...


def batch_count(samples: int, batch_size: int, *, train: bool) -> int:
    """How many batches this process draws per epoch: in training as many as every other process, and at least one."""
    rank, world = rank_and_world()
    if not train:
        return -(-len(range(rank, samples, world)) // batch_size)
    return max(1, samples // world // batch_size)


def rows_of_epoch(samples: int, seed: int, epoch: int, *, train: bool) -> NDArray[np.int64]:
    """The samples that this process sees, in order: shuffled in training, else all in order."""
    rank, world = rank_and_world()
    rows = np.arange(samples)
    if train:
        np.random.default_rng(derived_seed(seed, epoch)).shuffle(rows)
        rows = np.resize(rows, max(samples, world))  # fewer samples than processes: some are seen twice
        rows = rows[: len(rows) // world * world]
    return rows[rank::world]


def chance_of_epoch(seed: int, epoch: int, *, of_process: bool) -> np.random.Generator:
    """What varies the samples of an epoch: this process's own chance, or the same one in all of them."""
    return np.random.default_rng(derived_seed(seed, epoch, 1 + (rank_and_world()[0] if of_process else 0)))


class Batches:
    """Mini-batches of ``Samples``: shuffled ones for training, or all samples once and in order.

    Training drops the rows that do not fill a batch on every process (other rows each epoch), so that batch statistics
    never come from a handful of samples and all processes take the same number of steps. A set smaller than one batch
    is one smaller batch.
    """

    def __init__(self, samples: Samples, batch_size: int, *, train: bool, seed: int = 0) -> None:
        if batch_size < 1:
            raise InputError(f"the batch size must be at least 1, not {batch_size}")
        self.samples = samples
        self.batch_size = batch_size
        self.train = train
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order and views of an epoch; takes effect with the next ``iter``."""
        self.epoch = epoch

    def __len__(self) -> int:
        return batch_count(len(self.samples), self.batch_size, train=self.train)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rows = rows_of_epoch(len(self.samples), self.seed, self.epoch, train=self.train)
        chance = chance_of_epoch(self.seed, self.epoch, of_process=False) if self.train else None
        for index in range(len(self)):
            yield self.samples.take(rows[index * self.batch_size : (index + 1) * self.batch_size], chance)


class DrawnBatches:
    """Training batches that no epoch has seen before, from sequences that are drawn as they are needed.

    What is drawn depends on the seed, the epoch and the samples of a step only, so that networks that are compared see
    the very same. Each process draws the sequences of all of them and takes its own.

    Args:
        batch_size: B.
        count: batches of an epoch.
        seed: of the sequences.
    """

    def __init__(self, batch_size: int, count: int, seed: int) -> None:
        self.batch_size, self.count, self.seed, self.epoch = batch_size, count, seed, 0

    def draw(self, rows: int, seed: int) -> Mapping[str, Array]:
        """So many sequences as columns, each (rows, …)."""
        raise NotImplementedError

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; takes effect with the next ``iter``."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rank, world = rank_and_world()
        step = world * self.batch_size
        columns = self.draw(self.count * step, derived_seed(self.seed, self.epoch, 0))
        for index in range(self.count):
            rows = slice(index * step + rank, (index + 1) * step, world)
            yield {name: torch.from_numpy(column[rows]) for name, column in columns.items()}
