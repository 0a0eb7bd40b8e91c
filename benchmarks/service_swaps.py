"""Hot swaps under load: is an answer lost, reset or mixed, and is a wrong bundle kept out?

    python benchmarks/service_swaps.py [--swaps 50] [--clients 6] [--write]

Two right bundles that multiply by 2 and by 3 take turns at one path while clients ask without a pause: the real server
(`edgedl serve --watch`) over loopback, and the application in this process. An answer has to be whole, of one factor,
and of the version that it names. Every tenth replacement is a wrong bundle whose hashes are right; nobody may ever get
an answer of it.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))  # the bundles are made with what the tests have

import numpy as np

from runtime.machine import describe_machine
from service.app import create_app
from tests.bundles import write_scale_bundle

RESULT = Path(__file__).parent / "results" / "service_swaps.json"
FACTORS, WRONG = (2.0, 3.0), 7.0
WRONG_EVERY = 10
PATIENCE = 60.0
SILENT = 1.0
"""Seconds after which a client that the machine kept waiting takes a new connection; the server closes them after 5."""

Ask = Callable[[int], tuple[int, bytes]]
"""Sends the request of a number; gives the status and the body."""


def write(path: Path, factor: float, recorded: float | None = None) -> None:
    """A bundle that multiplies by a factor, which its version tells."""
    scale = np.full(3, factor, np.float32)
    write_scale_bundle(path, scale, recorded=scale if recorded is None else np.full(3, recorded), version=f"{factor:g}")


def body_of(number: int) -> tuple[str, bytes]:
    """A marked request: rows of its own number, as .npy and as JSON in turn."""
    rows = np.full((1 + number % 3, 3), number, np.float32)
    if number % 2:
        return "application/json", json.dumps({"inputs": {"x": rows.tolist()}}).encode()
    stream = io.BytesIO()
    np.save(stream, rows)
    return "application/x-npy", stream.getvalue()


def fault_of(number: int, status: int, body: bytes) -> str | None:
    """What is wrong with the answer to the request of a number."""
    if status != 200:
        return f"status {status}: {body[:200]!r}"
    document = json.loads(body)
    factor = float(document["version"])
    expected = np.full((1 + number % 3, 3), number * factor)
    if factor not in FACTORS or not np.array_equal(document["results"][0]["outputs"]["y"], expected):
        return f"version {factor:g} answered {body[:200]!r}"
    return None


class Load:
    """Clients that ask until they are stopped."""

    def __init__(self, clients: int, connect: Callable[[], Ask]) -> None:
        self._over, self._lock = threading.Event(), threading.Lock()
        self.milliseconds: list[float] = []
        self.faults: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(connect(), place)) for place in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self, ask: Ask, place: int) -> None:
        number = place
        while not self._over.is_set():
            begin = time.perf_counter()
            try:
                fault = fault_of(number, *ask(number))
            except (OSError, http.client.HTTPException) as error:
                fault = f"the connection was lost: {error!r}"
            with self._lock:
                self.milliseconds.append((time.perf_counter() - begin) * 1e3)
                if fault is not None:
                    self.faults.append(fault)
            number = (number + len(self._threads)) % 1000
            self._over.wait(0.002)

    def stop(self) -> dict[str, Any]:
        """Stops the clients; gives what they have seen."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        times = np.array(self.milliseconds)
        return {
            "requests": len(times), "faults": len(self.faults), "first_faults": self.faults[:3],
            "p50_ms": round(float(np.percentile(times, 50)), 2), "p99_ms": round(float(np.percentile(times, 99)), 2),
            "worst_ms": round(float(times.max()), 1),
        }  # fmt: skip


def replace(path: Path, swaps: int, get: Callable[[str], Any], look: Callable[[], None]) -> dict[str, Any]:
    """Replaces the bundle again and again, and waits each time until the service has noticed."""
    kept_out, seconds = 0, []
    for number in range(swaps):
        if number % WRONG_EVERY == WRONG_EVERY // 2:
            write(path, WRONG, recorded=FACTORS[0])
            wait_for(lambda: "error" in str(get("/readyz").get("kept_out")), look)
            kept_out += 1
        factor = FACTORS[(number + 1) % 2]
        begin = time.perf_counter()
        write(path, factor)
        wait_for(lambda factor=factor: get("/v1")["bundles"][0]["version"] == f"{factor:g}", look)
        seconds.append(time.perf_counter() - begin)
    return {"swaps": swaps, "wrong_bundles_kept_out": kept_out, "seconds_a_swap": round(float(np.median(seconds)), 2)}


def wait_for(reached: Callable[[], bool], look: Callable[[], None]) -> None:
    """Waits until the service has noticed."""
    end = time.monotonic() + PATIENCE
    look()
    while not reached():
        if time.monotonic() > end:
            raise SystemExit("the service does not notice what was replaced")
        time.sleep(0.05)


def in_process(folder: Path, swaps: int, clients: int) -> dict[str, Any]:
    """The application in this process, asked by threads."""
    path = folder / "scale.edge"
    write(path, FACTORS[0])
    app = create_app([path], threads=1)

    def connect() -> Ask:
        client = app.test_client()

        def ask(number: int) -> tuple[int, bytes]:
            kind, body = body_of(number)
            response = client.post("/v1/scale", data=body, content_type=kind)
            return response.status_code, response.data

        return ask

    parts = app.extensions["edgedl.parts"]
    load = Load(clients, connect)
    try:
        done = replace(path, swaps, lambda route: app.test_client().get(route).json, parts.swaps.look)
    finally:
        seen = load.stop()
    parts.swaps.close()
    return done | seen


def over_http(folder: Path, swaps: int, clients: int) -> dict[str, Any]:
    """`edgedl serve --watch` in a process of its own."""
    path = folder / "scale.edge"
    write(path, FACTORS[0])
    command = [sys.executable, "-m", "edgedl", "serve", str(path), "--watch", "--port", "0", "--threads", "1"]
    root = Path(__file__).parents[1]
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:  # `Popen` waits for it
        assert server.stdout is not None
        assert server.stderr is not None
        line = server.stdout.readline()
        address = urlsplit(line.rpartition(" ")[2].strip()).netloc
        worker = int(subprocess.check_output(["pgrep", "-P", str(server.pid)], text=True).split()[0])
        log: list[str] = []
        reader = threading.Thread(target=lambda: log.extend(server.stderr))
        reader.start()

        def connect() -> Ask:
            connection = http.client.HTTPConnection(address, timeout=60)
            answered = time.monotonic()

            def ask(number: int) -> tuple[int, bytes]:
                nonlocal answered
                if time.monotonic() - answered > SILENT:
                    connection.close()  # the server may be closing it at this moment
                kind, body = body_of(number)
                try:
                    connection.request("POST", "/v1/scale", body, {"Content-Type": kind})
                    response = connection.getresponse()
                    return response.status, response.read()
                except (OSError, http.client.HTTPException):
                    connection.close()
                    raise
                finally:
                    answered = time.monotonic()

            return ask

        def get(route: str) -> Any:
            connection = http.client.HTTPConnection(address, timeout=60)
            connection.request("GET", route)
            document = json.load(connection.getresponse())
            connection.close()
            return document

        load = Load(clients, connect)
        try:
            replace(path, 6, get, lambda: None)  # an even number: it begins and ends with the same factor
            before = resident_mb(worker)
            done = replace(path, swaps, get, lambda: None)
            after = resident_mb(worker)
        except BaseException:
            load.stop()
            server.kill()
            raise
        seen = load.stop()
        server.send_signal(signal.SIGTERM)
        status = server.wait(timeout=60)
        reader.join()
    faults = [line for line in log if "Traceback" in line]
    memory = {"after 6": before, f"after {6 + swaps}": after}
    return done | seen | {"exit_status": status, "tracebacks": len(faults), "resident_mb": memory}


def resident_mb(process: int) -> float:
    """Resident memory of a process, in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


def main() -> int:
    """Measures, and prints or writes what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    result: dict[str, Any] = {"machine": describe_machine()}
    for name, measure in (("create_app", in_process), ("edgedl serve", over_http)):
        with tempfile.TemporaryDirectory() as folder:
            result[name] = measure(Path(folder), args.swaps, args.clients)
    print(json.dumps(result, indent=1))
    if args.write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if any(result[name]["faults"] for name in ("create_app", "edgedl serve")) else 0


if __name__ == "__main__":
    sys.exit(main())
