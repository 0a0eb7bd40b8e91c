"""The log: one number names a request in every line, in the answer and in the problem; JSON is an object a line."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from flask import Flask

from service.operations.logs import JsonFormatter, TextFormatter, configure, say
from service.server.front import Front
from service.visits import ACCESS, Visit
from tests.service.asgi import Answered, ask
from tests.service.fake_pipeline import FakePipeline, encoded

PNG = {"Content-Type": "image/png"}


class Log:
    """What the loggers of the service wrote."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(formatter)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    """As JSON, with the access log."""
    log, own = Log(JsonFormatter()), logging.getLogger("edgedl")
    level = ACCESS.level
    own.addHandler(log.handler)
    ACCESS.setLevel(logging.INFO)
    yield log
    own.removeHandler(log.handler)
    ACCESS.setLevel(level)


def record(message: str, *args: object, error: bool = False) -> logging.LogRecord:
    try:
        raise ValueError("why\nnot")
    except ValueError:
        info = sys.exc_info() if error else None
    return logging.LogRecord("edgedl.service", logging.ERROR, __file__, 1, message, args, info)


@pytest.mark.parametrize("text", ["plain", "two\nlines", 'a "quote"', "\udcff", "\x00\x1b[31m", "é\u2028"])
def test_a_line_of_json_is_one_line_whatever_it_says(text: str) -> None:
    line = JsonFormatter().format(record("%s", text, error=True))
    assert len(line.split("\n")) == 1
    document = json.loads(line.encode())
    assert document["message"] == text.encode("utf-8", "backslashreplace").decode()
    assert document["exception"].endswith("ValueError: why\nnot")
    assert (document["level"], document["logger"]) == ("error", "edgedl.service")
    assert datetime.fromisoformat(document["time"]).utcoffset().total_seconds() == 0


def test_a_line_of_text_names_the_request_once() -> None:
    entry = record("it failed")
    entry.fields = {"request_id": "abc"}
    assert TextFormatter().format(entry).endswith(" ERROR edgedl.service: it failed (request abc)")
    entry = record("request %s failed", "abc")
    entry.fields = {"request_id": "abc"}
    assert TextFormatter().format(entry).endswith(": request abc failed")


def test_configure_takes_over_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    try:
        configure("json")
        logging.getLogger("anything").error("first")
        say("second")
        configure("text")
        say("third")
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:] = before
    first, second, third = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["message"] for line in (first, second)] == ["first", "second"]
    assert third == "third"


def asked(app: Flask, by: str, path: str, headers: dict[str, str]) -> Answered:
    if by == "front":
        return asyncio.run(ask(Front(app), "POST", path, encoded(), headers))
    with app.test_client().post(path, data=encoded(), headers=headers) as response:
        return Answered(response.status_code, {k.lower(): v for k, v in response.headers.items()}, [response.data])


@pytest.mark.parametrize("by", ["front", "flask"])
@pytest.mark.parametrize("given", [{}, {"X-Request-ID": "proxy-7"}], ids=["ours", "a proxy's"])
def test_one_number_names_a_request_everywhere(
    app: Flask, pipeline: FakePipeline, log: Log, by: str, given: dict[str, str]
) -> None:
    pipeline.fault = RuntimeError("the engine broke")
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    answered = asked(app, by, "/v1/age", {**PNG, **given, **trace})
    assert answered.status == 503
    number = answered.headers["x-request-id"]
    assert number == given.get("X-Request-ID", number)
    assert json.loads(answered.body)["request_id"] == number
    warm_up, access = log.lines
    assert warm_up["message"] == "bundle age does not answer its warm-up run"
    assert warm_up["exception"].endswith("RuntimeError: the engine broke")
    for line in (warm_up, access):
        assert line["request_id"] == number
        assert (line["bundle"], line["trace_id"]) == ("age", "4bf92f3577b34da6a3ce929d0e0e4736")
    assert answered.headers["traceparent"].split("-")[2] == access["span_id"]


@pytest.mark.parametrize("by", ["front", "flask"])
@pytest.mark.parametrize(
    ("path", "headers", "route", "status", "error"),
    [
        ("/v1/age?distribution=1", PNG, "/v1/<name>", 200, None),
        ("/v1/age", {"Content-Type": "text/x"}, "/v1/<name>", 415, "unreadable"),
        ("/v1/nobody", PNG, "/v1/<name>", 404, "not_found"),
        ("/nowhere%0a/x", PNG, "unmatched", 404, "not_found"),
    ],
)
def test_the_access_log_says_what_was_asked_and_how_it_went(
    app: Flask, log: Log, by: str, path: str, headers: dict[str, str], route: str, status: int, error: str | None
) -> None:
    path, _, query = path.partition("?")
    if by == "front":
        answered = asyncio.run(
            ask(Front(app), "POST", path.replace("%0a", "\n"), encoded(), {**headers, "Cookie": "secret"}, query=query)
        )
    else:
        answered = asked(app, by, f"{path}?{query}", headers)
    (line,) = log.lines
    assert line["message"].startswith(f'"POST {path.replace("%0a", "%0A")}" {status} ')
    assert (line["route"], line["status"], line.get("error")) == (route, status, error)
    assert (line["received"], line["sent"]) == (len(encoded()), len(answered.body))
    assert line["ms"] > 0
    assert "secret" not in log.stream.getvalue()
    assert "distribution" not in log.stream.getvalue()


def test_the_access_log_is_off_by_default(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "edgedl.service")
    logging.getLogger().setLevel(logging.DEBUG)
    asyncio.run(ask(Front(app), "GET", "/livez"))
    assert not [entry for entry in caplog.records if entry.name == "edgedl.access"]


def test_a_log_shows_neither_the_name_of_a_stream_nor_a_line_break() -> None:
    visit = Visit("POST", "/v1/timer/streams/AbCdEfGhIjKlMnOpQrStUvWx\r\nx", "n")
    assert visit.shown == "/v1/timer/streams/*"
    assert len(Visit("GET", "/" + "é" * 1000, "n").shown) <= 6 * 200


def test_a_request_is_known_by_one_number_to_each_of_its_failures(app: Flask) -> None:
    """Each refusal that the front makes itself has the same number in the header as in the document."""
    front = Front(app)
    for path, body in (("/v1/age", b""), ("/v1/age", bytes(200_001)), ("/v1/age", b"no picture")):
        answered = asyncio.run(ask(front, "POST", path, body, PNG))
        assert answered.status >= 400
        assert json.loads(answered.body)["request_id"] == answered.headers["x-request-id"]
