"""The routes of ``/v2`` in ``GET /openapi.json``."""

from __future__ import annotations

from typing import Any

from service.bundles.repository import Repository
from service.routes.v2.datatypes import DATATYPES
from service.routes.v2.models import all_models
from service.routes.v2.tensors import BINARY_TYPE, HEADER_LENGTH, JSON_TYPE

_STRING = {"type": "string"}
_STRINGS = {"type": "array", "items": _STRING}
_NUMBER = {"type": "integer", "minimum": 0}
_TRUTH = {"type": "boolean"}
_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_PROBLEMS = {
    "400": "The request has the wrong form: `found` and `expected` say how.",
    "403": "This service loads and unloads nothing, or not for a page of another site.",
    "404": "There is no such model or version.",
    "408": "The body did not arrive in time.",
    "413": "The body, its JSON, a picture or the number of elements is over the limit.",
    "415": "The body is compressed in a way that is not read.",
    "422": "A tensor or an element does not suit the model.",
    "500": "The server failed; its log has the reason under `request_id`.",
    "503": "The model cannot answer at present; `Retry-After` says when to try again.",
}
_QUESTIONS = ("400", "404", "500")
_INFERENCES = ("400", "404", "408", "413", "415", "422", "500", "503")


def _object(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


def _listed(name: str) -> dict[str, Any]:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}


_DATATYPE = {"enum": list(DATATYPES.values())}
_SHAPE = {"type": "array", "items": _NUMBER}
_DATA = {"type": "array", "description": "the elements, row after row in one list, or nested as the shape"}
_DURATION = _object(("count", "ns"), count=_NUMBER, ns=_NUMBER)

SCHEMAS: dict[str, Any] = {
    "V2Problem": {
        "allOf": [{"$ref": "#/components/schemas/Problem"}, _object(("error",), error=_STRING)],
        "description": "A problem document whose `error` is its `detail`.",
    },
    "V2Server": _object(("name", "version", "extensions"), name=_STRING, version=_STRING, extensions=_STRINGS),
    "V2Metadata": _object(
        ("name", "versions", "platform", "inputs", "outputs"),
        name=_STRING,
        versions=_STRINGS,
        platform=_STRING,
        inputs=_listed("V2Signature"),
        outputs=_listed("V2Signature"),
    ),
    "V2Signature": _object(
        ("name", "datatype", "shape"),
        name=_STRING,
        datatype=_DATATYPE,
        shape={"type": "array", "items": {"type": "integer", "minimum": -1}},
    ),
    "V2Input": _object(
        ("name", "shape", "datatype"),
        name=_STRING,
        shape=_SHAPE,
        datatype=_DATATYPE,
        parameters={"type": "object"},
        data=_DATA,
    ),
    "V2Request": _object(
        ("inputs",),
        id=_STRING,
        model_name=_STRING,
        parameters=_PARAMETERS,
        inputs=_listed("V2Input"),
        outputs={"type": "array", "items": _object(("name",), name=_STRING, parameters={"type": "object"})},
    ),
    "V2Answer": _object(
        ("model_name", "model_version", "outputs"),
        id=_STRING,
        model_name=_STRING,
        model_version=_STRING,
        outputs=_listed("V2Input"),
    ),
    "V2Statistics": _object(
        ("model_stats",),
        model_stats={
            "type": "array",
            "items": _object(
                ("name", "version", "inference_count", "execution_count", "inference_stats", "batch_stats"),
                name=_STRING,
                version=_STRING,
                last_inference=_NUMBER,
                inference_count=_NUMBER,
                execution_count=_NUMBER,
                inference_stats={"type": "object", "additionalProperties": _DURATION},
                batch_stats={"type": "array", "items": {"type": "object"}},
            ),
        },
    ),
    "V2Row": _object(
        ("name", "version", "state", "reason"), name=_STRING, version=_STRING, state=_STRING, reason=_STRING
    ),
}


def paths(served: Repository) -> dict[str, Any]:
    """The routes of the protocol, with the models of this service.

    Args:
        served: The bundles.
    """
    names = list(dict.fromkeys(model.name for model in all_models(served)))
    model = {"name": "name", "in": "path", "required": True, "schema": _STRING | {"examples": names}}
    version = {"name": "version", "in": "path", "required": True, "schema": _STRING}
    found: dict[str, Any] = {
        "/v2": {"get": _question("v2_server", "What the server is, and its extensions.", _reference("V2Server"))},
        "/v2/health/live": {"get": _question("v2_live", "The process is alive.", _object(("live",), live=_TRUTH))},
        "/v2/health/ready": {"get": _readiness("v2_ready", "Every bundle answers.")},
        "/v2/models": {"get": _question("v2_models", "The models.", _object(("models",), models=_STRINGS))},
        "/v2/models/stats": {
            "get": _question("v2_all_statistics", "The statistics of every model.", _reference("V2Statistics"))
        },
        "/v2/repository/index": {
            "post": _question("v2_index", "The models and their states.", _listed("V2Row"))
            | {"requestBody": _body(_object((), ready=_TRUTH), required=False)}
        },
    }
    for verb in ("load", "unload"):
        operation = {
            "summary": f"Has a bundle {verb}ed, where the service was started for it.",
            "operationId": f"v2_{verb}",
            "parameters": [model],
            "requestBody": _body(_object((), parameters={"type": "object"}), required=False),
            "responses": {"200": {"description": f"{verb}ed"}} | _problems("400", "403", "404", "408", "413", "500"),
        }
        found[f"/v2/repository/models/{{name}}/{verb}"] = {"post": operation}
    for suffix, where, tail in (("", [model], ""), ("_version", [model, version], "/versions/{version}")):
        path = f"/v2/models/{{name}}{tail}"
        found[path] = {
            "get": _question(f"v2_metadata{suffix}", "A model's tensors.", _reference("V2Metadata"), where),
        }
        found[f"{path}/ready"] = {"get": _readiness(f"v2_model_ready{suffix}", "The model answers.", where)}
        found[f"{path}/config"] = {
            "get": _question(f"v2_config{suffix}", "A model's configuration.", {"type": "object"}, where)
        }
        found[f"{path}/stats"] = {
            "get": _question(f"v2_statistics{suffix}", "A model's statistics.", _reference("V2Statistics"), where)
        }
        found[f"{path}/infer"] = {"post": _inference(f"v2_infer{suffix}", where)}
    return found


def _inference(name: str, where: list[Any]) -> dict[str, Any]:
    length = {"description": f"Bytes of JSON; the tensors follow. {HEADER_LENGTH}: 0 means none.", "schema": _NUMBER}
    return {
        "summary": "Asks a model: tensors in, tensors out.",
        "operationId": name,
        "parameters": [*where, {"name": HEADER_LENGTH, "in": "header", "required": False} | length],
        "requestBody": {
            "required": True,
            "content": {JSON_TYPE: {"schema": _reference("V2Request")}, BINARY_TYPE: {}},
        },
        "responses": {
            "200": {
                "description": "The outputs.",
                "headers": {HEADER_LENGTH: length},
                "content": {JSON_TYPE: {"schema": _reference("V2Answer")}, BINARY_TYPE: {}},
            }
        }
        | _problems(*_INFERENCES),
    }


def _question(name: str, summary: str, schema: dict[str, Any], where: list[Any] | None = None) -> dict[str, Any]:
    return {
        "summary": summary,
        "operationId": name,
        "parameters": where or [],
        "responses": {"200": {"description": "the answer", "content": {JSON_TYPE: {"schema": schema}}}}
        | _problems(*_QUESTIONS),
    }


def _readiness(name: str, summary: str, where: list[Any] | None = None) -> dict[str, Any]:
    question = _question(name, summary, _object(("ready",), name=_STRING, ready=_TRUTH), where)
    question["responses"] |= _problems("503")
    return question


def _body(schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    return {"required": required, "content": {JSON_TYPE: {"schema": schema}}}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _problems(*statuses: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": _reference("V2Problem")}}
    return {status: {"description": _PROBLEMS[status], "content": content} for status in statuses}
