"""The header traceparent, against the examples and the rules of W3C Trace Context, level 1."""

from __future__ import annotations

import asyncio

import pytest
from flask import Flask

from service.server.front import Front
from service.tracing import continued
from tests.service.asgi import ask
from tests.service.fake_pipeline import encoded

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"  # section 3.2.2.5


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (f"00-{TRACE}-{PARENT}-01", "01"),
        (f"00-{TRACE}-{PARENT}-00", "00"),
        (f"00-{TRACE}-{PARENT}-03", "01"),
        (f"00-{TRACE}-{PARENT}-ff", "01"),
        (f"cc-{TRACE}-{PARENT}-01", "01"),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-brings", "01"),
    ],
)
def test_a_trace_is_continued_with_a_span_of_our_own(header: str, flags: str) -> None:
    trace = continued(header)
    version, trace_id, span, sent_flags = trace.header.split("-")
    assert (version, trace_id, sent_flags) == ("00", TRACE, flags)
    assert (len(span), span == trace.span_id) == (16, True)
    assert span not in (PARENT, "0" * 16, continued(header).span_id)


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01.what",
        f"cc-{TRACE}-{PARENT}-01.what",
        f"ff-{TRACE}-{PARENT}-01",
        f"0-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}0-01",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-0x",
        f"00-{TRACE}-{PARENT}-01\n",
        f"00-{TRACE}-{PARENT[:-1]}\u0661-01",
    ],
)
def test_what_is_malformed_is_ignored(header: str) -> None:
    assert continued(header) is None


@pytest.mark.parametrize(("path", "type_"), [("/v1/age", "image/png"), ("/v1/age", "text/x"), ("/livez", "image/png")])
def test_the_answer_carries_the_trace_whoever_gives_it(app: Flask, path: str, type_: str) -> None:
    headers = {"Content-Type": type_, "traceparent": f"00-{TRACE}-{PARENT}-01"}
    front = asyncio.run(ask(Front(app), "POST", path, encoded(), headers))
    flask = app.test_client().post(path, data=encoded(), headers=headers)
    for given in (front.headers["traceparent"], flask.headers["traceparent"]):
        assert continued(given).trace_id == TRACE
        assert PARENT not in given


@pytest.mark.parametrize("header", [{}, {"traceparent": "00-xyz"}])
def test_where_there_is_no_trace_none_is_begun(app: Flask, header: dict[str, str]) -> None:
    assert "traceparent" not in asyncio.run(ask(Front(app), "GET", "/livez", headers=header)).headers
