"""What gunicorn refuses before a request reaches the application, as the problem document that every error is."""

from __future__ import annotations

import secrets
import socket
from http import HTTPStatus

from service.problems import PROBLEM_JSON, Problem, problem_document

LONGEST = 200
"""Characters of gunicorn's sentence, which quotes what was sent."""


def install() -> None:
    """Replaces the page of HTML that this process's gunicorn would answer with."""
    from gunicorn import util

    util.write_error = write_refusal


def write_refusal(connection: socket.socket, status: int, reason: str, message: str) -> None:
    """Answers on a connection whose request cannot be read.

    Args:
        connection: It is closed by the caller.
        status: gunicorn's. Its 501, for an unknown transfer coding, is the sender's fault as well: 400.
        reason: gunicorn's.
        message: What is wrong with the request.
    """
    from gunicorn import util

    number = secrets.token_hex(8)
    status = 400 if status == 501 else status
    detail = "The server failed before the request was read." if status >= 500 else f"{reason}: {message[:LONGEST]}"
    body = problem_document(Problem(status, detail), number)
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nServer: edgedl\r\nConnection: close\r\n"
        f"Content-Type: {PROBLEM_JSON}\r\nContent-Length: {len(body)}\r\nX-Request-ID: {number}\r\n\r\n"
    )
    util.write_nonblock(connection, head.encode("ascii") + body)
