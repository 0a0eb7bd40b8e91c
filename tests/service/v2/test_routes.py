"""The routes of ``/v2``: models and versions, pipelines, statistics, the repository, and whatever else may arrive."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from runtime.pipelines import load
from service import problems
from service.app import create_app
from service.bundles.loading import IndexRow
from service.bundles.repository import Repository
from service.bundles.served import Served
from service.operations.metrics import Metrics
from service.problems import Problem
from service.routes.text import Texts
from service.routes.v2 import routes
from service.routes.v2.statistics import MOST_SIZES, ModelStatistics, Statistics
from service.server.front import Front
from service.settings import Settings
from tests.bundles import SCALE
from tests.service.asgi import ask
from tests.service.fake_pipeline import FakePipeline, encoded
from tests.service.test_service_problems import check as check_problem
from tests.service.v2.echo import echo_inputs
from tests.service.v2.exchanges import answered_tensors, binary_request, bytes_request, same

X = np.array([[1, -2.5, 0.1], [0, 1, 2]], np.float32)


def check(response: TestResponse, status: int, message: str) -> dict[str, Any]:
    """A problem document that says what is wrong, to clients of the protocol as well."""
    problem: dict[str, Any] = check_problem(response, status)
    assert message in problem["detail"]
    assert problem["error"] == problem["detail"]
    return problem


MODELS = ["echo", "echo.graph", "scale", "scale.scale", "sums", "sums.sums", "chars", "chars.chars", "age"]


def test_the_server_says_what_it_has(v2: FlaskClient) -> None:
    server = v2.get("/v2").json
    assert "binary_tensor_data" in server["extensions"]
    assert v2.get("/v2/").json == server
    assert v2.get("/v2/models").json == {"models": MODELS}


def test_metadata_of_a_graph_and_of_a_pipeline(v2: FlaskClient) -> None:
    assert v2.get("/v2/models/sums.sums").json == {
        "name": "sums.sums",
        "versions": ["1.0.0"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, -1, 2]},
            {"name": "s0", "datatype": "FP32", "shape": [-1, 2]},
        ],
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [-1, -1, 2]},
            {"name": "sn", "datatype": "FP32", "shape": [-1, 2]},
        ],
    }
    pipeline = v2.get("/v2/models/age/versions/1.2.3").json
    assert pipeline["inputs"] == [{"name": "input", "datatype": "BYTES", "shape": [-1]}]
    configured = v2.get("/v2/models/echo.graph/config").json
    assert [tensor["data_type"] for tensor in configured["input"]][-2:] == ["TYPE_FP64", "TYPE_STRING"]


def test_each_version_answers(v2: FlaskClient) -> None:
    for version in ("1.0.0", "1.10"):
        body = json.dumps({"inputs": _echo_json()})
        answer = v2.post(f"/v2/models/echo.graph/versions/{version}/infer", data=body)
        assert answer.json["model_version"] == version
    check(v2.get("/v2/models/echo.graph/versions/2/ready"), 404, "no version '2' here; it has 1.10, 1.0.0")


@pytest.mark.parametrize("name", ["nothing", "echo.nothing", "echo.", ".graph", "age.age", "echo.graph.more"])
def test_models_that_are_not_there(v2: FlaskClient, name: str) -> None:
    for response in (v2.get(f"/v2/models/{name}"), v2.post(f"/v2/models/{name}/infer", data=b"{}")):
        check(response, 404, f"There is no model '{name}'; this service has echo, echo.graph")


def test_names_may_have_dots(tmp_path: Any) -> None:
    app = create_app([("a.b", FakePipeline())])
    assert app.test_client().get("/v2/models/a.b").json["name"] == "a.b"


def test_state_is_an_ordinary_tensor(v2: FlaskClient) -> None:
    x = np.array([[[1, 10], [2, 20], [3, 30]]], np.float32)
    state = np.zeros((1, 2), np.float32)
    found = []
    for step in range(3):
        request = binary_request({"x": x[:, step : step + 1], "s0": state}, parameters={"binary_data_output": True})
        answer = answered_tensors(v2.post("/v2/models/sums.sums/infer", **request))
        state = answer["sn"]
        found.append(answer["y"])
    assert np.array_equal(np.concatenate(found, axis=1), np.cumsum(x, axis=1))


def test_a_body_may_be_the_tensor_alone(v2: FlaskClient) -> None:
    headers = {"Inference-Header-Content-Length": "0"}
    answer = answered_tensors(v2.post("/v2/models/scale.scale/infer", data=X.tobytes(), headers=headers))
    assert same(answer["y"], X * SCALE)
    answer = answered_tensors(v2.post("/v2/models/age/infer", data=encoded(), headers=headers))
    assert json.loads(answer["output"][0])["faces"][0]["age"] == 25


def test_pictures_are_the_elements_of_the_pipeline(v2: FlaskClient) -> None:
    request = bytes_request(encoded(), encoded(red=200), encoded(width=20, height=20), limit=1, distribution=True)
    answers = answered_tensors(v2.post("/v2/models/age/infer", **request))["output"]
    results = [json.loads(answer) for answer in answers]
    assert [[face["age"] for face in result["faces"]] for result in results] == [[25], [50], []]
    for picture, result in zip((encoded(), encoded(red=200)), results, strict=False):
        v1 = v2.post("/v1/age?limit=1&distribution=1", data=picture, headers={"Content-Type": "image/png"})
        assert v1.json["results"] == [result]


def test_text_is_the_prompt_and_options_are_parameters(v2: FlaskClient) -> None:
    asked = {"length": 9, "seed": 4, "temperature": 1, "timeout": 100, "priority": 1}
    (answer,) = answered_tensors(v2.post("/v2/models/chars/infer", **bytes_request(b"ab?", **asked)))["output"]
    v1 = v2.post("/v1/chars", json={"prompt": "ab?", "length": 9, "seed": 4, "temperature": 1})
    assert [json.loads(answer)] == v1.json["results"]
    check(v2.post("/v2/models/chars/infer", **bytes_request(b"a", length=10**6)), 413, "at most 2000 a request")
    check(v2.post("/v2/models/chars/infer", **bytes_request(b"\xff")), 422, "no UTF-8")


def test_arrays_are_npy_or_npz(v2: FlaskClient) -> None:
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, X)
    np.savez_compressed(npz, x=X)
    answers = answered_tensors(v2.post("/v2/models/scale/infer", **bytes_request(npy.getvalue(), npz.getvalue())))
    assert {json.dumps(json.loads(each)) for each in answers["output"]} == {
        json.dumps({"outputs": {"y": (X * SCALE).astype(np.float64).tolist()}})
    }
    bomb = io.BytesIO()
    np.savez_compressed(bomb, x=np.zeros((100_000, 3), np.float32))
    assert len(bomb.getvalue()) < 10_000
    check(
        v2.post("/v2/models/scale/infer", **bytes_request(bomb.getvalue())), 422, "more than the 200000 that are read"
    )


PIPELINE_FAULTS: dict[str, tuple[dict[str, Any], int, str]] = {
    "second": (bytes_request(encoded(), b"nothing"), 422, "Element 2 of 2: "),
    "only": (bytes_request(b""), 422, ""),
    "many": (bytes_request(*[b""] * 5), 413, "Found 5 elements in one request; this service takes at most 4"),
    "option": (bytes_request(encoded(), years=3), 400, "the parameter 'years'; expected 'distribution' or 'limit'"),
    "kind": (bytes_request(encoded(), limit=True), 400, "the parameter limit=True; expected a whole number"),
    "text": (bytes_request(encoded(), limit="1"), 400, "the parameter limit=string; expected a whole number"),
}


@pytest.mark.parametrize("name", PIPELINE_FAULTS)
def test_what_a_pipeline_is_asked_wrongly(v2: FlaskClient, name: str) -> None:
    request, status, message = PIPELINE_FAULTS[name]
    check(v2.post("/v2/models/age/infer", **request), status, message)


def test_a_pipeline_takes_a_list(v2: FlaskClient) -> None:
    tensor = {"name": "input", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]}
    check(v2.post("/v2/models/age/infer", json={"inputs": [tensor]}), 422, "expected [N], an element each")


def test_compressed_bodies(v2: FlaskClient) -> None:
    request = binary_request({"x": X})
    request["data"] = gzip.compress(request["data"])
    request["headers"]["Content-Encoding"] = "gzip"
    assert same(answered_tensors(v2.post("/v2/models/scale.scale/infer", **request))["y"], X * SCALE)
    request["data"] = gzip.compress(bytes(10**6))
    check(v2.post("/v2/models/scale.scale/infer", **request), 413, "more than 200,000 bytes once it is decompressed")
    request["headers"]["Content-Encoding"] = "br"
    response = v2.post("/v2/models/scale.scale/infer", **request)
    check(response, 415, "expected one of gzip, deflate")
    assert response.headers["Accept-Encoding"] == "gzip, deflate"


def test_options_of_a_graph_are_refused(v2: FlaskClient) -> None:
    check(v2.post("/v2/models/scale.scale/infer", **binary_request({"x": X}, parameters={"top_k": 1})), 400, "'top_k'")


def test_statistics_count_what_was_asked(service: Flask) -> None:
    client = create_app([service.extensions["edgedl"]["scale"].pipeline]).test_client()
    for rows in (1, 2, 2):
        assert client.post("/v2/models/scale.scale/infer", **binary_request({"x": X[:rows]})).status_code == 200
    assert client.post("/v2/models/scale.scale/infer", data=b"?").status_code == 400
    (found,) = client.get("/v2/models/scale.scale/versions/2.0.1/stats").json["model_stats"]
    assert (found["name"], found["version"]) == ("scale.scale", "2.0.1")
    assert (found["inference_count"], found["execution_count"]) == (5, 3)
    counts = {name: total["count"] for name, total in found["inference_stats"].items()}
    computed = dict.fromkeys(("success", "queue", "compute_input", "compute_infer", "compute_output"), 3)
    assert counts == computed | {"fail": 1}
    assert [(batch["batch_size"], batch["compute_infer"]["count"]) for batch in found["batch_stats"]] == [
        (1, 1),
        (2, 2),
    ]
    spent = found["inference_stats"]
    assert spent["success"]["ns"] == sum(spent[name]["ns"] for name in computed if name != "success") > 0
    assert found["last_inference"] > 1.7e12
    everything = client.get("/v2/models/stats").json["model_stats"]
    assert [entry["name"] for entry in everything] == ["scale", "scale.scale"]
    assert everything[1] == found
    assert len(client.get("/v2/models/scale/stats").json["model_stats"]) == 1


def test_requests_that_run_together_are_one_execution(service: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted is what ONNX Runtime was asked, whichever way the requests have come."""
    # A pipeline of its own: other applications prove theirs in the background, with the same engines.
    app = create_app([load(service.extensions["edgedl"]["scale"].pipeline.bundle.path)])
    one = app.extensions["edgedl"]["scale"]
    deadline = time.monotonic() + 30
    while any(thread.running for thread in one.health._threads):  # recorded cases are proven in the background
        assert time.monotonic() < deadline
        time.sleep(0.01)
    engine, ran = one.pipeline.engines["scale"], []
    session = engine.session

    class Counting:
        def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            ran.append(len(feed["x"]))
            return session.run(names, feed)

    async def some() -> list[int]:
        front, path = Front(app), "/v2/models/scale.scale/infer"
        tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
        document = json.dumps({"inputs": [tensor]}).encode()
        binary = binary_request({"x": X})
        lanes = one.queue._lanes
        for _ in range(lanes):
            one.queue._turns.acquire()
        asked = [ask(front, "POST", path, document, {"Content-Type": "application/json"}) for _ in range(4)]
        asked += [ask(front, "POST", path, binary["data"], binary["headers"]) for _ in range(4)]
        tasks = [asyncio.create_task(each) for each in asked]
        while one.queue._waiting.qsize() < 8 - lanes:
            await asyncio.sleep(0.01)
        for _ in range(lanes):
            one.queue._turns.release()
        return [(await task).status for task in tasks]

    monkeypatch.setattr(engine, "_session", Counting())
    assert asyncio.run(asyncio.wait_for(some(), 30)) == [200] * 8
    assert max(ran) > 2
    (found,) = app.test_client().get("/v2/models/scale.scale/stats").json["model_stats"]
    assert (found["inference_count"], found["execution_count"]) == (sum(ran), len(ran)) == (12, len(ran))
    sizes = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in found["batch_stats"]}
    assert sizes == Counter(ran)


def test_batch_sizes_are_told_apart_up_to_a_bound() -> None:
    statistics = ModelStatistics()
    for rows in range(MOST_SIZES + 10):
        statistics.count_execution(rows, compute_input=1, compute_infer=2, compute_output=3)
    found = statistics.to_json("m", "1")
    assert (found["execution_count"], len(found["batch_stats"])) == (MOST_SIZES + 10, MOST_SIZES)


def test_a_broken_bundle_is_not_ready(pipeline: FakePipeline) -> None:
    pipeline.fault = RuntimeError("broken")
    client = create_app([pipeline]).test_client()
    for path in ("/v2/health/ready", "/v2/models/age/ready"):
        response = client.get(path)
        check(response, 503, "cannot answer at present")
        assert response.headers["Retry-After"]
    assert client.get("/v2/health/live").json == {"live": True}
    assert client.post("/v2/repository/index").json == [
        {"name": "age", "version": "1.2.3", "state": "UNAVAILABLE", "reason": "RuntimeError"}
    ]
    assert client.post("/v2/repository/index", json={"ready": True}).json == []
    check(client.post("/v2/models/age/infer", **bytes_request(encoded())), 503, "cannot answer at present")


class Folder:
    """Loads nothing, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def index(self) -> Sequence[IndexRow]:
        return [IndexRow("age", "1.2.3", "READY"), IndexRow("bad", "", "UNAVAILABLE", "its graph is damaged")]

    def load(self, name: str) -> None:
        if name == "bad":
            raise Problem(409, "The bundle 'bad' is kept out: its graph is damaged.")
        self.asked.append(f"load {name}")

    def unload(self, name: str) -> None:
        self.asked.append(f"unload {name}")


def test_bundles_are_loaded_where_that_was_asked_for() -> None:
    folder, served = Folder(), Repository()
    served.add(Served(FakePipeline()))
    app = Flask("service")
    problems.install(app)
    limits = Settings(10_000, 1_000_000, 4, 1.0, 1.0, ("https://friend.example",))
    app.register_blueprint(routes.blueprint(served, limits, Metrics(served), Texts(), Statistics(), folder))
    client = app.test_client()
    rows = client.post("/v2/repository/index", data=b"").json
    assert [(row["name"], row["state"]) for row in rows] == [("age", "READY"), ("bad", "UNAVAILABLE")]
    assert rows[1]["reason"] == "its graph is damaged"
    for origin in (None, "https://friend.example", "http://localhost"):
        headers = {} if origin is None else {"Origin": origin}
        assert client.post("/v2/repository/models/age/load", headers=headers).status_code == 200
    unload = {"parameters": {"unload_dependents": True}}
    assert client.post("/v2/repository/models/age/unload", json=unload).data == b""
    assert folder.asked == ["load age"] * 3 + ["unload age"]
    assert client.post("/v2/repository/models/bad/load").json["error"].startswith("The bundle 'bad' is kept out")
    stranger = client.post("/v2/repository/models/age/load", headers={"Origin": "https://stranger.example"})
    assert stranger.status_code == 403
    for body in (b'{"parameters": {"config": "{}"}}', b'{"parameters": [1]}', b"[]", b"{"):
        assert client.post("/v2/repository/models/age/load", data=body).status_code == 400
    assert len(folder.asked) == 4


def test_what_v1_says_of_errors_stays_as_it_was(v2: FlaskClient) -> None:
    assert "error" not in v2.get("/v1/nothing").json
    assert "error" not in v2.get("/v22").json


def test_no_bundle_loads_unless_asked(v2: FlaskClient) -> None:
    for verb in ("load", "unload"):
        check(v2.post(f"/v2/repository/models/age/{verb}"), 403, "start it with --repository FOLDER")


PATHS = [f"/v2/models/{model}/infer" for model in ("echo.graph", "scale.scale", "sums.sums", "age", "scale", "chars")]
PATHS += ["/v2/repository/index", "/v2/repository/models/age/load", "/v2/models/echo.graph/versions/1.10/infer"]
BODY = st.binary(max_size=40) | st.builds(
    lambda inputs, data: json.dumps({"inputs": inputs}).encode() + data,
    st.lists(
        st.fixed_dictionaries(
            {
                "name": st.sampled_from(["x", "s0", "input"]),
                "datatype": st.sampled_from(["FP32", "BYTES"]),
                "shape": st.lists(st.integers(0, 3), max_size=3),
            },
            optional={
                "data": st.lists(st.floats(width=32) | st.text(max_size=3) | st.integers(), max_size=9),
                "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(0, 48)}),
            },
        ),
        max_size=2,
    ),
    st.binary(max_size=48),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(PATHS),
    BODY,
    st.none() | st.integers(0, 300) | st.text(st.characters(max_codepoint=126, min_codepoint=32), max_size=5),
    st.sampled_from(["", "gzip", "deflate", "identity", "br"]),
)
def test_nothing_that_arrives_is_a_fault_of_the_server(
    v2: FlaskClient, path: str, body: bytes, length: int | str | None, encoding: str
) -> None:
    headers = {"Content-Encoding": encoding} if encoding else {}
    if length is not None:
        headers["Inference-Header-Content-Length"] = str(length)
    response = v2.post(path, data=body, headers=headers)
    assert response.status_code < 500, response.text
    if response.status_code != 200:
        assert response.mimetype == "application/problem+json"
        assert response.json["error"] == response.json["detail"]


def _echo_json() -> list[dict[str, Any]]:
    names = {"string": "BYTES", "bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
    return [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": names.get(name.removeprefix("in_"), name.removeprefix("in_").upper()),
            "data": array.tolist(),
        }
        for name, array in echo_inputs().items()
    ]


def test_a_refusal_of_the_engine_is_no_fault_of_the_server(v2: FlaskClient) -> None:
    check(v2.post("/v2/models/scale.scale/infer", **binary_request({"x": X[:, :2]})), 422, "expected float32 [N, 3]")
