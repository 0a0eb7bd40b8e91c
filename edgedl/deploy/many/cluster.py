"""Parts on Ray: actors that hold an open bundle each, fed by Ray Data no faster than they answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import Any

from edgedl.data.spreading import Answers, Work
from edgedl.deploy.many.answering import Answerer, Setting
from edgedl.deploy.many.inputs import Item
from edgedl.deploy.many.processes import in_order
from edgedl.deploy.many.results import Results
from edgedl.deploy.many.tables import write_rows
from runtime.errors import MissingExtraError

LOCAL = "local"
"""In place of an address: a Ray of its own on this machine."""


def answer_on_ray(
    items: Sequence[Item],
    results: Results,
    setting: Setting,
    address: str,
    workers: int | None,
    told: Callable[[int], None],
) -> None:
    """Answers the parts that are not there yet.

    Every machine of the cluster has to see the inputs, the bundle and the folder of the results under the same paths.
    A part whose actor died is given to another one: that is how Ray Data starts its actors.

    Args:
        items: All inputs.
        results: Where parts are written.
        setting: How the bundle is opened.
        address: Of the cluster, `LOCAL` for one of this process's own.
        workers: Actors; None takes as many as the cluster has processors for.
        told: Called with the number of inputs that were answered.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    rows = [{"part": part, "items": _packed(items[results.rows_of(part)])} for part in results.open_parts()]
    for row in _answered(rows, _Actor, (results, setting), address, workers, setting.threads or 1):
        told(int(row["answered"]))


class Cluster:
    """A `Spread` over a Ray cluster.

    Every machine has to see the bundle and the data under the same paths.

    Args:
        address: Of the cluster, `LOCAL` for one of this process's own.
        workers: Actors; None takes as many as the cluster has processors for.
        threads: Of one of them.
    """

    def __init__(self, address: str, workers: int | None, threads: int) -> None:
        self.address, self.workers, self.threads = address, workers, threads

    def __call__(self, prepare: Callable[[], Work], pieces: Sequence[range]) -> Iterator[Answers]:
        """See `Spread`."""
        rows = [{"number": number, "begin": piece.start, "end": piece.stop} for number, piece in enumerate(pieces)]
        found = _answered(rows, _Worker, (prepare,), self.address, self.workers, self.threads)
        return in_order((int(row["number"]), json.loads(row["answers"])) for row in found)


def _answered(
    rows: Sequence[Mapping[str, Any]],
    actor: type,
    arguments: tuple[Any, ...],
    address: str,
    workers: int | None,
    threads: int,
) -> Iterator[Mapping[str, Any]]:
    """What actors make of rows, in the order in which they are done.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    if not rows:
        return
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        most = workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        parts = ray.data.from_items([*rows], override_num_blocks=len(rows))
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells of its own workings
        answered = parts.map_batches(
            actor,
            fn_constructor_args=arguments,
            batch_size=1,
            num_cpus=threads,
            compute=ray.data.ActorPoolStrategy(size=min(most, len(rows))),
        )
        yield from answered.iter_rows()
    finally:
        ray.shutdown()


class _Actor:
    """Answers parts; lives in a process of Ray's."""

    def __init__(self, results: Results, setting: Setting) -> None:
        self._results = results
        self._answerer = Answerer(setting)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[int]]:
        answered = []
        for part, packed in zip(batch["part"], batch["items"], strict=True):
            rows = self._answerer.answer([Item(*fields) for fields in json.loads(packed)])
            write_rows(self._results.path(int(part)), rows)
            answered.append(len(rows))
        return {"answered": answered}


class _Worker:
    """Answers pieces of a data set; lives in a process of Ray's."""

    def __init__(self, prepare: Callable[[], Work]) -> None:
        self._work = prepare()

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        pieces = [range(int(begin), int(end)) for begin, end in zip(batch["begin"], batch["end"], strict=True)]
        return {"number": [*batch["number"]], "answers": [json.dumps(self._work(piece)) for piece in pieces]}


def _packed(items: Sequence[Item]) -> str:
    return json.dumps([astuple(item) for item in items])
