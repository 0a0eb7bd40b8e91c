"""Whether a service answers, and with which bundle: asked over HTTP, as any client would."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgedl.deploy.device.channel import Refused
from edgedl.deploy.device.store import first_words

ANSWER_SECONDS = 300
_PAUSE = 0.1

KEY_VARIABLE = "EDGEDL_DEPLOY_KEY"
"""Holds the key of a service that asks for one; what this process starts inherits it."""


class Connection(http.client.HTTPConnection):
    """A connection to ``HOST:PORT`` or to ``unix:PATH``."""

    def __init__(self, address: str, timeout: float) -> None:
        self._path = address[len("unix:") :] if address.startswith("unix:") else None
        super().__init__("localhost" if self._path else address, timeout=timeout)

    def connect(self) -> None:
        """Connects."""
        if self._path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(
    address: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 10.0,
) -> tuple[int, Any, bytes]:
    """Sends one request; gives the status, the headers and the body.

    Raises:
        OSError: Nobody answers.
    """
    fields = {"Connection": "close", **(headers or {})}
    if os.environ.get(KEY_VARIABLE):
        fields["Authorization"] = f"Bearer {os.environ[KEY_VARIABLE]}"
    connection = Connection(address, timeout)
    try:
        connection.request(method, path, body, fields)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    except http.client.HTTPException as error:
        raise OSError(f"the answer is cut: {error!r}") from error
    finally:
        connection.close()


def served_digest(address: str, name: str) -> str | None:
    """The digest of the bundle that answers to a name; None where nothing answers to it."""
    status, _, body = ask(address, "GET", "/metrics")
    if status == 200:
        for line in body.decode(errors="replace").splitlines():
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line)) if line.startswith("edgedl_bundle_info{") else {}
            if labels.get("bundle") == name:
                return str(labels.get("digest"))
    return None


def kept_out(address: str, file: str) -> str | None:
    """Why the service does not take what lies at the path of the bundle; None where it does."""
    _, _, body = ask(address, "GET", "/readyz")
    for row in json.loads(body.decode()).get("kept_out", []):
        if row.get("file") == file:
            return str(row.get("reason"))
    return None


def wait_until_served(
    address: str, name: str, digest: str, seconds: float, failure: Callable[[], str | None] = lambda: None
) -> None:
    """Waits until a service answers with a bundle and is ready.

    Args:
        address: Of the service.
        name: Of the bundle in the service.
        digest: Of the bundle.
        seconds: How long.
        failure: Says why no answer can be expected any more.

    Raises:
        Refused: It does not come to that.
    """
    end = time.monotonic() + seconds
    told = "no answer"
    while True:
        try:
            found = served_digest(address, name)
            if found == digest:
                status, _, _ = ask(address, "GET", "/readyz")
                if status == 200:
                    return
                told = f"/readyz says {status}"
            else:
                told = f"it answers with the bundle {str(found)[:12]}"
                reason = kept_out(address, f"{name}.edge")
                if reason is not None:
                    raise Refused(f"the service keeps the bundle out: {reason}")
        except (OSError, ValueError) as error:
            told = str(error) or repr(error)
        reason = failure()
        if reason is not None:
            raise Refused(f"the service does not run: {reason}")
        if time.monotonic() > end:
            raise Refused(f"the service did not answer with the bundle within {seconds:g} seconds: {told}")
        time.sleep(_PAUSE)


def check_answer(record: dict[str, Any], bundle: Path, name: str, address: str) -> dict[str, Any]:
    """Sends recorded inputs to the service and compares its answers, by the judge of the release's own edgedl.

    Raises:
        Refused: An answer differs, or there is none.
    """
    command = [record["python"], "-m", "edgedl.deploy.answers", str(bundle), name, address]
    command += [record["variant"]] if record["variant"] else []
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_SECONDS)
    try:
        found: dict[str, Any] = json.loads(done.stdout.decode())
    except ValueError:
        raise Refused(
            "the health check failed: {}".format(first_words(done.stderr.decode(errors="replace").splitlines()))
        ) from None
    if not found["ok"]:
        raise Refused("the service does not answer as it was recorded: {}".format(found["told"]))
    return found
