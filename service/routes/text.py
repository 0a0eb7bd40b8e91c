"""``POST /v1/NAME`` of a bundle that goes on with text: JSON in; JSON, or the characters as they come, out.

A text holds a thread and computes for as long as it is written. So its length is bounded, and how many are written at
a time: `MOST_TEXTS` of the eight threads that the server has, so that the others go on answering.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from threading import BoundedSemaphore
from typing import Any

import orjson
from flask import Request, Response

from runtime.errors import TooLargeError
from runtime.pipelines.base import TextPipeline
from service.bundles.served import Served
from service.json_body import parse_json, whole
from service.problems import Problem, bad_request
from service.replies import EVENT_STREAM, answered, flask_response
from service.routes.inputs import json_type, read_body, unsupported
from service.settings import Settings

LOG = logging.getLogger("edgedl.service")

MOST_TEXTS = 4
MOST_LENGTH = 2_000
MOST_PROMPT = 10_000
"""Characters; the runtime itself takes more."""

CHARACTERS_AT_ONCE = 4
"""In one event."""

OPTIONS: dict[str, tuple[type, ...]] = {
    "prompt": (str,),
    "length": (int,),
    "temperature": (int, float),
    "top_k": (int,),
    "seed": (int,),
}
_SAID = {str: "text", int: "a whole number", float: "a number"}


class Texts:
    """Writes texts, only so many at a time."""

    def __init__(self) -> None:
        self._slots = BoundedSemaphore(MOST_TEXTS)

    def answer(self, one: Served, pipeline: TextPipeline, request: Request, settings: Settings) -> Response:
        """The response to a prompt.

        Raises:
            Problem: 400, 408, 413 or 415 where the request is wrong; 503 where too much is being written already, or
                the bundle is broken.
            InputError: an option is out of range.
        """
        if request.args:
            raise bad_request(f"the option {next(iter(request.args))!r} in the query", "options in the JSON body")
        prompt, options = _read(request, settings)
        if not _wants_events(request):
            start = time.perf_counter()
            result = self.write(one, pipeline, prompt, options)
            return flask_response(answered(one.name, one.version, [result], predict=time.perf_counter() - start))
        characters, report = self._begin(one, pipeline, prompt, options)
        response = Response(_events(one, characters, report), content_type=EVENT_STREAM)
        # Not in the generator: one that was never begun is never ended.
        response.call_on_close(self._slots.release)
        if one.leases.begin():  # the caller's own ends before the text does
            response.call_on_close(one.leases.end)
        response.headers["X-Accel-Buffering"] = "no"  # a proxy that collects would undo it
        return response

    def write(self, one: Served, pipeline: TextPipeline, prompt: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """The whole text that follows a prompt, with what is to be said of it.

        Raises:
            Problem: 503, too much is being written already, or the bundle is broken.
            InputError: an option is out of range.
        """
        characters, report = self._begin(one, pipeline, prompt, options)
        try:
            return {"text": one.guarded(lambda: "".join(characters)), **report}
        finally:
            self._slots.release()

    def _begin(
        self, one: Served, pipeline: TextPipeline, prompt: str, options: Mapping[str, Any]
    ) -> tuple[Iterator[str], dict[str, Any]]:
        """A text that is about to be written; whoever asked for it gives its slot back."""
        if len(prompt) > MOST_PROMPT:
            raise TooLargeError(f"a prompt of {len(prompt)} characters; expected at most {MOST_PROMPT}")
        length = options.get("length")
        if length is not None and length > MOST_LENGTH:
            raise TooLargeError(f"a length of {length} characters; expected at most {MOST_LENGTH} a request")
        characters = pipeline.generate(prompt, **options)  # refuses at once what is out of range
        report = pipeline.report(prompt, **options)
        one.require()
        if not self._slots.acquire(blocking=False):
            raise Problem(
                503,
                f"{MOST_TEXTS} texts are being written already; try again soon.",
                headers={"Retry-After": "1"},
            )
        return characters, report


def _events(one: Served, characters: Iterator[str], report: dict[str, Any]) -> Iterator[bytes]:
    """``data: {"text": …}`` for a few characters each, then ``event: end`` with the report, or ``event: problem``."""
    try:
        waiting = ""
        for character in characters:
            waiting += character
            if len(waiting) == CHARACTERS_AT_ONCE:
                yield _event({"text": waiting})
                waiting = ""
        if waiting:
            yield _event({"text": waiting})
    except Exception as error:
        # The status has been sent; all that can still be said is that the text ends here, and not why.
        LOG.error("bundle %s broke off a text", one.name, exc_info=error)
        problem = {
            "type": "about:blank",
            "title": "Internal Server Error",
            "status": 500,
            "detail": "The text broke off.",
        }
        yield _event(problem, "problem")
    else:
        yield _event(report, "end")


def _event(document: dict[str, Any], kind: str = "") -> bytes:
    """JSON has no line feed outside of escapes, so that one ``data`` line holds it."""
    named = f"event: {kind}\n".encode() if kind else b""
    return named + b"data: " + orjson.dumps(document) + b"\n\n"


def _wants_events(request: Request) -> bool:
    return request.accept_mimetypes.best_match(["application/json", EVENT_STREAM]) == EVENT_STREAM


def _read(request: Request, settings: Settings) -> tuple[str, dict[str, Any]]:
    if request.mimetype != "application/json":
        raise unsupported(request.mimetype, ("application/json",))
    expected = f'an object with any of {", ".join(OPTIONS)}, e.g. {{"prompt": "Once", "length": 200}}'
    document = parse_json(read_body(request, settings), expected)
    if not isinstance(document, dict):
        raise bad_request(f"JSON of type {json_type(document)}", expected)
    strangers = sorted(document.keys() - OPTIONS.keys())
    if strangers:
        raise bad_request(f"the key {strangers[0][:40]!r}", expected)
    for name, given in document.items():
        value = document[name] = whole(given) if OPTIONS[name] == (int,) else given
        if type(value) not in OPTIONS[name]:
            found = repr(value)[:40] if isinstance(value, int | float) else json_type(value)
            raise bad_request(f"{name} of {found}", f"{name} as {_SAID[OPTIONS[name][-1]]}")
    return document.pop("prompt", ""), document
