"""Parts on Ray: actors that hold an open bundle each, fed by Ray Data no faster than they answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

from edgedl.deploy.many.answering import Answerer, Setting
from edgedl.deploy.many.inputs import Item
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
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    open_parts = results.open_parts()
    if not open_parts:
        return
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        threads = setting.threads or 1
        most = workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        parts = ray.data.from_items(
            [{"part": part, "items": _packed(items[results.rows_of(part)])} for part in open_parts],
            override_num_blocks=len(open_parts),
        )
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells of its own workings
        answered = parts.map_batches(
            _Actor,
            fn_constructor_args=(results, setting),
            batch_size=1,
            num_cpus=threads,
            compute=ray.data.ActorPoolStrategy(size=min(most, len(open_parts))),
        )
        for row in answered.iter_rows():
            told(int(row["answered"]))
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


def _packed(items: Sequence[Item]) -> str:
    return json.dumps([astuple(item) for item in items])
