"""``GET /openapi.json``: the routes of this very application, with its bundles and limits (OpenAPI 3.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response

from runtime.pipelines.base import ArrayPipeline
from service.bundles.repository import Repository
from service.bundles.served import Served
from service.bundles.streams import NAME, StreamLimits
from service.json_body import MOST_BYTES
from service.keys import OPEN
from service.media_types import raw_types
from service.replies import EVENT_STREAM, Reply, flask_response, json_reply
from service.routes.schemas import BUNDLES, array_schema, closed, step_schema
from service.routes.text import MOST_LENGTH, MOST_PROMPT, MOST_TEXTS
from service.routes.v2 import openapi as v2
from service.settings import Settings

_TYPES = {bool: "boolean", int: "integer", float: "number"}
_TEXT_OPTIONS = {
    "length": {"type": "integer", "minimum": 1, "maximum": MOST_LENGTH, "description": "characters to write"},
    "temperature": {"type": "number", "minimum": 0, "maximum": 100, "description": "0: always the likeliest"},
    "top_k": {"type": "integer", "minimum": 0, "description": "draw from so many of the likeliest; 0: from all"},
    "seed": {"type": "integer", "minimum": 0, "description": "of the draws"},
}
"""What a text is asked for with."""

_PROBLEMS = {
    "400": "The request has the wrong form: `found` and `expected` say how.",
    "404": "There is no such bundle.",
    "405": "The route does not take this method; `Allow` lists what it takes.",
    "408": "The body did not arrive in time.",
    "413": "The body, the image, the video or the number of images is over the limit.",
    "415": "The content type is not one of those in `Accept`.",
    "422": "The file cannot be decoded, or does not suit the bundle.",
    "500": "The server failed; its log has the reason under `request_id`.",
    "503": "The bundle cannot answer at present; `Retry-After` says when to try again.",
}
_UNAUTHORIZED = "The request has no key, or one that is not known; `WWW-Authenticate` says how to send it."
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "found": {"type": "string"},
        "expected": {"type": "string"},
        "request_id": {"type": "string"},
    },
}
_READINESS = {"200": ("ready", "application/json"), "503": ("A bundle does not answer.", "application/json")}


def blueprint(served: Repository, settings: Settings) -> Blueprint:
    """The route ``/openapi.json``."""
    routes = Blueprint("openapi", __name__)
    kept: list[tuple[tuple[Served, ...], Reply]] = []

    @routes.get("/openapi.json")
    def openapi() -> Response:
        # Made once for the bundles that are served: it takes milliseconds, and anybody may ask for it.
        offered = served.all()
        if not kept or any(one is not other for one, other in zip_longest(kept[0][0], offered)):
            kept[:] = [(offered, json_reply(document(served, settings)))]
        return flask_response(kept[0][1])

    return routes


def document(served: Repository, settings: Settings) -> dict[str, Any]:
    """The OpenAPI document of a service."""
    plain = {
        "/": ("The page for people.", {"200": ("HTML", "text/html")}),
        "/v1": ("The bundles, their signatures and the limits.", {"200": ("the list", "application/json")}),
        "/livez": ("The process is alive.", {"200": ("alive", "application/json")}),
        "/readyz": ("Every bundle answers; what was proven of each on this machine.", _READINESS),
        "/health": ("Liveness and readiness of each bundle, in detail.", _READINESS),
        "/metrics": ("Prometheus metrics.", {"200": ("exposition", "text/plain")}),
        "/openapi.json": ("This document.", {"200": ("OpenAPI 3.1", "application/json")}),
    }
    paths: dict[str, Any] = {
        path: {
            "get": {
                "summary": summary,
                "operationId": path.strip("/").replace(".", "_") or "page",
                "responses": {status: _content(*answer) for status, answer in answers.items()},
            }
        }
        for path, (summary, answers) in plain.items()
    }
    for one in served.all():
        routes = {f"/v1/{one.name}": {"post": _predict(one, settings)}}
        if one.streams is not None:
            routes |= _streams(one, one.streams.limits)
        if one.pipeline.can_draw:
            routes |= _drawings(one)
        if one.pipeline.has_example:
            routes |= _example(one, routes[f"/v1/{one.name}"]["post"]["requestBody"]["content"]["application/json"])
        paths |= _of_version(routes, one)
        if served[one.name] is one:
            paths |= routes
    paths |= v2.paths(served)
    listed = paths["/v1"]["get"]["responses"]["200"]["content"]["application/json"]
    listed["schema"] = {"$ref": "#/components/schemas/Bundles"}
    schemas: dict[str, Any] = {"Problem": _PROBLEM, "Bundles": BUNDLES, **v2.SCHEMAS}
    for one in served.all():
        schemas[one.pipeline.result["title"]] = one.pipeline.result
    components: dict[str, Any] = {"schemas": schemas}
    if settings.keys is not None:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in paths.items():
            for operation in operations.values() if path not in OPEN else ():
                operation["security"] = [{"key": []}]
                operation["responses"] = operation["responses"] | {"401": _problem(_UNAUTHORIZED)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgedl",
            "summary": "Bundles that answer over HTTP.",
            "version": "1",
        },
        "servers": [{"url": "."}],
        "paths": paths,
        "components": components,
    }


def _of_version(routes: Mapping[str, Any], one: Served) -> dict[str, Any]:
    """The same routes of the version that is named."""
    base, mark = f"/v1/{one.name}", "_" + re.sub(r"\W", "_", one.version)
    return {
        f"{base}/versions/{quote(one.version, safe='')}{path.removeprefix(base)}": {
            method: operation | {"operationId": operation["operationId"] + mark} for method, operation in item.items()
        }
        for path, item in routes.items()
    }


def _streams(one: Served, limits: StreamLimits) -> dict[str, Any]:
    """The routes of a bundle that carries a state."""
    name = one.name
    gone = {
        "404": _problem("That is no name of a stream."),
        "410": _problem("The stream is closed, expired or lost: open a new one."),
    }
    number = {"type": "number"}
    opened = closed(
        {"stream": {"type": "string"}, "url": {"type": "string"}, "idle_seconds": number, "age_seconds": number},
        ("stream", "url", "idle_seconds", "age_seconds"),
    )
    (model,) = one.pipeline.bundle.manifest.models.values()
    carried = {state.input for state in model.state}
    step = step_schema([tensor for tensor in model.inputs if tensor.name not in carried])
    steps = closed(
        {"steps": {"type": "array", "minItems": 1, "maxItems": limits.steps, "items": step}},
        ("steps",),
    )
    answer = closed(
        {
            "stream": {"type": "string"},
            "steps": {"type": "integer", "description": "that the stream has taken so far"},
            "results": {"type": "array", "items": {"type": "object"}},
        },
        ("stream", "steps", "results"),
    )
    lines = {"type": "string", "minLength": 1, "description": "a line for each step, numbers between blanks, or JSON"}
    parameter = {
        "name": "stream",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": f"^{NAME.pattern}$"},
    }
    return {
        f"/v1/{name}/streams": {
            "post": {
                "summary": "Opens a stream, whose state stays here from step to step.",
                "description": f"At most {limits.number} at once; one that is idle for {limits.idle_seconds:g} seconds "
                f"or older than {limits.age_seconds:g} is closed.",
                "operationId": f"open_{name}",
                "responses": {
                    "201": {
                        "description": "its name",
                        "headers": {"Location": {"schema": {"type": "string"}, "description": "the stream"}},
                        "content": {"application/json": {"schema": opened}},
                    }
                }
                | _problems("400", "408", "413", "500")
                | {"503": _problem("As many are open as may be; `Retry-After` says when to try again.")},
            }
        },
        f"/v1/{name}/streams/{{stream}}": {
            "post": {
                "summary": "Answers steps, one after the other.",
                "operationId": f"step_{name}",
                "parameters": [parameter],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": steps}, "text/plain": {"schema": lines}},
                },
                "responses": {
                    "200": {"description": "one result a step", "content": {"application/json": {"schema": answer}}}
                }
                | gone
                | _problems("400", "408", "413", "415", "422", "500", "503"),
            },
            "delete": {
                "summary": "Closes a stream.",
                "operationId": f"close_{name}",
                "parameters": [parameter],
                "responses": {"204": {"description": "closed"}} | gone | _problems("500"),
            },
        },
    }


def _example(one: Served, body: Mapping[str, Any]) -> dict[str, Any]:
    """The route of a bundle that has recorded inputs."""
    return {
        f"/v1/{one.name}/example": {
            "get": {
                "summary": f"A recorded input, as the JSON that POST /v1/{one.name} takes.",
                "operationId": f"example_{one.name}",
                "responses": {"200": {"description": "the body of a request", "content": {"application/json": body}}}
                | {"404": _problem("The recorded inputs can no longer be read."), "500": _problems()["500"]},
            }
        }
    }


def _drawings(one: Served) -> dict[str, Any]:
    """The route of a bundle that can draw."""
    seed = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1, "default": 0}
    seed["description"] = "another one, another drawing"
    body = closed({"label": {"type": "integer", "minimum": 0, "maximum": 9}, "seed": seed}, ("label",))
    problems = _problems("400", "404", "408", "413", "415", "422", "500", "503")
    return {
        f"/v1/{one.name}/drawings": {
            "post": {
                "summary": "Draws what it reads: the result has the drawing, and what is read in it.",
                "operationId": f"draw_{one.name}",
                "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
                "responses": {
                    "200": {
                        "description": "One result.",
                        "content": {"application/json": {"schema": _answer(one)}},
                    }
                }
                | problems,
            }
        }
    }


def _content(description: str, media_type: str) -> dict[str, Any]:
    return {"description": description, "content": {media_type: {}}}


def _predict(one: Served, settings: Settings) -> dict[str, Any]:
    pipeline = one.pipeline
    if pipeline.modality == "text":
        return _go_on(one)
    if isinstance(pipeline, ArrayPipeline):
        return _arrays(one, pipeline)
    manifest = one.pipeline.bundle.manifest
    base64 = {"type": "string", "contentEncoding": "base64"}
    # One of two forms, each closed: the body is either a single image or a list of them.
    json_body = {
        "oneOf": [
            closed({key: schema}, (key,))
            for key, schema in (
                ("image", base64),
                ("images", {"type": "array", "minItems": 1, "maxItems": settings.max_images, "items": base64}),
            )
        ]
    }
    form = {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"type": "string", "contentMediaType": "application/octet-stream"},
    }
    limits = (
        f"At most {settings.max_bytes:,} bytes, {settings.max_pixels:,} pixels an image and "
        f"{settings.max_images} images a request."
    )
    results = "One result an image, in order."
    clips = pipeline.modality == "clip"
    if clips:
        limits += f" A video may take {settings.video_seconds:g} seconds to decode."
        results = "One result: the images of a request are the frames of one clip."
    return {
        "summary": manifest.description or f"Answers of the bundle {one.name}.",
        "description": limits,
        "operationId": f"predict_{one.name}",
        "parameters": [
            {"name": option, "in": "query", "required": False, "schema": {"type": _TYPES[kind]}}
            for option, kind in pipeline.options.items()
        ],
        "requestBody": {
            "required": True,
            "content": {media_type: {} for media_type in raw_types(clips=clips)}
            | {"multipart/form-data": {"schema": form}, "application/json": {"schema": json_body}},
        },
        "responses": {
            "200": {
                "description": results,
                "content": {"application/json": {"schema": _answer(one)}},
            }
        }
        | _problems(),
    }


def _answer(one: Served) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["name", "version", "results"],
        "properties": {
            "name": {"const": one.name},
            "version": {"type": "string"},
            "results": {"type": "array", "items": {"$ref": f"#/components/schemas/{one.pipeline.result['title']}"}},
        },
    }


def _problems(*statuses: str) -> dict[str, Any]:
    """The failures of these statuses; of all, where none is named."""
    return {status: _problem(_PROBLEMS[status]) for status in statuses or _PROBLEMS}


def _problem(description: str) -> dict[str, Any]:
    reference = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {"application/problem+json": {"schema": reference}}}


def _arrays(one: Served, pipeline: ArrayPipeline) -> dict[str, Any]:
    """Of a bundle whose task is only a graph."""
    manifest = pipeline.bundle.manifest
    model = manifest.models[pipeline.first_model]
    carried = {state.input for state in model.state}
    lists = {tensor.name: array_schema(tensor, model) for tensor in pipeline.array_inputs}
    body = closed({"inputs": closed(lists, [name for name in lists if name not in carried])}, ("inputs",))
    return {
        "summary": manifest.description or f"Answers of the bundle {one.name}.",
        "description": f"Arrays by name as JSON, at most {MOST_BYTES:,} bytes, or the first input as .npy. A "
        "state that is left out begins with zeros.",
        "operationId": f"predict_{one.name}",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": body}, "application/x-npy": {}},
        },
        "responses": {
            "200": {
                "description": "One result: the outputs by name.",
                "content": {"application/json": {"schema": _answer(one)}},
            }
        }
        | _problems(),
    }


def _go_on(one: Served) -> dict[str, Any]:
    """Of a bundle that goes on with text."""
    manifest = one.pipeline.bundle.manifest
    prompt = {"type": "string", "maxLength": MOST_PROMPT, "description": "what stands before; empty: a text begins"}
    body = closed({"prompt": prompt, **_TEXT_OPTIONS})
    return {
        "summary": manifest.description or f"Goes on with text; bundle {one.name}.",
        "description": f"At most {MOST_TEXTS} texts are written at a time. With `Accept: {EVENT_STREAM}` the "
        'characters come as server-sent events, `data: {"text": …}` each, and `event: end` closes with the rest of '
        "the result.",
        "operationId": f"predict_{one.name}",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {
                "description": "One result: what follows the prompt.",
                "content": {
                    "application/json": {"schema": _answer(one)},
                    EVENT_STREAM: {"schema": {"type": "string"}},
                },
            }
        }
        | _problems(),
    }
