"""The server and the clients that `service_starve.py`, `service_abuse.py` and `service_soak.py` share."""

from __future__ import annotations

import argparse
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.machine import describe_machine

RESULTS = Path(__file__).parent / "results"
MEGABYTE = 1 << 20
INFER = "/v2/models/age.age/infer"
BINARY, JSON = "application/octet-stream", "application/json"
LENGTH = "Inference-Header-Content-Length"


@dataclass
class Server:
    """The running server."""

    process: subprocess.Popen[str]
    port: int

    @property
    def worker(self) -> int:
        """Its only worker process; a new one after it died."""
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def memory_mb(self) -> float:
        """Resident memory of the worker."""
        status = Path(f"/proc/{self.worker}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]  # Linux always has the line

    def connect(self, seconds: float = 60) -> socket.socket:
        """A connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def ask(self, request: bytes, seconds: float = 60, *, half: bool = False) -> tuple[int | str, bytes]:
        """Sends bytes and reads to the end of the answer: its status, or what happened instead, and all bytes."""
        answer = b""
        try:
            with closing(self.connect(seconds)) as connection:
                with suppress(OSError):  # it may be refused while it is being sent
                    connection.sendall(request)
                    if half:
                        connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(MEGABYTE):
                    answer += piece
                    head, end, body = answer.partition(b"\r\n\r\n")
                    length = re.search(rb"(?i)content-length: *(\d+)", head)
                    if end and length and len(body) >= int(length[1]):
                        break
        except OSError as error:
            if not answer:
                return type(error).__name__, b""
        status = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
        return (int(status[1]) if status else "closed"), answer


@contextmanager
def serving(bundle: Path, *words: str) -> Iterator[Server]:
    """Runs `edgedl serve` with a bundle under the name ``age``."""
    command = [sys.executable, "-m", "edgedl", "serve", f"age={bundle}", "--port", "0", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield Server(process, int(line.rpartition(":")[2]))
    finally:
        process.terminate()
        process.wait(60)


def post(path: str, body: bytes, kind: str, *headers: str, method: str = "POST", length: bool = True) -> bytes:
    """A request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Type: {kind}"]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1", "replace") + body


def tensor(name: str, array: np.ndarray) -> tuple[bytes, int]:
    """A body of the Open Inference Protocol in binary form, and the length of its JSON."""
    datatype = {"uint8": "UINT8", "float32": "FP32", "int64": "INT64"}[str(array.dtype)]
    data = array.tobytes()
    entry: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": datatype}
    entry["parameters"] = {"binary_data_size": len(data)}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    return head + data, len(head)


class Good:
    """Good requests, again and again in a thread of their own, each compared with the first answer."""

    def __init__(self, server: Server, photo: bytes) -> None:
        self._server, self._request = server, post("/v1/age", photo, "image/jpeg")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.reference = server.ask(self._request)[1].partition(b"\r\n\r\n")[2]
        assert b'"faces":[{' in self.reference, self.reference[:300]
        self.right, self.wrong, self.busy = 0, list[str](), 0
        self.seconds: list[float] = []

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            start = time.monotonic()
            status, answer = self._server.ask(self._request)
            self.seconds.append(time.monotonic() - start)
            if status == 503:
                self.busy += 1
            elif status == 200 and answer.partition(b"\r\n\r\n")[2] == self.reference:
                self.right += 1
            else:
                self.wrong.append(f"{status}: {answer[:120]!r}")

    def __enter__(self) -> Good:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def to_json(self) -> dict[str, Any]:
        """The outcome."""
        ordered = sorted(self.seconds)
        return {
            "right": self.right, "wrong": self.wrong[:5], "busy": self.busy,
            "p50_ms": round(ordered[len(ordered) // 2] * 1e3, 1), "max_ms": round(ordered[-1] * 1e3, 1),
        }  # fmt: skip


def program(description: str, name: str, run: Callable[[argparse.Namespace], Any], **options: tuple[type, Any]) -> None:
    """Runs a benchmark as a program.

    Args:
        description: Its docstring.
        name: Of its file in the results.
        run: Gives its figures.
        **options: Type and default of its own options.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, metavar="AGE.edge", help="a bundle of the task age")
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="a photo that shows a face")
    for option, (kind, default) in options.items():
        parser.add_argument(f"--{option}", type=kind, default=default)
    parser.add_argument("--write", action="store_true", help=f"write the figures into {RESULTS}")
    args = parser.parse_args()
    rows = run(args)
    print(json.dumps(rows, indent=1))
    if args.write:
        document = {"machine": describe_machine(), "rows": rows}
        (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
