"""What tritonclient and KServe's client sent, replayed: tensors come back bit for bit, and errors as they read them."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.server.front import Front
from tests.bundles import SCALE
from tests.service.asgi import ask
from tests.service.v2.exchanges import RECORDED, answered_tensors, recorded, replay, same, sent_tensors

NAMES = sorted(path.stem for path in RECORDED.glob("*.http"))
ECHOES = [
    "tritonclient-infer-binary", "tritonclient-infer-json", "tritonclient-infer-mixed", "tritonclient-infer-gzip",
    "tritonclient-infer-deflate", "kserve-infer-binary",
]  # fmt: skip


def test_each_record_is_used() -> None:
    assert len(NAMES) == 24
    assert set(ECHOES) < set(NAMES)


@pytest.mark.parametrize("name", ECHOES)
def test_what_was_sent_comes_back(v2: FlaskClient, name: str) -> None:
    response = replay(v2, name)
    given, found = sent_tensors(name), answered_tensors(response)
    assert len(given) == 13
    if name == "tritonclient-infer-mixed":
        assert found.keys() == {"out_string", "out_float16"}
        assert b'"model_version":"1.0.0"' in response.data
    else:
        assert found.keys() == {f"out_{key.removeprefix('in_')}" for key in given}
        assert b'"model_version":"1.10"' in response.data
    for key, array in found.items():
        assert same(array, given[f"in_{key.removeprefix('out_')}"]), key
    assert (b'"id":"abc"' in response.data) == (b'"id":"abc"' in recorded(name)[3])


def test_answers_are_those_of_the_engine(service: Flask, v2: FlaskClient) -> None:
    engine = service.extensions["edgedl"]["sums"].pipeline.engines["sums"]
    expected = engine.run(sent_tensors("kserve-infer-json"))
    found = answered_tensors(replay(v2, "kserve-infer-json"))
    assert found.keys() == expected.keys() == {"y", "sn"}
    assert all(same(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", ["tritonclient-infer-empty", "kserve-infer-empty"])
def test_no_rows(v2: FlaskClient, name: str) -> None:
    assert same(answered_tensors(replay(v2, name))["y"], np.empty((0, 3), np.float32))


def test_the_pipeline(v2: FlaskClient) -> None:
    (element,) = answered_tensors(replay(v2, "tritonclient-infer-pipeline"))["output"]
    x = np.array([[1, -2.5, 0.1]], np.float32)
    assert element == f'{{"outputs":{{"y":{(x * SCALE).astype(np.float64).tolist()}}}}}'.replace(" ", "")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kserve-live", {"live": True}),
        ("kserve-ready", {"ready": True}),
        ("kserve-model-ready", {"name": "echo.graph", "ready": True}),
        ("tritonclient-ready", {"name": "echo.graph", "ready": True}),
        ("tritonclient-server", {"name": "edgedl"}),
        ("tritonclient-metadata", {"name": "echo.graph", "versions": ["1.10", "1.0.0"]}),
        ("tritonclient-config", {"name": "echo.graph", "max_batch_size": 0}),
        ("tritonclient-statistics", {}),
        ("tritonclient-index", None),
    ],
)
def test_questions_about_models(v2: FlaskClient, name: str, expected: dict[str, object] | None) -> None:
    response = replay(v2, name)
    assert (response.status_code, response.mimetype) == (200, "application/json")
    if expected is None:
        assert {row["state"] for row in response.json} == {"READY"}
    else:
        assert response.json.items() >= expected.items()


def test_through_the_front(service: Flask) -> None:
    """The same bytes, and what the front itself refuses, as clients read it."""
    method, path, headers, body = recorded("tritonclient-infer-binary")
    del headers["Host"]
    front = Front(service)
    answer = asyncio.run(ask(front, method, path, body, headers))
    assert answer.status == 200
    assert answer.body.endswith(body[int(headers["Inference-Header-Content-Length"]) :])
    refused = asyncio.run(ask(front, method, path, bytes(200_001)))
    problem = json.loads(refused.body)
    assert (refused.status, problem["error"]) == (413, problem["detail"])


@pytest.mark.parametrize(
    ("name", "status"),
    [("load", 403), ("unload", 403), ("shared-memory", 404), ("trace", 404), ("logging", 404)],
)
def test_what_is_not_offered_is_an_error_that_the_client_reads(v2: FlaskClient, name: str, status: int) -> None:
    response = replay(v2, f"tritonclient-{name}")
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")
    assert response.json["error"] == response.json["detail"]
