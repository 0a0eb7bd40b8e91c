"""Over HTTP: no request of nothing gets another's memory, ends the process or is a fault of the server."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.axes import input_dimensions
from service.app import create_app
from service.json_body import MOST_BYTES
from tests.frozen_bundles import ARRAYS, RECURRENT, unpack
from tests.service.test_service_problems import check

STREAMS = [name for name in RECURRENT if name != "chars"]


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def ask(client: FlaskClient, body: bytes, kind: str = "application/x-npy", path: str = "/v1/timer") -> Any:
    return client.post(path, data=body, content_type=kind)


@pytest.fixture(scope="module", params=[False, True], ids=["as it was", "with ranges"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """An LSTM timer, with and without ranges in its manifest."""
    folder = tmp_path_factory.mktemp("timer")
    app = create_app([unpack("timer-lstm", folder, declared=request.param)], threads=1)
    return app.test_client()


def test_who_asks_no_steps_gets_nobody_elses_state(client: FlaskClient) -> None:
    ranged = client.get("/v1").json["bundles"][0]["models"]["timer"]["dimensions"]["T"]["min"] == 0
    for u in ([0, 0.3], [1, 0.9], [0, 0.3]):
        victim = ask(client, json.dumps({"inputs": {"u": [[u] * 3]}}).encode(), "application/json")
        assert np.any(victim.json["results"][0]["outputs"]["cn"])
        stranger = ask(client, npy(np.zeros((1, 0, 2), np.float32)))
        if ranged:
            outputs = stranger.json["results"][0]["outputs"]
            assert outputs == {"answer": [[]], "hn": [[[0, 0, 0]]], "cn": [[[0, 0, 0]]]}
        else:
            assert "T is 0, the bundle takes 1 or more" in check(stranger, 422)["detail"]


@pytest.mark.parametrize("name", ARRAYS)
def test_every_bundle_of_arrays_with_nothing(name: str, tmp_path: Path) -> None:
    bundle = unpack(name, tmp_path)
    ((model, spec),) = bundle.manifest.models.items()
    client = create_app([bundle], threads=1).test_client()
    path = f"/v1/{bundle.manifest.name}"
    first = spec.inputs[0]
    for name_of_size in input_dimensions(spec):
        shape = [0 if size == name_of_size else 2 if isinstance(size, str) else size for size in first.shape]
        for answer in (
            ask(client, npy(np.zeros(shape, first.dtype)), path=path),
            ask(
                client,
                json.dumps({"inputs": {first.name: np.zeros(shape).tolist()}}).encode(),
                "application/json",
                path,
            ),
        ):
            assert answer.status_code in (200, 422), answer.text
            if answer.status_code == 200:
                outputs = answer.json["results"][0]["outputs"]
                assert not any(np.any(value) for value in outputs.values())
    for body in (
        b"{}",
        b'{"inputs": {}}',
        *(f'{{"inputs": {{"{first.name}": {v}}}}}'.encode() for v in ("[]", "[[]]", "[[[]]]")),
    ):
        assert ask(client, body, "application/json", path).status_code in (200, 400, 422)
    assert model in client.get("/v1").json["bundles"][0]["models"]


@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_with_nothing(name: str, tmp_path: Path) -> None:
    bundle = unpack(name, tmp_path, declared=True)
    client = create_app([bundle], threads=1).test_client()
    url = client.post(f"/v1/{bundle.manifest.name}/streams").json["url"]
    for body in (
        b"",
        b"{}",
        b'{"steps": []}',
        b'{"steps": [[]]}',
        b'{"steps": [[[]]]}',
        b'{"steps": [{}]}',
        b'{"steps": [null]}',
    ):
        assert ask(client, body, "application/json", url).status_code in (400, 422)
    for body in (b"", b"\n\n", b",", b"[]", b"{}", b"[[]]"):
        assert ask(client, body, "text/plain", url).status_code in (400, 422)
    steps = 3 if bundle.manifest.task == "gradients" else 2
    assert ask(client, json.dumps({"steps": [[0] * steps]}).encode(), "application/json", url).json["steps"] == 1


BAD_STEPS: dict[str, Any] = {
    "infinite in float32": [[0, 0.3], [1e39, 0]],
    "a text": [["0", 0.3]],
    "a truth value": [[True, 0.3]],
    "a text, deep": [{"u": [["0"], [0.3]]}],
    "beyond 64 bits": [[10**30, 10**400]],
    "null": [[None, 0.3]],
    "objects": [[{}, {}]],
}


@pytest.mark.parametrize("name", BAD_STEPS)
def test_a_step_that_is_none_is_named_and_moves_nothing(client: FlaskClient, name: str) -> None:
    url = client.post("/v1/timer/streams").json["url"]

    def step(steps: Any) -> Any:
        return ask(client, json.dumps({"steps": steps}).encode(), "application/json", url)

    before, again = step([[1, 0.5]]).json, client.post("/v1/timer/streams").json["url"]
    answer = step([[0, 0.5], *BAD_STEPS[name]])
    assert answer.status_code in (400, 422), answer.text
    assert "Step" in answer.json["detail"] or "not JSON" in answer.json["detail"]
    after = step([[0, 0.5]]).json
    assert (before["steps"], after["steps"]) == (1, 2)
    straight = ask(client, b'{"steps": [[1, 0.5], [0, 0.5]]}', "application/json", again).json["results"]
    assert [*before["results"], *after["results"]] == straight


BAD_NUMBERS = {
    "1e39": 422, '"1"': 422, "true": 422, "null": 422, "[1]": 422, "{}": 422, "NaN": 400, "1e400": 400,
    "123456789012345678901234567890": 200, "1" * 400: 400,
}  # fmt: skip


@pytest.mark.parametrize("number", BAD_NUMBERS, ids=lambda number: number[:12])
def test_a_number_that_is_none_is_never_a_fault_of_the_server(client: FlaskClient, number: str) -> None:
    body = f'{{"inputs": {{"u": [[[0, 0], [0, {number}]]]}}}}'.encode()
    answer = ask(client, body, "application/json")
    assert answer.status_code == BAD_NUMBERS[number], answer.text
    if answer.status_code == 422:
        assert answer.json["detail"].startswith(("u[0][1][1] is", "u[0][0] is a list", "u[0][0][0] is"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_an_array_with_a_number_that_is_none(client: FlaskClient, value: float) -> None:
    u = np.zeros((1, 5, 2), np.float32)
    u[0, 3, 1] = value
    assert "input 'u' holds" in check(ask(client, npy(u)), 422)["detail"]
    assert "at [0, 3, 1]" in check(ask(client, npy(u)), 422)["detail"]


def test_long_lists_are_refused_before_they_are_made(client: FlaskClient) -> None:
    url = client.post("/v1/timer/streams").json["url"]
    for kind, body in (
        ("application/json", b'{"steps": [' + b"[]," * (MOST_BYTES // 3) + b"[]]}"),
        ("text/plain", b"0\n" * (MOST_BYTES // 2 + 1)),
    ):
        assert "expected at most 4,194,304" in check(ask(client, body, kind, url), 413)["detail"]
    body = b'{"inputs": {"u": [' + b"[]," * (MOST_BYTES // 3) + b"[]]}}"
    assert "Send the array as .npy" in check(ask(client, body, "application/json"), 413)["detail"]


def test_an_answer_of_too_many_numbers_is_refused_before_it_is_computed(client: FlaskClient) -> None:
    body = npy(np.zeros((700_000, 1, 2), np.float32))
    assert "the answer has 4,900,000 numbers" in check(ask(client, body), 413)["detail"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["u", "steps", "inputs"]), inner),
    max_leaves=12,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANYTHING)
def test_no_body_of_a_stream_breaks_it(client: FlaskClient, value: Any) -> None:
    url = client.post("/v1/timer/streams").json["url"]
    for document in ({"steps": value}, {"steps": [value]}, {"steps": [{"u": value}]}, value):
        answer = ask(client, json.dumps(document).encode(), "application/json", url)
        assert answer.status_code in (200, 400, 422), answer.text
    answer = ask(client, json.dumps(value).encode(), "text/plain", url)
    assert answer.status_code in (200, 400, 422), answer.text
    assert client.delete(url).status_code == 204
