"""The target ``browser``: ONNX Runtime Web in Chromium, on this machine.

The browser opens a page of a server on loopback, whose address nobody else knows. It asks there for each request and
brings the answer back. Messages are those of `wire`.
"""

from __future__ import annotations

import itertools
import os
import platform
import queue
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.targets import wire
from exporters.targets.base import Feed, RemoteSession, Target, TargetError, TargetMachine
from exporters.targets.npm import web_engine
from exporters.targets.process import GraphSession
from runtime.machine import processor_name

NAME = "browser"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_S, ANSWER_S, END_S = 120.0, 1200.0, 10.0

_SCRIPTS = Path(__file__).parent / "javascript"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm"}

Message = tuple[dict[str, Any], dict[str, NDArray[Any]]]


class BrowserTarget(Target):
    """Runs graphs in a page of Chromium."""

    name = NAME

    def __init__(self) -> None:
        self._tab: _Tab | None = None
        self._told: Mapping[str, Any] = {}
        self._numbers = itertools.count()

    def open(self) -> None:
        """See `Target.open`."""
        self._running()

    def machine(self) -> TargetMachine:
        """See `Target.machine`. WebAssembly hides the processor, so its class is its own."""
        self._running()
        told = str(self._told["language"])
        browser = next((part for part in told.split() if part.startswith(("HeadlessChrome/", "Chrome/"))), told)
        return TargetMachine(
            onnxruntime=str(self._told["onnxruntime"]),
            processor=processor_name(),
            processor_class="wasm",
            system=f"{platform.system()} {platform.machine()}, {browser.removeprefix('Headless').replace('/', ' ')}",
        )

    def session(self, graph: bytes) -> RemoteSession:
        """See `Target.session`."""
        tab, number = self._running(), next(self._numbers)
        tab.ask({"open": number}, {"graph": np.frombuffer(graph, np.uint8)})
        return GraphSession(tab, number)

    def close(self) -> None:
        """See `Target.close`."""
        if self._tab is not None:
            self._tab.close()
            self._tab = None

    def _running(self) -> _Tab:
        if self._tab is not None and self._tab.alive:
            return self._tab
        self.close()
        browser = _browser()
        files = {"": _SCRIPTS / "browser.html", **web_engine()}
        files |= {name: _SCRIPTS / name for name in ("arrays.js", "browser.js", "graphs.js", "wire.js")}
        self._tab = tab = _Tab(browser, files)
        try:
            self._told = tab.answer(START_S)[0]["machine"]
        except TargetError:
            self.close()
            raise
        return tab


def _browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise TargetError(f"none of {', '.join(BROWSERS)} is on the PATH. On Debian: apt-get install chromium")
    return found


class _Tab:
    """A browser with the page of the target in it, asked from one thread at a time."""

    def __init__(self, browser: str, files: Mapping[str, Path]) -> None:
        self._requests: queue.Queue[bytes] = queue.Queue()
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._lock = threading.Lock()
        self._place = f"/{secrets.token_urlsafe(18)}/"
        self._files = files
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._profile = tempfile.TemporaryDirectory(prefix="edgedl-", ignore_cleanup_errors=True)
        root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # it refuses root otherwise
        url = f"http://127.0.0.1:{self._server.server_port}{self._place}"
        self._process = subprocess.Popen(
            [browser, *FLAGS, *root, f"--user-data-dir={self._profile.name}", url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that all of its processes end together
        )

    @property
    def alive(self) -> bool:
        """Whether the browser runs."""
        return self._process.poll() is None

    def ask(self, header: Mapping[str, Any], tensors: Feed | None = None, seconds: float = ANSWER_S) -> Message:
        """Sends a message and waits for the one that answers it, see `exporters.targets.child.Child.ask`."""
        with self._lock:
            self._requests.put(wire.pack(header, tensors))
            return self.answer(seconds)

    def answer(self, seconds: float) -> Message:
        """Waits for a message.

        Raises:
            TargetError: it tells of an error, none came in time, or the browser has ended.
        """
        late = time.monotonic() + seconds
        while True:
            try:
                header, tensors = wire.unpack(self._answers.get(timeout=1.0)[8:])
                break
            except queue.Empty:
                ended = not self.alive
                if not ended and time.monotonic() < late:
                    continue
            except wire.WireError:
                ended = False
            self._end()
            raise TargetError("the browser has ended" if ended else f"no answer came within {seconds:.0f} s")
        if "error" in header:
            if header.get("ended"):
                self._end()  # the next graph gets a browser of its own
            raise TargetError(str(header["error"]))
        return header, tensors

    def close(self) -> None:
        """Ends the browser and the server."""
        self._end()
        self._server.shutdown()
        self._server.server_close()
        self._profile.cleanup()

    def _end(self) -> None:
        for wish in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, wish)
                self._process.wait(END_S)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
            return

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        tab = self

        class Handler(BaseHTTPRequestHandler):
            """Sends the page, and carries messages."""

            def do_GET(self) -> None:
                file = tab._files.get(self.path.removeprefix(tab._place)) if self._known() else None
                if file is None:
                    self.send_error(HTTPStatus.NOT_FOUND)
                else:
                    self._send(file.read_bytes(), _TYPES[file.suffix.replace(".mjs", ".js")])

            def do_POST(self) -> None:
                if not self._known():
                    self.send_error(HTTPStatus.NOT_FOUND)
                    return
                tab._answers.put(self.rfile.read(int(self.headers["Content-Length"])))
                self._send(tab._requests.get(), "application/octet-stream")

            def log_message(self, *args: object) -> None:
                """Says nothing."""

            def _known(self) -> bool:
                return self.path.startswith(tab._place)

            def _send(self, body: bytes, kind: str) -> None:
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler
