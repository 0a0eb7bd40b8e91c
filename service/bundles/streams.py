"""Stateful streams over HTTP: opened, fed step by step, closed; bounded in number and age.

A stream lives in the memory of the process that opened it. One that is not there any more, because it was closed, was
idle for too long, is too old, or went with its process, gives 410.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runtime.errors import InputError
from runtime.lines import LineStream, line_values
from service.json_body import check_length, parse_json
from service.problems import Problem, bad_request

_TOKEN_BYTES = 18
NAME = re.compile(r"[A-Za-z0-9_-]{24}")
"""Of a stream."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """How many streams there may be, and for how long.

    Attributes:
        number: Open streams of one bundle.
        idle_seconds: A stream that gets no step for so long is closed.
        age_seconds: A stream that was opened so long ago is closed.
        steps: In one request.
    """

    number: int = 64
    idle_seconds: float = 300.0
    age_seconds: float = 3600.0
    steps: int = 1000


@dataclass(slots=True)
class _Open:
    lines: LineStream
    born: float
    used: float
    steps: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Streams:
    """The open streams of one bundle.

    Args:
        begin: Makes a fresh stream.
        limits: See `StreamLimits`.
        clock: Seconds that only rise.
    """

    def __init__(
        self, begin: Callable[[], LineStream], limits: StreamLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._begin, self.limits, self._clock = begin, limits, clock
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()

    def open(self) -> str:
        """Opens a stream and gives its name, which nobody can guess.

        Raises:
            Problem: 503, as many are open as may be.
        """
        lines = self._begin()
        with self._lock:
            now = self._expire()
            if len(self._open) >= self.limits.number:
                raise Problem(
                    503,
                    f"As many streams are open as this service allows, {self.limits.number}; close one, or try later.",
                    headers={"Retry-After": "10"},
                )
            name = secrets.token_urlsafe(_TOKEN_BYTES)
            self._open[name] = _Open(lines, now, now)
        return name

    def feed(self, name: str, body: bytes, *, as_json: bool) -> dict[str, Any]:
        """Answers the steps of a request, one after the other, with no other request's between them.

        A request that is refused moves nothing, whichever of its steps was the reason.

        Args:
            name: Of the stream.
            body: Lines of text, a step each, or JSON: ``{"steps": [[…], …]}``, a step as in `LineStream`.
            as_json: Which of the two.

        Raises:
            Problem: 400 or 422, the steps are none; 404 or 410, there is no such stream; 413, too many steps or bytes.
            InputError: the graph refuses a step.
        """
        one = self._find(name)
        steps: list[Any] = _json_steps(body) if as_json else _text_lines(body)
        if len(steps) > self.limits.steps:
            raise Problem(
                413,
                f"Found {len(steps)} steps in one request; this service takes at most {self.limits.steps}.",
                found=f"{len(steps)} steps",
                expected=f"at most {self.limits.steps}",
            )
        inputs = []
        for number, step in enumerate(steps, 1):
            try:
                inputs.append(one.lines.inputs(step if as_json else line_values(step)))
            except InputError as error:
                raise Problem(422, f"Step {number} of {len(steps)}: {error}") from error
        with one.lock:
            results = one.lines.run_all(inputs)
            one.steps += len(results)
            one.used = self._clock()
        return {"stream": name, "steps": one.steps, "results": results}

    def close(self, name: str) -> None:
        """Forgets a stream.

        Raises:
            Problem: 404 or 410, there is no such stream.
        """
        self._find(name)
        with self._lock:
            self._open.pop(name, None)

    def __len__(self) -> int:
        with self._lock:
            self._expire()
            return len(self._open)

    def __contains__(self, name: str) -> bool:
        return name in self._open

    def _find(self, name: str) -> _Open:
        if not NAME.fullmatch(name):
            raise Problem(404, "That is no name of a stream; POST to …/streams opens one and gives its name.")
        with self._lock:
            self._expire()
            found = self._open.get(name)
            if found is None:
                raise Problem(
                    410,
                    "There is no such stream any more: it was closed, got no step for "
                    f"{self.limits.idle_seconds:g} seconds, was opened more than {self.limits.age_seconds:g} seconds "
                    "ago, or went with its process. Open a new one.",
                )
            found.used = self._clock()  # not to expire while its steps are under way
            return found

    def _expire(self) -> float:
        """Closes what is too old; gives the time. The lock is held."""
        now, limits = self._clock(), self.limits
        for name, one in list(self._open.items()):
            if now - one.used > limits.idle_seconds or now - one.born > limits.age_seconds:
                del self._open[name]
        return now


def _json_steps(body: bytes) -> list[Any]:
    document = parse_json(body, '{"steps": [[…], …]}')
    if not isinstance(document, dict) or document.keys() != {"steps"} or not isinstance(document["steps"], list):
        found = f"an object with {', '.join(document) or 'nothing'}" if isinstance(document, dict) else "other JSON"
        raise bad_request(found, 'an object with a list of steps, {"steps": [[…], …]}')
    if not document["steps"]:
        raise bad_request("no steps", "at least one")
    return document["steps"]


def _text_lines(body: bytes) -> list[str]:
    check_length(body, "text")
    try:
        lines = [line for line in body.decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise bad_request("bytes that are not UTF-8", "lines of numbers") from error
    if not lines:
        raise bad_request("no steps", "a line of numbers for each")
    return lines
