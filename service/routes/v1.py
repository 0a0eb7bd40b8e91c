"""``/v1``: the bundles, an answer for a picture, a clip or an array, and streams of steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from flask import Blueprint, Response, request

from runtime.errors import InputError
from runtime.pipelines.base import ArrayPipeline, TextPipeline
from service.bundles.repository import Repository
from service.bundles.served import LARGE, Served
from service.bundles.streams import Streams
from service.operations.metrics import Metrics
from service.operations.recording import Recorder
from service.problems import Problem, from_edgedl
from service.replies import JSON_TYPE, answered, flask_response, json_reply
from service.routes.arrays import json_arrays
from service.routes.drawings import wanted_drawing
from service.routes.examples import example
from service.routes.inputs import read_body, read_files, read_options, unsupported
from service.routes.text import Texts
from service.settings import Settings

View = TypeVar("View", bound=Callable[..., Response])

BASES = ("/v1/<name>", "/v1/<name>/versions/<version>")
"""Where the highest version of a bundle answers, and where each version does."""

STEP_TYPES = (JSON_TYPE, "text/plain")
ROUTES = ("url", "streams", "drawings", "example")
"""What a description of a bundle names its routes."""


def json_response(document: Any, status: int = 200) -> Response:
    """A JSON answer; numpy values are written as they are."""
    return flask_response(json_reply(document, status))


def blueprint(
    served: Repository, settings: Settings, metrics: Metrics, texts: Texts, recorder: Recorder | None = None
) -> Blueprint:
    """The routes ``GET /v1``, ``POST /v1/NAME`` and those below it; for a version below ``/v1/NAME/versions/V``."""
    routes = Blueprint("v1", __name__)

    def route(below: str, method: str) -> Callable[[View], View]:
        """A route of a bundle's highest version, and the same of a version that is named."""

        def register(view: View) -> View:
            for base in BASES:
                routes.route(base + below, methods=[method])(view)
            return view

        return register

    @routes.get("/v1")
    def bundles() -> Response:
        limits = {
            "max_bytes": settings.max_bytes,
            "max_pixels": settings.max_pixels,
            "max_images": settings.max_images,
            "video_seconds": settings.video_seconds,
        }
        listed = [_placed(one.describe(served.versions(name))) for name, one in served.items()]
        kept = None if recorder is None else recorder.recording.to_json()
        return json_response({"bundles": listed, "limits": limits, "recording": kept})

    @route("", "POST")
    def predict(name: str, version: str | None = None) -> Response:
        with served.lease(name, version) as one:
            if isinstance(one.pipeline, TextPipeline):
                return texts.answer(one, one.pipeline, request, settings)
            return answer(one)

    def answer(one: Served) -> Response:
        pipeline = one.pipeline
        options = read_options(request.args.to_dict(flat=False), pipeline.options)
        start = time.perf_counter()
        if isinstance(pipeline, ArrayPipeline) and request.mimetype == JSON_TYPE:
            body = read_body(request, settings)
            start = time.perf_counter()
            arrays = json_arrays(body, pipeline.array_inputs)
            decoding = time.perf_counter() - start
            one.watch.decoded(decoding)
            result = one.predict(arrays, options)
            metrics.count_result(one.name, result)
            if recorder is not None:
                recorder.keep(one, arrays, options, result)
            predicting = time.perf_counter() - start - decoding
            one.mark(len(body), predicting)
            return flask_response(answered(one.name, one.version, [result], decode=decoding, predict=predicting))
        clips = pipeline.modality == "clip"
        files = read_files(request, settings, clips=clips)
        # Several images are several questions, but to a bundle that takes clips the frames of one.
        sources: Sequence[Sequence[bytes]] = [files] if clips else [[data] for data in files]
        decoding = predicting = 0.0
        results = []
        try:
            for index, source in enumerate(sources):
                try:
                    begun = time.perf_counter()
                    decoded_source = one.decode(source, settings)
                    decoded = time.perf_counter()
                    results.append(one.predict(decoded_source, options))
                except InputError as error:
                    where = f"Image {index + 1} of {len(sources)}" if len(sources) > 1 else ""
                    raise from_edgedl(error, where) from error
                del decoded_source  # two large pictures are never in memory at once
                decoding += decoded - begun
                predicting += time.perf_counter() - decoded
                metrics.count_result(one.name, results[-1])
                if recorder is not None:
                    recorder.keep(one, source, options, results[-1])
        finally:
            one.mark(request.content_length or LARGE, time.perf_counter() - start)
        return flask_response(answered(one.name, one.version, results, decode=decoding, predict=predicting))

    @route("/example", "GET")
    def recorded(name: str, version: str | None = None) -> Response:
        with served.lease(name, version) as one:
            return json_response(example(one, settings.max_images))

    @route("/drawings", "POST")
    def drawing(name: str, version: str | None = None) -> Response:
        with served.lease(name, version) as one:
            if not one.pipeline.can_draw:
                raise Problem(404, f"The bundle {name!r} draws nothing; POST /v1/{name} asks it.")
            if request.mimetype != JSON_TYPE:
                raise unsupported(request.mimetype, (JSON_TYPE,))
            wanted = wanted_drawing(read_body(request, settings))
            start = time.perf_counter()
            result = one.predict(wanted, {})
            return flask_response(answered(one.name, one.version, [result], predict=time.perf_counter() - start))

    @route("/streams", "POST")
    def open_stream(name: str, version: str | None = None) -> Response:
        with served.lease(name, version) as one:
            opened = streams(one)
            read_body(request, settings)  # nothing is asked for, but what was sent has to be taken
            one.require()
            stream = opened.open()
        url = f"{quote(request.script_root + request.path.rstrip('/'))}/{stream}"
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

    @route("/streams/<stream>", "POST")
    def steps(name: str, stream: str, version: str | None = None) -> Response:
        with served.lease_stream(name, version, stream) as one:
            fed = streams(one)
            if request.mimetype not in STEP_TYPES:
                raise unsupported(request.mimetype, STEP_TYPES)
            body = read_body(request, settings)
            if one.health.withdrawn is not None:
                raise one.health.problem()
            return json_response(fed.feed(stream, body, as_json=request.mimetype == STEP_TYPES[0]))

    @route("/streams/<stream>", "DELETE")
    def close_stream(name: str, stream: str, version: str | None = None) -> Response:
        with served.lease_stream(name, version, stream) as one:
            streams(one).close(stream)
        return Response(status=204)

    return routes


def streams(one: Served) -> Streams:
    """The streams of a bundle.

    Raises:
        Problem: 404, it has none.
    """
    if one.streams is None:
        raise Problem(404, f"The bundle {one.name!r} carries no state from step to step; POST /v1/{one.name} asks it.")
    return one.streams


def _placed(described: Any) -> Any:
    """A description with its routes as the client has to ask for them: below any prefix."""
    if isinstance(described, list):
        return [_placed(value) for value in described]
    if not isinstance(described, dict):
        return described
    return {
        key: request.script_root + value if key in ROUTES and value else _placed(value)
        for key, value in described.items()
    }
