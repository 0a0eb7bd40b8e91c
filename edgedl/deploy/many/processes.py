"""Parts on the cores of this machine: a pool of processes that survives the death of any of them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, TypeVar

from edgedl.data.spreading import Answers, Work
from edgedl.deploy.many.answering import Answerer, Setting
from edgedl.deploy.many.inputs import Item
from edgedl.deploy.many.results import Results
from edgedl.deploy.many.tables import Row, write_rows
from runtime.errors import CheckFailedError, EdgedlError

DEATHS = 2
"""After so many deaths of the process that had a part, it is not given out any more."""

_work: Any = None
"""Of this process: what `prepare` gave, or the error that it raised."""

T = TypeVar("T")


def answer_on_cores(
    items: Sequence[Item], results: Results, setting: Setting, workers: int, told: Callable[[int], None]
) -> None:
    """Answers the parts that are not there yet.

    An input that ends the process which reads it becomes a row with an error.

    Args:
        items: All inputs.
        results: Where parts are written.
        setting: How the bundle is opened.
        workers: Processes.
        told: Called with the number of inputs that were answered.

    Raises:
        EdgedlError: the bundle cannot be opened.
    """

    def submit(pool: ProcessPoolExecutor, part: int) -> Future[int]:
        return pool.submit(_answer_part, items[results.rows_of(part)], results, part)

    def one_by_one(part: int) -> int:
        rows = _one_by_one(items[results.rows_of(part)], setting)
        write_rows(results.path(part), rows)
        return len(rows)

    for _, count in dealt_out(results.open_parts(), partial(Answerer, setting), workers, submit, one_by_one):
        told(count)


class Cores:
    """A `Spread` over processes of this machine."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __call__(self, prepare: Callable[[], Work], pieces: Sequence[range]) -> Iterator[Answers]:
        """See `Spread`."""

        def submit(pool: ProcessPoolExecutor, number: int) -> Future[Answers]:
            return pool.submit(_answer_piece, pieces[number])

        def give_up(number: int) -> Answers:
            piece = pieces[number]
            raise CheckFailedError(
                f"the process that answered samples {piece.start + 1} to {piece.stop} ended {DEATHS} times without an "
                "answer; it may have lacked memory: take fewer --workers"
            )

        return in_order(dealt_out(range(len(pieces)), prepare, self.workers, submit, give_up))


def in_order(found: Iterable[tuple[int, T]]) -> Iterator[T]:
    """What comes by number, in any order, in the order of the numbers from 0."""
    waiting: dict[int, T] = {}
    turn = 0
    for number, one in found:
        waiting[number] = one
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1


def dealt_out(
    parts: Iterable[int],
    prepare: Callable[[], Any],
    workers: int,
    submit: Callable[[ProcessPoolExecutor, int], Future[T]],
    give_up: Callable[[int], T],
) -> Iterator[tuple[int, T]]:
    """Gives parts to a pool of processes, and again to a new one where a process died.

    Args:
        parts: Their numbers.
        prepare: Called once in each process, see `_prepare`.
        workers: Processes.
        submit: Gives a part to the pool.
        give_up: Gives the result of a part whose process died `DEATHS` times.

    Yields:
        Each part with its result, in the order in which they are done.
    """
    left = dict.fromkeys(parts, 0)
    while left:
        running: dict[Future[T], int] = {}
        try:
            with _pool(prepare, workers) as pool:
                for part in [part for part, deaths in left.items() if deaths < DEATHS]:
                    running[submit(pool, part)] = part
                    # Two for each process: none of them waits, and no more lies in memory than they need.
                    if len(running) >= 2 * workers:
                        yield from _collected(running, left)
                while running:
                    yield from _collected(running, left)
        except BrokenProcessPool:
            for part in running.values():
                left[part] += 1
        for part in [part for part, deaths in left.items() if deaths >= DEATHS]:
            result = give_up(part)
            del left[part]
            yield part, result


def _collected(running: dict[Future[T], int], left: dict[int, int]) -> Iterator[tuple[int, T]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        result = future.result()
        part = running.pop(future)
        del left[part]
        yield part, result


def _one_by_one(items: Sequence[Item], setting: Setting) -> list[Row]:
    """The inputs of a part that ended its process: each alone, and whoever ends its process again is named."""
    rows: list[Row] = []
    while len(rows) < len(items):
        try:
            with _pool(partial(Answerer, setting), 1) as pool:
                for item in items[len(rows) :]:
                    rows += pool.submit(_answer_items, [item]).result()
        except BrokenProcessPool:
            item = items[len(rows)]
            rows.append(Row(item.name, "", setting.digest, "", "the process that read it ended without an answer"))
    return rows


def _pool(prepare: Callable[[], Any], workers: int) -> ProcessPoolExecutor:
    # A session's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _prepare, (prepare,))


def _prepare(prepare: Callable[[], Any]) -> None:
    global _work
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        _work = prepare()
    except EdgedlError as error:  # raised here, it would look like the death of the process
        _work = error


def _end_with_the_parent() -> None:
    """A process of the pool would wait for work for ever when the one that gives it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _prepared() -> Any:
    if isinstance(_work, EdgedlError):
        raise _work
    return _work


def _answer_items(items: Sequence[Item]) -> list[Row]:
    answerer: Answerer = _prepared()
    return answerer.answer(items)


def _answer_part(items: Sequence[Item], results: Results, part: int) -> int:
    write_rows(results.path(part), _answer_items(items))
    return len(items)


def _answer_piece(piece: range) -> Answers:
    work: Work = _prepared()
    return work(piece)
