"""``/v1``: the bundles, an answer for a picture, a clip or an array, and streams of steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson
from flask import Blueprint, Response, after_this_request, request

from runtime.arena import release_memory
from runtime.errors import InputError
from runtime.pipelines.base import ArrayPipeline, TextPipeline
from service.arrays import json_arrays
from service.deadlines import Deadlines
from service.drawings import wanted_drawing
from service.inputs import read_body, read_files, read_options, unsupported
from service.memory import give_back
from service.metrics import Metrics
from service.problems import Problem, from_edgedl
from service.repository import Repository
from service.served import Served, Settings
from service.streams import Streams
from service.text import Texts

JSON = "application/json"
STEP_TYPES = (JSON, "text/plain")
LARGE = 1 << 16
"""Bytes of a request of arrays from which on its memory is given back at once, which takes a millisecond."""


def json_response(document: Any, status: int = 200) -> Response:
    """A JSON answer; numpy values are written as they are."""
    body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    return Response(body, status=status, content_type="application/json")


def answered(one: Served, results: Sequence[Any], predicting: float, decoding: float | None = None) -> Response:
    """The results of a bundle, and how many seconds went into them."""
    manifest = one.pipeline.bundle.manifest
    response = json_response({"name": one.name, "version": manifest.version, "results": results})
    parts = {"predict": predicting} if decoding is None else {"decode": decoding, "predict": predicting}
    response.headers["Server-Timing"] = ", ".join(f"{name};dur={part * 1e3:.2f}" for name, part in parts.items())
    return response


def released(response: Response, *, arrays: bool, start: float) -> Response:
    """The response; what a large request took in memory goes back to the system once it is sent, refused or not."""
    sent = request.content_length or LARGE
    if not arrays:
        response.call_on_close(partial(give_back, time.perf_counter() - start, sent))
    elif sent >= LARGE:
        response.call_on_close(release_memory)
    return response


def blueprint(served: Repository, settings: Settings, metrics: Metrics) -> Blueprint:
    """The routes ``GET /v1``, ``POST /v1/NAME`` and those of ``/v1/NAME/streams``."""
    routes = Blueprint("v1", __name__)
    deadlines = Deadlines()
    texts = Texts()

    def streams(name: str) -> Streams:
        found = served.find(name).streams
        if found is None:
            raise Problem(404, f"The bundle {name!r} carries no state from step to step; POST /v1/{name} asks it.")
        return found

    @routes.get("/v1")
    def bundles() -> Response:
        limits = {
            "max_bytes": settings.max_bytes,
            "max_pixels": settings.max_pixels,
            "max_images": settings.max_images,
            "video_seconds": settings.video_seconds,
        }
        return json_response({"bundles": [one.describe() for one in served.values()], "limits": limits})

    @routes.post("/v1/<name>")
    def predict(name: str) -> Response:
        one = served.find(name)
        pipeline = one.pipeline
        if isinstance(pipeline, TextPipeline):
            return texts.answer(one, pipeline, request, settings, deadlines)
        takes_arrays = isinstance(pipeline, ArrayPipeline)
        after_this_request(partial(released, arrays=takes_arrays, start=time.perf_counter()))
        options = read_options(request.args.to_dict(flat=False), pipeline.options)
        if isinstance(pipeline, ArrayPipeline) and request.mimetype == JSON:
            body = read_body(request, settings, deadlines)
            start = time.perf_counter()
            arrays = json_arrays(body, pipeline.array_inputs)
            decoding = time.perf_counter() - start
            result = one.predict(arrays, options)
            metrics.count_result(name, result)
            return answered(one, [result], time.perf_counter() - start - decoding, decoding)
        clips = pipeline.modality == "clip"
        files = read_files(request, settings, deadlines, clips=clips)
        # Several images are several questions, but to a bundle that takes clips the frames of one.
        sources: Sequence[Sequence[bytes]] = [files] if clips else [[data] for data in files]
        decoding = predicting = 0.0
        results = []
        for index, source in enumerate(sources):
            try:
                start = time.perf_counter()
                decoded_source = one.decode(source, settings)
                decoded = time.perf_counter()
                results.append(one.predict(decoded_source, options))
            except InputError as error:
                where = f"Image {index + 1} of {len(sources)}" if len(sources) > 1 else ""
                raise from_edgedl(error, where) from error
            del decoded_source  # two large pictures are never in memory at once
            decoding += decoded - start
            predicting += time.perf_counter() - decoded
            metrics.count_result(name, results[-1])
        return answered(one, results, predicting, decoding)

    @routes.post("/v1/<name>/drawings")
    def drawing(name: str) -> Response:
        one = served.find(name)
        if not one.pipeline.can_draw:
            raise Problem(404, f"The bundle {name!r} draws nothing; POST /v1/{name} asks it.")
        if request.mimetype != JSON:
            raise unsupported(request.mimetype, (JSON,))
        wanted = wanted_drawing(read_body(request, settings, deadlines))
        start = time.perf_counter()
        return answered(one, [one.predict(wanted, {})], time.perf_counter() - start)

    @routes.post("/v1/<name>/streams")
    def open_stream(name: str) -> Response:
        opened = streams(name)
        read_body(request, settings, deadlines)  # nothing is asked for, but what was sent has to be taken
        stream = opened.open()
        url = f"/v1/{name}/streams/{stream}"
        response = json_response(
            {
                "stream": stream,
                "url": url,
                "idle_seconds": opened.limits.idle_seconds,
                "age_seconds": opened.limits.age_seconds,
            },
            201,
        )
        response.headers["Location"] = url
        return response

    @routes.post("/v1/<name>/streams/<stream>")
    def steps(name: str, stream: str) -> Response:
        fed = streams(name)
        if request.mimetype not in STEP_TYPES:
            raise unsupported(request.mimetype, STEP_TYPES)
        body = read_body(request, settings, deadlines)
        return json_response(fed.feed(stream, body, as_json=request.mimetype == STEP_TYPES[0]))

    @routes.delete("/v1/<name>/streams/<stream>")
    def close_stream(name: str, stream: str) -> Response:
        streams(name).close(stream)
        return Response(status=204)

    return routes
