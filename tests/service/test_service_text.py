"""A bundle that goes on with text, over HTTP: JSON, server-sent events, bounds, and whatever is wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.serving import make_server

from runtime.pipelines import load
from service.app import create_app
from service.routes import text as module
from tests.chars import write_chars_bundle
from tests.service.fake_pipeline import FakePipeline, encoded
from tests.service.test_service_problems import check

EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture
def app(tmp_path: Any) -> Flask:
    return create_app([load(write_chars_bundle(tmp_path / "chars.edge")), FakePipeline()], max_bytes=100_000)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def text_of(app: Flask, prompt: str = "", **options: Any) -> str:
    return "".join(app.extensions["edgedl"]["chars"].pipeline.generate(prompt, **options))


def events(body: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream as the WHATWG's rules read them: name and data."""
    found = []
    for block in body.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields.get("event", "message"), json.loads(fields["data"])))
    return found


def test_a_prompt_goes_on(app: Flask, client: FlaskClient) -> None:
    options = {"length": 33, "temperature": 1.25, "top_k": 4, "seed": 2**64 - 1}
    response = client.post("/v1/chars", json={"prompt": "ab?", **options})
    assert response.status_code == 200
    assert response.json == {
        "name": "chars",
        "version": "1.0.0",
        "results": [{"text": text_of(app, "ab?", **options), "unknown": ["?"], **options}],
    }
    assert len(client.post("/v1/chars", json={}).json["results"][0]["text"]) == 300
    assert client.post("/v1/chars", json={"temperature": 1, "length": 1}).status_code == 200


@pytest.mark.parametrize("length", [1, 4, 5, 2000])
def test_the_same_text_comes_as_events(app: Flask, client: FlaskClient, length: int) -> None:
    response = client.post("/v1/chars", json={"prompt": "a\n", "length": length}, headers=EVENTS)
    assert response.status_code == 200
    assert response.mimetype == "text/event-stream"
    *parts, (last, report) = events(response.text)
    assert "".join(data["text"] for _, data in parts) == text_of(app, "a\n", length=length)
    assert {name for name, _ in parts} == {"message"}
    assert max(len(data["text"]) for _, data in parts) <= module.CHARACTERS_AT_ONCE
    assert last == "end"
    assert report == {"unknown": [], "length": length, "temperature": 0.8, "top_k": 0, "seed": 0}


def test_events_come_while_the_text_is_written(client: FlaskClient, app: Flask, monkeypatch: Any) -> None:
    """The first event is there when the pipeline has given four characters and waits."""
    pipeline = app.extensions["edgedl"]["chars"].pipeline
    monkeypatch.setattr(pipeline, "_characters", lambda *_: iter(lambda: "a", None))  # without end
    response = client.post("/v1/chars", json={"length": 10}, headers=EVENTS, buffered=False)
    assert next(iter(response.response)) == b'data: {"text":"aaaa"}\n\n'
    response.close()


def test_only_so_many_are_written_at_a_time(client: FlaskClient, app: Flask) -> None:
    begun = [
        app.test_client().post("/v1/chars", json={}, headers=EVENTS, buffered=False) for _ in range(module.MOST_TEXTS)
    ]
    for headers in ({}, EVENTS):
        response = client.post("/v1/chars", json={}, headers=headers)
        assert "4 texts are being written" in check(response, 503)["detail"]
        assert response.headers["Retry-After"] == "1"
    assert client.get("/livez").status_code == 200
    begun.pop().close()  # the reader went away
    assert client.post("/v1/chars", json={}).status_code == 200
    for response in begun:
        assert events(response.text)[-1][0] == "end"
        response.close()
    for _ in range(2 * module.MOST_TEXTS):  # none is kept by mistake
        with client.post("/v1/chars", json={"length": 5}, headers=EVENTS) as answer:
            assert events(answer.text)[-1][0] == "end"


def test_texts_side_by_side_are_those_one_after_the_other(app: Flask) -> None:
    alone = [text_of(app, length=200, seed=seed) for seed in range(module.MOST_TEXTS)]
    found: dict[int, str] = {}

    def ask(seed: int) -> None:
        response = app.test_client().post("/v1/chars", json={"length": 200, "seed": seed})
        found[seed] = response.json["results"][0]["text"]

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(module.MOST_TEXTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(module.MOST_TEXTS)] == alone


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"[]", 400, "JSON of type array"),
        (b"null", 400, "JSON of type null"),
        (b'{"prompt": 3}', 400, "prompt of 3; expected prompt as text"),
        (b'{"prompt": null}', 400, "prompt of null"),
        (b'{"prompt": "\\ud800"}', 400, "not JSON"),
        (b'{"length": "3"}', 400, "length of string; expected length as a whole number"),
        (b'{"length": 1.5}', 400, "length of 1.5"),
        (b'{"length": true}', 400, "length of True"),
        (b'{"length": 0}', 422, "the length is 0"),
        (b'{"length": -99999999999}', 422, "the length is"),
        (b'{"length": 2001}', 413, "a length of 2001 characters; expected at most 2000"),
        (b'{"temperature": -0.5}', 422, "the temperature is -0.5"),
        (b'{"temperature": NaN}', 400, "not JSON"),
        (b'{"temperature": 1e999}', 400, "not JSON"),
        (b'{"top_k": -1}', 422, "top-k is -1"),
        (b'{"seed": -1}', 422, "the seed is -1"),
        (b'{"seed": 99999999999999999999999}', 400, "seed of"),
        (b'{"image": "aaaa"}', 400, "the key 'image'"),
        (b'{"prompt": "' + b"a" * 10_001 + b'"}', 413, "a prompt of 10001 characters; expected at most 10000"),
        (b'{"prompt": "' + b"a" * 100_000 + b'"}', 413, "bytes"),
    ],
    ids=lambda value: value[:30].decode() if isinstance(value, bytes) else "",
)
@pytest.mark.parametrize("headers", [{}, EVENTS], ids=["json", "events"])
def test_what_is_wrong_is_a_problem(
    client: FlaskClient, body: bytes, status: int, words: str, headers: dict[str, str]
) -> None:
    response = client.post("/v1/chars", data=body, content_type="application/json", headers=headers)
    assert words in check(response, status)["detail"]


def test_other_bodies_and_queries_are_refused(client: FlaskClient) -> None:
    response = client.post("/v1/chars", data=encoded(), content_type="image/png")
    assert check(response, 415)["expected"] == "application/json"
    assert "the option 'length' in the query" in check(client.post("/v1/chars?length=3", json={}), 400)["detail"]
    assert check(client.get("/v1/chars"), 405)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["prompt", "length", "temperature", "top_k", "seed", "other"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers()),
        max_size=4,
    ),
    st.booleans(),
)
def test_no_body_breaks_it(client: FlaskClient, body: dict[str, Any], streamed: bool) -> None:
    response = client.post("/v1/chars", json=body, headers=EVENTS if streamed else {})
    if response.status_code == 200:
        assert response.text
    else:
        check(response, response.status_code)
        assert response.status_code in (400, 413, 422)


def test_an_engine_that_breaks_is_503_and_a_text_breaks_off(client: FlaskClient, app: Flask, monkeypatch: Any) -> None:
    one = app.extensions["edgedl"]["chars"]
    working = one.pipeline.engine.run

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(one.pipeline.engine, "run", broken)
    check(client.post("/v1/chars", json={}), 503)
    monkeypatch.setattr(one.pipeline.engine, "run", working)
    one.health.warm_up()
    left = iter(range(10))

    def breaks(*inputs: Any, **more: Any) -> Any:
        if next(left, None) is None:
            raise RuntimeError("secret")
        return working(*inputs, **more)

    monkeypatch.setattr(one.pipeline.engine, "run", breaks)
    response = client.post("/v1/chars", json={"length": 50}, headers=EVENTS)
    *_, (name, data) = events(response.text)
    assert (name, data["status"], data["detail"]) == ("problem", 500, "The text broke off.")
    assert "secret" not in response.text


def test_it_is_listed_and_described(client: FlaskClient) -> None:
    (listed, _) = client.get("/v1").json["bundles"]
    assert listed["accepts"] == ["application/json"]
    assert listed["options"] == {"length": "int", "temperature": "float", "top_k": "int", "seed": "int"}
    assert listed["ready"]
    described = client.get("/openapi.json").json["paths"]["/v1/chars"]["post"]
    assert list(described["requestBody"]["content"]) == ["application/json"]
    assert set(described["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    schema = described["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["length"]["maximum"] == module.MOST_LENGTH


def test_a_picture_goes_to_the_other_bundle_as_before(client: FlaskClient) -> None:
    other = client.get("/v1").json["bundles"][1]["name"]
    answer = client.post(f"/v1/{other}", data=encoded(), content_type="image/png")
    assert answer.status_code == 200
    assert len(answer.json["results"]) == 1


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "chars.md").read_text(encoding="utf-8")
COMMANDS = [block for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) if "curl" in block]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", COMMANDS, ids=["json", "events"])
def test_the_commands_of_the_page(app: Flask, command: str) -> None:
    """docs/chars.md, against a real server."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        script = command.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{server.server_port}")
        out = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, check=True).stdout
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    if "event-stream" in command:
        shown = PAGE[PAGE.index('data: {"text":') :].split("\n```")[0]
        assert [(name, data.keys()) for name, data in events(out)] == [
            (name, data.keys()) for name, data in events(shown)
        ]
        # This bundle knows hardly a letter of the prompt; the page's does.
        assert events(out)[-1][1] | {"unknown": []} == events(shown)[-1][1]
    else:
        (shown,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
        asked, told = json.loads(out)["results"][0], json.loads(shown)["results"][0]
        assert list(asked) == list(told)
        assert asked | {"text": "", "unknown": []} == told | {"text": ""}
        assert len(asked["text"]) == 60
