"""A device without waiting: an interpreter that says what it is told to, and a service that follows a link."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from edgedl.deploy.connection import PROGRAM, DeviceConnection
from edgedl.deploy.rollout import Plan
from exporters.targets.address import Address
from runtime.bundle import Bundle

ADDRESS = Address("here")
INTERPRETER = """#!/bin/sh
case "$*" in
*edgedl.deploy.answers*) cat "$0.answers" ;;
*verify*) cat "$0.verify" ;;
esac
"""
RIGHT = {"model": "scale", "output": "y", "max_abs": 2e-6, "allowed": 1e-5, "ok": True, "note": ""}


class Interpreter:
    """Stands in for Python with edgedl on a device."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "python"
        self.path.write_text(INTERPRETER)
        self.path.chmod(0o755)
        self.verify({"ok": True, "checks": [RIGHT]})
        self.answer(True, "recorded answers come back")

    def verify(self, document: Mapping[str, Any]) -> None:
        Path(f"{self.path}.verify").write_text(json.dumps(document))

    def answer(self, ok: bool, told: str) -> None:
        Path(f"{self.path}.answers").write_text(json.dumps({"ok": ok, "told": told}))


class Service:
    """Stands in for `edgedl serve --watch`: it answers with what lies at a path, at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keeps_out: str | None = None
        self.seen_key: str | None = None
        self._last: str | None = None
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.seen_key = self.headers.get("Authorization")
                text = service.metrics() if self.path == "/metrics" else json.dumps(service.ready())
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_arguments: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def digest(self) -> str | None:
        if self.keeps_out is None and self.path.exists():
            self._last = Bundle.open(self.path).digest
        return self._last

    def metrics(self) -> str:
        return f'edgedl_bundle_info{{bundle="scale",digest="{self.digest()}",version="1"}} 1.0\n'

    def ready(self) -> dict[str, Any]:
        out = [{"file": "scale.edge", "reason": self.keeps_out}] if self.keeps_out else []
        return {"status": "ready", "kept_out": out}

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Device:
    """A folder that is deployed to without ssh: the same program, in a process of this machine."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.interpreter = Interpreter(folder)
        self.link = self.root / "deployments" / "scale" / "current"
        self.service = Service(self.link / "scale.edge")
        self.plan = Plan(
            name="scale", service=None, address=self.service.address, root=str(self.root),
            python=str(self.interpreter.path),
        )  # fmt: skip
        self.said: list[str] = []
        self.connection: DeviceConnection | None = None
        self.limits: Callable[[], None] = lambda: None

    def connect(self, _address: Address, told: Callable[[Mapping[str, Any]], None]) -> DeviceConnection:
        self.connection = DeviceConnection("here", [sys.executable, "-I", "-c", PROGRAM], told)
        return self.connection

    @property
    def current(self) -> str | None:
        return self.link.readlink().name if self.link.is_symlink() else None

    def leftovers(self) -> list[str]:
        """What lies in the folder of the deployment beside what belongs there."""
        own = {"releases", "current", "history.json", "key"}
        return sorted(entry.name for entry in self.link.parent.iterdir() if entry.name not in own)


@contextmanager
def device(folder: Path) -> Iterator[Device]:
    one = Device(folder)
    try:
        yield one
    finally:
        one.service.close()
