"""The samples of a data set, answered side by side: by threads of this process, or by processes elsewhere.

Samples are dealt out in pieces that do not depend on who answers them, and answers come back in the order of the
samples. So whatever is computed of them is the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from runtime.errors import InputError
from runtime.pipelines.base import Pipeline
from runtime.threads import default_threads

P = TypeVar("P", bound=Pipeline)
Answers = list[Any]
"""Of one piece, as plain JSON: they may come from another machine."""

Work = Callable[[range], Answers]


class Spread(Protocol):
    """Processes that answer pieces."""

    def __call__(self, prepare: Callable[[], Work], pieces: Sequence[range]) -> Iterator[Answers]:
        """The answers of each piece, in the order of the pieces.

        Args:
            prepare: Called once in each process; it and what it gives must pickle.
            pieces: Of the samples.

        Raises:
            EdgedlError: `prepare` or the work raised it.
            CheckFailedError: The process that had a piece died again and again.
        """
        ...


@dataclass(frozen=True, slots=True)
class Elsewhere(Generic[P]):
    """Processes that each open the bundle for themselves.

    Attributes:
        spread: The processes.
        opened: Opens a bundle by its path; a function that pickles.
    """

    spread: Spread
    opened: Callable[[str], P]


def pieces_of(count: int, size: int) -> list[range]:
    """So many samples in pieces of a size, the last one smaller."""
    return [range(begin, min(begin + size, count)) for begin in range(0, count, size)]


def answered(
    pipeline: P, work: Callable[[P, range], Answers], pieces: Sequence[range], elsewhere: Elsewhere[P] | None = None
) -> Iterator[Answers]:
    """The answers of each piece, in the order of the pieces.

    Args:
        pipeline: The open bundle; open it with one thread, the pieces run side by side.
        work: Answers a piece; with `elsewhere` it must pickle.
        pieces: Of the samples.
        elsewhere: Who answers; None: threads of this process.
    """
    if elsewhere is not None:
        bundle = pipeline.bundle
        prepare = partial(_prepared, elsewhere.opened, str(bundle.path), bundle.digest, work)
        yield from elsewhere.spread(prepare, pieces)
        return
    with ThreadPoolExecutor(default_threads()) as pool:
        yield from pool.map(partial(work, pipeline), pieces)


def _prepared(opened: Callable[[str], P], path: str, digest: str, work: Callable[[P, range], Answers]) -> Work:
    """The work with a bundle that was opened here.

    Raises:
        InputError: the bundle at the path is another one by now.
    """
    pipeline = opened(path)
    if pipeline.bundle.digest != digest:
        pipeline.close()
        raise InputError(f"{path} was replaced while it was evaluated; begin again")
    return partial(work, pipeline)
