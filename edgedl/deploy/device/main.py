"""The program on the device: answers the requests of one deployment until nobody asks any more."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgedl.deploy.device import environments, systemd
from edgedl.deploy.device.activation import Activation
from edgedl.deploy.device.channel import Channel, Gone, Refused
from edgedl.deploy.device.store import SILENCE_SECONDS, Store, first_words, free_bytes

PROVE_SECONDS = 3600


class Device:
    """Answers requests; each public method answers the one of its name.

    Args:
        channel: Where they come from.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._store: Store | None = None

    def serve(self) -> None:
        """Answers until nobody asks any more."""
        while True:
            request = self._channel.request(SILENCE_SECONDS)
            todo = request.pop("do")
            try:
                answer = getattr(self, todo)(**request)
            except Refused as error:
                self._channel.tell(error=str(error))
            except subprocess.TimeoutExpired as error:
                self._channel.tell(error=f"it takes longer than {error.timeout:g} seconds: {error.cmd}")
            except OSError as error:
                place = f"{error.filename}: " if error.filename else ""
                self._channel.tell(error=f"{place}{error.strerror or error}")
            else:
                self._channel.tell(done=todo, **(answer or {}))

    def hello(self, root: str | None, name: str, wait: float | None) -> dict[str, Any]:
        """What there is. Unless `wait` is None, nobody else deploys there until this conversation ends."""
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
        folder = Path(root).expanduser().resolve() if root else data / "edgedl"
        store = Store(folder, name)
        self._store, recovered = store, None
        if wait is not None:
            store.lock(wait)
            recovered = Activation(store, self._channel).recover()
        return {
            "root": str(folder),
            "python": ".".join(str(number) for number in sys.version_info[:3]),
            "implementation": sys.implementation.name,
            "machine": platform.machine(),
            "system": sys.platform,
            "libc": platform.libc_ver(),
            "free": free_bytes(folder),
            "current": store.current(),
            "recovered": recovered,
        }

    def releases(self) -> dict[str, Any]:
        """The releases, the last one that answered at the end."""
        store = self._known()
        history = store.history()
        known = history + [release for release in store.all_releases() if release not in history]
        records = [store.record(release) for release in sorted(known, key=lambda one: one in history)]
        return {"current": store.current(), "history": history, "releases": records}

    def manager(self) -> dict[str, Any]:
        """Whether a service manager takes units, and whether it may use namespaces of users."""
        reason = systemd.manager()
        return {"reason": reason, "sandbox": reason is None and systemd.can_sandbox()}

    def key(self) -> dict[str, Any]:
        """What a service knows the key of the health check by."""
        return {"sha256": hashlib.sha256(self._known().key().encode()).hexdigest()}

    def sent(self, files: list[dict[str, Any]]) -> dict[str, Any]:
        """How many bytes of each file are there."""
        return {"bytes": [self._known().sent(file["sha256"], file["file"]) for file in files]}

    def put(self, sha256: str, file: str, offset: int, bytes: int) -> None:  # noqa: A002
        """Takes the rest of a file, which follows the request."""
        self._known().receive(self._channel, sha256, file, offset, bytes)

    def has_environment(self, key: str) -> dict[str, Any]:
        """Whether an environment is there and whole."""
        return {"there": environments.is_complete(self._known(), key)}

    def environment(self, key: str, wheels: list[dict[str, Any]]) -> dict[str, Any]:
        """Makes an environment, or finds it."""
        return {"python": environments.make(self._known(), key, wheels)}

    def interpreter(self, path: str) -> dict[str, Any]:
        """Finds an interpreter that has edgedl already."""
        return {"python": environments.interpreter(path)}

    def stage(self, release: str, record: dict[str, Any], sha256: str, file: str) -> None:
        """Makes the folder of a release."""
        self._known().stage(release, record, sha256, file)

    def prove(self, release: str, arguments: list[str]) -> dict[str, Any]:
        """Replays the recorded answers there; a release that fails and never answered is removed."""
        store = self._known()
        record = store.record(release)
        bundle = store.release(release) / store.bundle_file
        command = [record["python"], "-m", "edgedl", "verify", str(bundle), "--json", *arguments]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROVE_SECONDS,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONSAFEPATH": "1"},
        )
        try:
            report = json.loads(done.stdout.decode())
        except ValueError:
            report = {"ok": False, "error": {"message": first_words(done.stderr.decode(errors="replace").splitlines())}}
        if not report["ok"]:
            store.remove(release)
        return {"report": report, "status": done.returncode}

    def activate(self, release: str) -> dict[str, Any]:
        """Lets a release answer, or everything as it was."""
        store = self._known()
        try:
            Activation(store, self._channel).run(release)
        except BaseException:
            store.remove(release)
            raise
        return {"current": store.current()}

    def tidy(self, keep: int) -> None:
        """Removes what is not needed any more."""
        self._known().tidy(keep)

    def _known(self) -> Store:
        if self._store is None:
            raise Refused("the conversation begins with hello")
        return self._store


def main() -> None:
    """Answers on the standard streams."""

    def leave(_number: int, _frame: Any) -> None:
        raise Gone

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the end of the stream tells
    # Nothing but the conversation may reach whoever deploys.
    channel = Channel(os.dup(0), os.dup(1))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    with contextlib.suppress(Gone):
        Device(channel).serve()
