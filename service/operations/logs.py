"""The log on standard error: lines for people, or a JSON object a line; either names the request that it is about."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from service.visits import ACCESS, CURRENT

LOG = logging.getLogger("edgedl.service")

FORMATS = ("text", "json")


class TextFormatter(logging.Formatter):
    """``2026-11-29 03:47:12,123 ERROR edgedl.service: what happened (request 2d0979ba835f1f77)``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - a method of logging
        """The line, without a trace."""
        line = super().formatMessage(record)
        number = _fields(record).get("request_id", "")
        return f"{line} (request {number})" if number and number not in record.getMessage() else line


class JsonFormatter(logging.Formatter):
    """An object with ``time``, ``level``, ``logger``, ``message``, and what is known of the request."""

    def format(self, record: logging.LogRecord) -> str:
        """The object on one line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _fields(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        # Lone surrogates, as of undecodable file names, are no JSON.
        text = {name: _encodable(value) if isinstance(value, str) else value for name, value in line.items()}
        return json.dumps(text, ensure_ascii=False, default=str)


def configure(form: str = "text", *, access: bool = False) -> logging.Formatter:
    """Sends the log of this process and of those that it forks to standard error.

    Args:
        form: One of `FORMATS`.
        access: Whether there is a line for each request.

    Returns:
        What writes the lines, for loggers that do not hand theirs on.
    """
    formatter = JsonFormatter() if form == "json" else TextFormatter()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], force=True)
    for logger in map(logging.getLogger, ("edgedl", "runtime", "service")):  # the command line has a handler of its own
        for other in logger.handlers:
            other.setFormatter(formatter)
    logging.captureWarnings(capture=form == "json")  # a warning in plain text would be no JSON
    ACCESS.setLevel(logging.INFO if access else logging.WARNING)
    return formatter


def say(sentence: str, level: int = logging.ERROR) -> None:
    """Tells whoever started the service something, as a sentence of its own or as a line of the JSON log."""
    if any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers):
        LOG.log(level, "%s", sentence)
    else:
        print(sentence, file=sys.stderr, flush=True)  # noqa: T201


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What is known of the request that a line is about."""
    given: dict[str, Any] | None = record.__dict__.get("fields")
    if given is not None:
        return given
    visit = CURRENT.get()
    if visit is None:
        return {}
    fields = {"request_id": visit.number, "bundle": visit.bundle}
    if visit.trace is not None:
        fields |= {"trace_id": visit.trace.trace_id, "span_id": visit.trace.span_id}
    return {name: value for name, value in fields.items() if value}


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
