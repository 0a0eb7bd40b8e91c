"""The routes of ``/v2``, as a blueprint of Flask."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

import orjson
from flask import Blueprint, Response, request

from runtime.machine import installed
from service.bundles.loading import IndexRow, Loading
from service.bundles.repository import Repository
from service.json_body import parse_json
from service.operations.metrics import Metrics
from service.problems import Problem, bad_request
from service.routes.inputs import json_type, read_body
from service.routes.text import Texts
from service.routes.v2.encoding import decompress, read_header_length
from service.routes.v2.models import Model, all_models, configuration, find_model, lease_model, metadata, versions_of
from service.routes.v2.pipelines import Answered, ask_graph, ask_pipeline
from service.routes.v2.statistics import Statistics
from service.routes.v2.tensors import HEADER_LENGTH, JSON_TYPE, Inference, read_infer, write_infer
from service.settings import Settings

EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics")
_RETRY = {"Retry-After": "2"}
_LOAD = "This service loads and unloads nothing; start it with --repository FOLDER."


def blueprint(
    served: Repository,
    settings: Settings,
    metrics: Metrics,
    texts: Texts,
    statistics: Statistics,
    loading: Loading | None = None,
) -> Blueprint:
    """The routes of the Open Inference Protocol.

    Args:
        served: The bundles.
        settings: The limits.
        metrics: Counts what pipelines find.
        texts: Writes texts; the same as that of ``/v1``, so that the bound on them holds for both.
        statistics: What is told of the models.
        loading: Loads and unloads bundles; None refuses both.
    """
    routes = Blueprint("v2", __name__)

    def small_object() -> dict[str, Any]:
        """The JSON object of a request that may have none."""
        body = read_body(request, settings)
        document = parse_json(body, "a JSON object or nothing") if body.strip() else {}
        if not isinstance(document, dict):
            raise bad_request(f"JSON of type {json_type(document)}", "an object or nothing")
        return document

    def answer(model: Model, inference: Inference) -> Answered:
        if model.graph is not None:
            return ask_graph(model.served, model.graph, inference)
        done = ask_pipeline(model.served, inference, settings, texts)
        for result in done.results:
            metrics.count_result(model.served.name, result)
        return done

    @routes.get("/v2")
    def server() -> Response:
        return _json({"name": "edgedl", "version": installed("edgedl") or "", "extensions": EXTENSIONS})

    @routes.get("/v2/health/live")
    def live() -> Response:
        return _json({"live": True})

    @routes.get("/v2/health/ready")
    def ready() -> Response:
        unready = [one.name for one in served.all() if not one.ready()]
        if unready:
            detail = f"The bundle {unready[0]!r} cannot answer at present; try again soon."
            raise Problem(503, detail, headers=_RETRY, kind="broken")
        return _json({"ready": True})

    @routes.get("/v2/models")
    def models() -> Response:
        return _json({"models": list(dict.fromkeys(model.name for model in all_models(served)))})

    @routes.get("/v2/models/<name>")
    @routes.get("/v2/models/<name>/versions/<version>")
    def model_metadata(name: str, version: str | None = None) -> Response:
        model = find_model(served, name, version)
        return _json(metadata(model, versions_of(served, model)))

    @routes.get("/v2/models/<name>/ready")
    @routes.get("/v2/models/<name>/versions/<version>/ready")
    def model_ready(name: str, version: str | None = None) -> Response:
        model = find_model(served, name, version)
        if not model.served.ready():
            detail = f"The model {name!r} cannot answer at present; try again soon."
            raise Problem(503, detail, headers=_RETRY, kind="broken")
        return _json({"name": model.name, "ready": True})

    @routes.get("/v2/models/<name>/config")
    @routes.get("/v2/models/<name>/versions/<version>/config")
    def model_config(name: str, version: str | None = None) -> Response:
        return _json(configuration(find_model(served, name, version)))

    @routes.post("/v2/models/<name>/infer")
    @routes.post("/v2/models/<name>/versions/<version>/infer")
    def infer(name: str, version: str | None = None) -> Response:
        with lease_model(served, name, version) as model:
            return infer_model(model)

    def infer_model(model: Model) -> Response:
        counted = statistics.of(model.name, model.version)
        sent = read_body(request, settings)
        start = time.perf_counter_ns()
        try:
            body = decompress(sent, request.headers.get("Content-Encoding"), settings.max_bytes)
            length = read_header_length(request.headers.get(HEADER_LENGTH))
            inference = read_infer(body, length, model.spec, raw=model.graph is None)
            read = time.perf_counter_ns()
            done = answer(model, inference)
            answered = time.perf_counter_ns()
            headers, written = write_infer(model.name, model.version, inference, done.outputs)
        except Exception:
            counted.count_failure(time.perf_counter_ns() - start)
            raise
        finally:
            spent = (time.perf_counter_ns() - start) / 1e9
            model.served.mark(len(sent), spent, graph=model.graph is not None)
        computed = {
            "compute_input": read - start + done.input_ns,
            "compute_infer": done.infer_ns,
            "compute_output": time.perf_counter_ns() - answered,
        }
        counted.count(inference.rows, queue=done.queue_ns, **computed)
        for rows in done.runs:
            counted.count_execution(rows, **{phase: ns // len(done.runs) for phase, ns in computed.items()})
        return Response(written, headers=headers)

    @routes.get("/v2/models/stats")
    @routes.get("/v2/models/<name>/stats")
    @routes.get("/v2/models/<name>/versions/<version>/stats")
    def model_statistics(name: str | None = None, version: str | None = None) -> Response:
        if name is None:
            wanted = list(all_models(served))
        else:
            model = find_model(served, name, version)
            versions = versions_of(served, model) if version is None else [model.version]
            wanted = [find_model(served, name, each) for each in versions]
        return _json({"model_stats": [statistics.of(m.name, m.version).to_json(m.name, m.version) for m in wanted]})

    @routes.post("/v2/repository/index")
    def index() -> Response:
        only_ready = small_object().get("ready", False)
        if type(only_ready) is not bool:
            raise bad_request(f"ready of type {json_type(only_ready)}", "true or false")
        rows = [_row(model) for model in all_models(served)]
        known = {(row.name, row.version) for row in rows}
        if loading is not None:
            rows += [row for row in loading.index() if (row.name, row.version) not in known]
        return _json([row for row in rows if not only_ready or row.state == "READY"])

    @routes.post("/v2/repository/models/<name>/load")
    def load(name: str) -> Response:
        return control(name, "load")

    @routes.post("/v2/repository/models/<name>/unload")
    def unload(name: str) -> Response:
        return control(name, "unload")

    def control(name: str, verb: str) -> Response:
        parameters = small_object().get("parameters") or {}
        if loading is None:
            raise Problem(403, _LOAD)
        _refuse_other_sites(settings.cors_origins)
        if not isinstance(parameters, dict) or not parameters.keys() <= {"unload_dependents"}:
            raise bad_request("parameters", "none: a bundle is loaded from the folder as it is")
        (loading.load if verb == "load" else loading.unload)(name)
        return Response(status=200, content_type=JSON_TYPE)

    return routes


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document), content_type=JSON_TYPE)


def _row(model: Model) -> IndexRow:
    failure = model.served.failure
    return IndexRow(model.name, model.version, "READY" if failure is None else "UNAVAILABLE", failure or "")


def _refuse_other_sites(origins: tuple[str, ...]) -> None:
    """A page of another site that somebody looks at may not load or unload anything here."""
    origin = request.headers.get("Origin")
    if origin is not None and origin not in origins and urlsplit(origin).netloc != request.host:
        raise Problem(403, "Pages of other sites may not load or unload bundles.")
