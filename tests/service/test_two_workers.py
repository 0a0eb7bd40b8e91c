"""Two copies of the service behind the manual's nginx: one dies, then both swap their bundle."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.bundles import write_scale_bundle, write_sums_bundle
from tests.service.processes import ended

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
CLIENTS = 6

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed (apt-get install nginx-light)"),
]


def configuration(front: int, backs: list[int]) -> str:
    """The manual's, with free ports in place of its own."""
    manual = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```text\n(upstream edgedl.*?)```", manual, re.DOTALL)
    for written, port in zip((8000, 8001, 8002), (front, *backs), strict=True):
        text = text.replace(f"127.0.0.1:{written}", f"127.0.0.1:{port}")
    return text


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        listening = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [one.getsockname()[1] for one in listening]


@contextmanager
def nginx(folder: Path, front: int, backs: list[int]) -> Iterator[None]:
    """nginx in front of copies that are there, in the foreground, all its files in a folder."""
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/errors; events {{}}\n"
        f"http {{ access_log off; {paths}\n{configuration(front, backs)} }}\n"
    )
    with ended(subprocess.Popen(["nginx", "-p", folder, "-c", file], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True)):  # fmt: skip
        wait_for(lambda: answers(front))
        yield


def serve(folder: Path, port: int) -> subprocess.Popen[str]:
    """A copy of the service that watches its own bundles."""
    command = [sys.executable, "-m", "edgedl", "serve", *sorted(folder.glob("*.edge")), "--watch", "--port", str(port),
               "--threads", "1"]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "Serving" in process.stdout.readline()
    return process


def write_scale(folder: Path, factor: float) -> None:
    scale = np.full(3, factor, np.float32)
    write_scale_bundle(folder / "scale.edge", scale, recorded=scale, version=f"{factor:g}")


def ask(port: int, method: str, path: str, document: object = None, **headers: str) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        body = None if document is None else json.dumps(document)
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        data = response.read()
        return response.status, json.loads(data) if data else {}
    finally:
        connection.close()


class Load:
    """Clients that ask, and ask once more when their connection breaks or nobody could answer."""

    def __init__(self, port: int) -> None:
        self.over, self.lock = threading.Event(), threading.Lock()
        self.versions: Counter[str] = Counter()
        self.again = 0
        self.faults: list[object] = []
        self.port = port
        self.threads = [threading.Thread(target=self.run, args=(place,)) for place in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def run(self, place: int) -> None:
        for number in itertools.count(place, CLIENTS):
            if self.over.is_set():
                return
            value = number % 1000
            try:
                status, answer = self.once(value)
                if status in (502, 504):
                    raise ConnectionError(f"status {status}")
            except (OSError, http.client.HTTPException):
                with self.lock:
                    self.again += 1
                status, answer = self.once(value)
            with self.lock:
                if status != 200 or answer["results"][0]["outputs"]["y"] != [[value * float(answer["version"])] * 3]:
                    self.faults.append((status, answer))
                else:
                    self.versions[answer["version"]] += 1
            self.over.wait(0.005)

    def once(self, value: int) -> tuple[int, dict]:
        return ask(self.port, "POST", "/v1/scale", {"inputs": {"x": [[value] * 3]}})

    def stop(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


def wait_for(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


def answered(load: Load, version: str) -> int:
    with load.lock:
        return load.versions[version]


def test_no_request_is_lost_when_one_dies_and_both_swap(tmp_path: Path) -> None:
    front, *backs = free_ports(3)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        write_scale(folder, 2)
    with ExitStack() as stack:
        copies = [stack.enter_context(ended(serve(*pair))) for pair in zip(folders, backs, strict=True)]
        stack.enter_context(nginx(tmp_path, front, backs))
        load = Load(front)
        try:
            wait_for(lambda: answered(load, "2") >= 200)
            for child in subprocess.check_output(["pgrep", "-P", str(copies[0].pid)], text=True).split():
                os.kill(int(child), signal.SIGKILL)
            os.kill(copies[0].pid, signal.SIGKILL)
            copies[0].wait(PATIENCE)
            before = answered(load, "2")
            wait_for(lambda: answered(load, "2") >= before + 200)
            stack.enter_context(ended(serve(folders[0], backs[0])))
            for folder in folders:
                write_scale(folder, 3)
            for port in backs:
                wait_for(lambda port=port: ask(port, "GET", "/v1")[1]["bundles"][0]["version"] == "3")
            before = answered(load, "3")
            wait_for(lambda: answered(load, "3") >= before + 200)
        finally:
            load.stop()
        assert not load.faults
        assert load.again <= 2 * CLIENTS, "more were asked again than were under way"


def test_a_stream_stays_with_one_copy(tmp_path: Path) -> None:
    front, *backs = free_ports(3)
    with ExitStack() as stack:
        for name, port in zip(("one", "two"), backs, strict=True):
            (tmp_path / name).mkdir()
            write_sums_bundle(tmp_path / name / "sums.edge")
            stack.enter_context(ended(serve(tmp_path / name, port)))
        stack.enter_context(nginx(tmp_path, front, backs))
        places = set()
        for client in map(str, range(8)):
            status, stream = ask(front, "POST", "/v1/sums/streams", **{"X-Client": client})
            assert status == 201
            for number in (1, 2, 3):
                status, answer = ask(front, "POST", stream["url"], {"steps": [[1, 0]]}, **{"X-Client": client})
                assert (status, answer["results"][-1]["y"]) == (200, [number, 0])
            places.add(tuple(ask(port, "POST", stream["url"], {"steps": [[1, 0]]})[0] for port in backs))
        assert places == {(200, 410), (410, 200)}


def answers(port: int) -> bool:
    try:
        return ask(port, "GET", "/readyz")[0] == 200
    except OSError:
        return False
