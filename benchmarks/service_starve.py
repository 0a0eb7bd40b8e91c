"""How `/livez` and good requests fare beside slow clients.

    python benchmarks/service_starve.py AGE.edge PHOTO [--slow 8,64,500] [--probes 2000] [--write]

So many clients send their heads or bodies slowly, or ask for much and do not read it: large answers that they take
slowly, or many small ones that the system takes for them. The server runs on loopback.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the three programs share lies beside this one

from benchmarks.service_clients import Good, Server, program, serving


def probe(server: Server, count: int) -> list[float]:
    """The seconds of so many requests for ``/livez``, each on a connection of its own."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        status, answer = server.ask(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        if status != 200:
            raise SystemExit(f"/livez answered {status}: {answer[:200]!r}")
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)


@contextmanager
def slow_clients(server: Server, mode: str, count: int) -> Iterator[None]:
    """Clients that hold a connection; those with slow heads and bodies send a byte each second."""
    held = []
    head = b"POST /v1/age HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
    first = {
        "heads": head, "bodies": head + b"Content-Length: 60000\r\n\r\n\xff\xd8\xff\xe0",
        "readers": b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 60,
        "pipelines": b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 600,
    }[mode]  # fmt: skip
    for _ in range(count):
        connection = server.connect()
        if mode == "readers":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        with suppress(BlockingIOError, OSError):
            connection.send(first)
        held.append(connection)
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(1.0):
            for connection in held:
                with suppress(OSError):
                    connection.send(b"x")

    thread = threading.Thread(target=trickle)
    if mode in ("heads", "bodies"):
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if mode in ("heads", "bodies"):
            thread.join()
        for connection in held:
            connection.close()


def starve(args: argparse.Namespace) -> dict[str, Any]:
    """Probes and good requests while slow clients hold connections."""
    photo, rows = args.photo.read_bytes(), {}
    for mode in ("heads", "bodies", "readers", "pipelines"):
        for count in map(int, args.slow.split(",")):
            with serving(args.bundle) as server, Good(server, photo) as good, slow_clients(server, mode, count):
                time.sleep(1)
                seconds = probe(server, args.probes)
            rows[f"{count} slow {mode}"] = {
                "probes": len(seconds), "p50_ms": round(seconds[len(seconds) // 2] * 1e3, 2),
                "p99_ms": round(seconds[int(len(seconds) * 0.99)] * 1e3, 2), "max_ms": round(seconds[-1] * 1e3, 1),
                "good": good.to_json(),
            }  # fmt: skip
            print(f"{count} slow {mode}", json.dumps(rows[f"{count} slow {mode}"]), flush=True)
    return rows


if __name__ == "__main__":
    program(__doc__ or "", "service_starve", starve, slow=(str, "8,64,500"), probes=(int, 2000))
