"""Between ASGI and WSGI: a request whose body is there already, and an answer that no reader can hold up."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from functools import partial
from typing import Any, Self
from urllib.parse import unquote_to_bytes

from flask import Flask

from service.replies import EVENT_STREAM

LOG = logging.getLogger("edgedl.service")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]


def environ_of(scope: Scope, body: bytes, root: str = "", skip: int = 0) -> dict[str, Any]:
    """The request as WSGI has it (PEP 3333).

    Args:
        scope: Of the ASGI connection.
        body: The whole of it.
        root: What stands before the application's routes.
        skip: How many characters of the path belong to it.
    """
    server, client = scope.get("server") or ("localhost", 80), scope.get("client") or ("", 0)
    if not isinstance(server[1], int):
        server = ("localhost", 80)  # a Unix socket, whose path gunicorn takes for a pair
    path: bytes = unquote_to_bytes(scope.get("raw_path") or scope["path"].encode())
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": root,
        "PATH_INFO": path[skip:].decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": str(server[0]),
        "SERVER_PORT": str(server[1] or 0),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": _Errors(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        key = name.decode("latin-1").upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    environ["CONTENT_LENGTH"] = str(len(body))
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    return environ


def response_start(status: int, headers: Iterable[tuple[str, str]]) -> Message:
    """The ASGI message that begins an answer."""
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    encoded.append((b"server", b"edgedl"))  # no version for a scanner to look up
    return {"type": "http.response.start", "status": status, "headers": encoded}


def run_wsgi(app: Flask, environ: dict[str, Any], emit: Callable[[Message], bool]) -> None:
    """Runs a WSGI application; only an event stream is sent in parts.

    Args:
        app: The application.
        environ: The request.
        emit: Sends an ASGI message, and tells whether the receiver has left.
    """
    begun: list[tuple[str, Sequence[tuple[str, str]]]] = []

    def start_response(status: str, headers: Sequence[tuple[str, str]], _error: Any = None) -> Callable[[bytes], None]:
        begun[:] = [(status, headers)]
        return lambda _data: None

    chunks: Iterable[bytes] = app.wsgi_app(environ, start_response)
    try:
        stream = False
        if begun:
            stream = any(n.lower() == "content-type" and v.startswith(EVENT_STREAM) for n, v in begun[0][1])
        if stream:
            emit(response_start(int(begun[0][0][:3]), begun[0][1]))
            for chunk in chunks:
                if emit({"type": "http.response.body", "body": chunk, "more_body": True}):
                    break
            emit({"type": "http.response.body", "body": b""})
            return
        body = b"".join(chunks)
        emit(response_start(int(begun[0][0][:3]), begun[0][1]))
        emit({"type": "http.response.body", "body": body})
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


class Relay:
    """Runs a WSGI application in a thread and hands on its ASGI messages one by one.

    Attributes:
        left: Whoever asked has left.

    Args:
        app: The application.
        environ: The request.
        in_thread: Runs work in a thread.
    """

    def __init__(
        self, app: Flask, environ: dict[str, Any], in_thread: Callable[[Callable[[], None]], Awaitable[None]]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self.left = False
        self._work = partial(run_wsgi, app, environ, self._emit)
        self._in_thread = in_thread
        self._running: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._running = self._loop.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.left = True
        if self._watching is not None:
            self._watching.cancel()
        self._watching = self._running = None  # they keep this object, and with it the body, as long as it keeps them

    async def next(self) -> Message | None:
        """The next message; None after the last one.

        Raises:
            Exception: What kept the application from answering.
        """
        message = await self._messages.get()
        if message is None and self._running is not None:
            await self._running
        return message

    def stop_once(self, left: Callable[[], Awaitable[None]]) -> None:
        """Stops the application when its receiver has left; a second call does nothing."""

        async def watch() -> None:
            await left()
            self.left = True

        if self._watching is None:
            self._watching = self._loop.create_task(watch())

    async def _run(self) -> None:
        try:
            await self._in_thread(self._work)
        finally:
            self._messages.put_nowait(None)

    def _emit(self, message: Message) -> bool:
        self._loop.call_soon_threadsafe(self._messages.put_nowait, message)
        return self.left


class _Errors(io.TextIOBase):
    """``wsgi.errors``: what is written there goes to the log."""

    def write(self, text: str) -> int:
        if text.strip():
            LOG.error("%s", text.rstrip())
        return len(text)
