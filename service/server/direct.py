"""Requests that need no Flask: an array or a picture for ``/v1/NAME``, tensors in binary form for ``/v2``.

Each becomes a call of its bundle's queue, which reads it, runs it and writes the answer in one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from numpy.typing import NDArray

from service.bundles.batching import Call
from service.bundles.served import Served
from service.media_types import WRAPPED_TYPES, is_taken
from service.problems import Problem
from service.replies import Reply, answered
from service.routes.inputs import check_files, read_options
from service.routes.v1 import BASES
from service.routes.v2.encoding import read_header_length
from service.routes.v2.models import Model, find_model
from service.routes.v2.pipelines import read_options as read_parameters
from service.routes.v2.tensors import HEADER_LENGTH, Inference, read_infer, write_infer
from service.server.parts import Parts

_LENGTH = HEADER_LENGTH.lower().encode()

SMALL_JSON = 1 << 12
"""Bytes of JSON that are parsed in the thread that runs a bundle; others wait meanwhile."""


@dataclass(frozen=True, slots=True)
class Direct:
    """A request that goes straight to a queue.

    Attributes:
        served: The bundle.
        call: What it is asked.
        route: As metrics name it.
        decode: What makes the call's source of it, in a thread of its own; None where `call.prepare` does.
        failed: Told when it was not answered.
        graph: It asks a graph, not the pipeline.
    """

    served: Served
    call: Call
    route: str
    decode: Callable[[Any], Any] | None = None
    failed: Callable[[], None] | None = None
    graph: bool = False


@contextmanager
def taken(
    parts: Parts, path: str, headers: Mapping[bytes, bytes], query: bytes, body: bytes
) -> Iterator[Direct | None]:
    """As `direct`. The bundle is not closed while it is asked.

    A request that is wrong gives None: Flask refuses it in the same words, and knows its route.
    """
    try:
        asked = direct(parts, path, headers, query, body)
        while asked is not None and not asked.served.leases.begin():
            asked = direct(parts, path, headers, query, body)  # the bundle was swapped since
    except Problem:
        asked = None
    try:
        yield asked
    finally:
        if asked is not None:
            asked.served.leases.end()


def direct(parts: Parts, path: str, headers: Mapping[bytes, bytes], query: bytes, body: bytes) -> Direct | None:
    """What a POST request asks of a bundle; None where Flask has to see to it.

    Args:
        parts: Of the service.
        path: Of the request.
        headers: By their names in lower case.
        query: Of the request.
        body: The whole of it.

    Raises:
        Problem: The request is wrong.
    """
    if not body:
        return None
    match path.split("/"):
        case ["", "v1", name]:
            return _predict(parts, (name, None), headers, query, body)
        case ["", "v1", name, "versions", version]:
            return _predict(parts, (name, version), headers, query, body)
        case ["", "v2", "models", name, "infer"]:
            return _infer(parts, find_model(parts.served, name), headers, query, body)
        case ["", "v2", "models", name, "versions", version, "infer"]:
            return _infer(parts, find_model(parts.served, name, version), headers, query, body)
    return None


def _predict(
    parts: Parts, asked: tuple[str, str | None], headers: Mapping[bytes, bytes], query: bytes, body: bytes
) -> Direct | None:
    """``POST /v1/NAME``, or that of a version."""
    one, route = parts.served.find(*asked), BASES[asked[1] is not None]
    modality, clips = one.pipeline.modality, one.pipeline.modality == "clip"
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    if modality == "text" or kind in WRAPPED_TYPES or not is_taken(kind, clips=clips):
        return None
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True) if query else {}
    options = read_options(given, one.pipeline.options)
    check_files([body], parts.settings, clips=clips)
    decoding = _Timed(partial(one.decode, settings=parts.settings))

    def render(result: Mapping[str, Any], call: Call) -> Reply:
        parts.metrics.count_result(one.name, result)
        if parts.recorder is not None:
            parts.recorder.keep(one, [body], options, result)
        queued, predicting = call.taken - call.asked, time.perf_counter() - call.taken
        if call.prepare is not None:
            predicting -= decoding.seconds
        return answered(one.name, one.version, [result], decode=decoding.seconds, queue=queued, predict=predicting)

    call = Call([body], options=options, render=render)
    if modality == "arrays":
        call.prepare = decoding  # it takes less time than to wake another thread
        return Direct(one, call, route)
    return Direct(one, call, route, decoding)


def _infer(parts: Parts, model: Model, headers: Mapping[bytes, bytes], query: bytes, body: bytes) -> Direct | None:
    """``POST /v2/models/NAME.MODEL/infer`` with tensors in binary form."""
    length = read_header_length(headers[_LENGTH].decode("latin-1")) if _LENGTH in headers else None
    if model.graph is None or length is None or length > SMALL_JSON or b"content-encoding" in headers or query:
        return None
    counted = parts.statistics.of(model.name, model.version)
    inferences: list[Inference] = []

    def read(sent: bytes) -> Mapping[str, NDArray[Any]]:
        inference = read_infer(sent, length, model.spec)
        read_parameters(inference.parameters, {})
        inferences.append(inference)
        return inference.inputs

    reading = _Timed(read)

    def render(outputs: Mapping[str, NDArray[Any]], call: Call) -> Reply:
        start = time.perf_counter()
        (inference,) = inferences
        fields, written = write_infer(model.name, model.version, inference, outputs)
        spent = {
            "compute_input": round(reading.seconds * 1e9),
            "compute_infer": round((start - call.taken - reading.seconds) * 1e9),
            "compute_output": round((time.perf_counter() - start) * 1e9),
        }
        counted.count(inference.rows, queue=round((call.taken - call.asked) * 1e9), **spent)
        if call.run != 0:
            counted.count_execution(call.run or inference.rows, **spent)
        kind = fields.pop("Content-Type")
        return Reply(200, written, kind, fields)

    call = Call(body, model.graph, prepare=reading, render=render)
    start = time.perf_counter_ns()

    def failed() -> None:
        counted.count_failure(time.perf_counter_ns() - start)

    route = "/v2/models/<name>/infer"
    return Direct(model.served, call, route, failed=failed, graph=True)


class _Timed:
    """A function that notes how long it took."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work
        self.seconds = 0.0

    def __call__(self, argument: Any) -> Any:
        start = time.perf_counter()
        try:
            return self._work(argument)
        finally:
            self.seconds = time.perf_counter() - start
