"""Parts on the cores of this machine: a pool of processes that survives the death of any of them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from edgedl.deploy.many.answering import Answerer, Setting
from edgedl.deploy.many.inputs import Item
from edgedl.deploy.many.results import Results
from edgedl.deploy.many.tables import Row, write_rows
from runtime.errors import EdgedlError

DEATHS = 2
"""After so many deaths of the process that had a part, its inputs are given out one by one."""

_answerer: Answerer | EdgedlError | None = None
"""Of this process: the open bundle, or why it cannot be opened."""


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
    left = dict.fromkeys(results.open_parts(), 0)
    while left:
        whole = [part for part, deaths in left.items() if deaths < DEATHS]
        running: dict[Future[int], int] = {}
        try:
            with _pool(setting, workers) as pool:
                waiting = iter(whole)
                for part in waiting:
                    running[pool.submit(_answer_part, items[results.rows_of(part)], results, part)] = part
                    # Two for each process: none of them waits, and no more lies in memory than they need.
                    if len(running) >= 2 * workers:
                        _collect(running, left, told)
                while running:
                    _collect(running, left, told)
        except BrokenProcessPool:
            for part in running.values():
                left[part] += 1
        for part in [part for part, deaths in left.items() if deaths >= DEATHS]:
            write_rows(results.path(part), _one_by_one(items[results.rows_of(part)], setting))
            told(results.rows_of(part).stop - results.rows_of(part).start)
            del left[part]


def _collect(running: dict[Future[int], int], left: dict[int, int], told: Callable[[int], None]) -> None:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        told(future.result())
        del left[running.pop(future)]


def _one_by_one(items: Sequence[Item], setting: Setting) -> list[Row]:
    """The inputs of a part that ended its process: each alone, and whoever ends its process again is named."""
    rows: list[Row] = []
    while len(rows) < len(items):
        try:
            with _pool(setting, 1) as pool:
                for item in items[len(rows) :]:
                    rows += pool.submit(_answer_items, [item]).result()
        except BrokenProcessPool:
            item = items[len(rows)]
            rows.append(Row(item.name, "", setting.digest, "", "the process that read it ended without an answer"))
    return rows


def _pool(setting: Setting, workers: int) -> ProcessPoolExecutor:
    # A session's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _open, (setting,))


def _open(setting: Setting) -> None:
    global _answerer
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        _answerer = Answerer(setting)
    except EdgedlError as error:  # raised here, it would look like the death of the process
        _answerer = error


def _end_with_the_parent() -> None:
    """A process of the pool would wait for work for ever when the one that gives it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _answer_items(items: Sequence[Item]) -> list[Row]:
    assert _answerer is not None  # noqa: S101 - `_open` ran first
    if isinstance(_answerer, EdgedlError):
        raise _answerer
    return _answerer.answer(items)


def _answer_part(items: Sequence[Item], results: Results, part: int) -> int:
    write_rows(results.path(part), _answer_items(items))
    return len(items)
