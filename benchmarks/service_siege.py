"""What `edgedl serve` withstands: slow clients, hostile requests, and half an hour of mixed load.

    python benchmarks/service_siege.py starve AGE.edge PHOTO [--slow 8,64,500] [--probes 2000] [--write]
    python benchmarks/service_siege.py abuse AGE.edge PHOTO [--seeds 1,2,3,4,5] [--requests 2000] [--write]
    python benchmarks/service_siege.py soak AGE.edge PHOTO [--minutes 30] [--share 0.67] [--write]

AGE.edge is a bundle of the task age, PHOTO shows a face. Each command starts the server on loopback and stops it.
`starve`: so many clients that send their heads or bodies slowly, or do not read their answers; how long `/livez` takes
meanwhile, and whether good requests are answered. `abuse`: requests that are wrong in many ways, beside good ones.
`soak`: photos, faces as tensors, JSON, forms and probes at a share of what the server can do; faults and memory.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from runtime.machine import describe_machine

RESULTS = Path(__file__).parent / "results"
MEGABYTE = 1 << 20


@dataclass
class Server:
    """The server under siege."""

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
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

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


# ------------------------------------------------------------------------------------------------------------- starve


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
    """Clients that hold a connection; those that trickle send a byte each second."""
    held = []
    head = b"POST /v1/age HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
    first = {
        "heads": head, "bodies": head + b"Content-Length: 60000\r\n\r\n\xff\xd8\xff\xe0",
        "readers": b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 60,
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
    if mode != "readers":
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if mode != "readers":
            thread.join()
        for connection in held:
            connection.close()


def starve(args: argparse.Namespace) -> dict[str, Any]:
    """Probes and good requests while slow clients hold connections."""
    photo, rows = args.photo.read_bytes(), {}
    for mode in ("heads", "bodies", "readers"):
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


# -------------------------------------------------------------------------------------------------------------- abuse


@dataclass
class Attack:
    """One hostile request: its kind, its bytes and how it is sent."""

    kind: str
    data: bytes
    half: bool = False
    leave: bool = False
    pieces: Sequence[bytes] = field(default_factory=tuple)


def mutated(rng: random.Random, data: bytes) -> bytes:
    """A few bytes changed, cut out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 40))):
        at = rng.randrange(len(changed) or 1)
        match rng.randrange(5):
            case 0 if changed:
                changed[at] = rng.randrange(256)
            case 1:
                del changed[at : at + rng.randrange(30)]
            case 2:
                changed[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(20)))
            case 3:
                changed[at:at] = changed[at : at + 20]
            case _:
                changed[at : at + 4] = struct.pack("<I", rng.choice((0, 1, 2**31 - 1, 2**32 - 1)))
    return bytes(changed)


INFER = "/v2/models/age.age/infer"
BINARY, JSON = "application/octet-stream", "application/json"
LENGTH = "Inference-Header-Content-Length"
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH")
ODD_LENGTHS = ("0", "-1", "99999999999999999999", "1e3", "\u0661", "+5", " 5 ", "", "7", "12345")
PATHS = (
    "/v2", "/v2/", "/v2/models", "/v2/models/age", "/v2/models/age.age/versions/9", "/v2/models/age.%2e%2e",
    "/v2/models/age/config", "/v2/models/stats", "/v2/repository/index", "/v2/repository/models/age/unload",
    "/v2/repository/models/..%2f..%2fetc/load", "/v2/systemsharedmemory/region/x/register", "/v2/logging",
    "/v1/age/versions/", "/v1/age/versions/%00", "/v1/age/versions/1.0.0", "/v1/age/example", "/v1//age",
    "/v1/age?", "/v1/age?distribution=%31", "/%2e%2e/%2e%2e/etc/passwd", "//", "/livez/", "/metrics/../livez",
)  # fmt: skip
FRAMINGS = (
    "Transfer-Encoding: chunked", "Transfer-Encoding : chunked", "Transfer_Encoding: chunked", "Content-Length: 3",
    "Transfer-Encoding: Chunked, identity",
)  # fmt: skip
UPGRADES = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13",
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
)
HEADERS = (
    "traceparent: 00-" + "0" * 60, "Authorization: Bearer " + "x" * 4000, "X-Request-ID: " + "\u00e9" * 30,
    "X-Forwarded-For: 1.1.1.1, 2.2.2.2", "X-Forwarded-Prefix: //evil", "Forwarded: for=x;host=evil",
    "Accept: text/event-stream;q=1e9", "Range: bytes=0-0,1-1", "Expect: 100-continue",
)  # fmt: skip


def attacks(rng: random.Random, photo: bytes, count: int) -> Iterator[Attack]:
    """Hostile requests of every kind."""
    face = np.zeros((1, 32, 32, 3), np.uint8)
    binary, length = tensor("face", face)
    npy = io.BytesIO()
    np.save(npy, face)
    entry: dict[str, Any] = {"name": "face", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": [0] * 12}
    json_infer = json.dumps({"inputs": [entry]}).encode()
    entry = {"name": "input", "shape": [1], "datatype": "BYTES", "data": ["aGVsbG8="]}
    pipeline_infer = json.dumps({"inputs": [entry | {"parameters": {"content_type": "base64"}}]}).encode()
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\n{LENGTH}: {length}\r\nContent-Length: {len(binary)}\r\n\r\n"
    whole = head.encode() + binary
    live = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    picture = post("/v1/age", photo, "image/jpeg")
    pick = rng.choice

    def gzip() -> Attack:
        encoding = f"Content-Encoding: {pick(('gzip', 'deflate', 'br', 'gzip, gzip', ''))}"
        return Attack("v2 gzip", post(INFER, mutated(rng, b"\x1f\x8b\x08" + bytes(40)), JSON, encoding))

    def route() -> Attack:
        body, kind = pick((b"", b"{}", photo[:400], b"[]")), pick((JSON, "image/jpeg", ""))
        return Attack("routes", post(pick(PATHS), body, kind, method=pick(METHODS)))

    def smuggled() -> Attack:
        lines = f"POST /v1/age HTTP/1.1\r\nHost: x\r\nContent-Length: {rng.randrange(9)}\r\n{pick(FRAMINGS)}\r\n\r\n"
        return Attack("smuggled", lines.encode() + b"0\r\n\r\n" + live, half=True)

    def upgrade() -> Attack:
        request = post("/v1", b"", "", pick(UPGRADES), method="GET").replace(b"Connection: close\r\n", b"")
        return Attack("upgrade", request, half=True)

    def pieces() -> Attack:
        data = mutated(rng, whole)
        return Attack("in pieces", b"", pieces=[data[start : start + 3000] for start in range(0, 9000, 3000)])

    makers: list[Callable[[], Attack]] = [
        gzip, route, smuggled, upgrade, pieces,
        lambda: Attack("v2 binary, mutated", mutated(rng, whole), half=True),
        lambda: Attack("v2 header length", post(INFER, binary, BINARY, f"{LENGTH}: {pick(ODD_LENGTHS)}")),
        lambda: Attack("v2 JSON, mutated", post(INFER, mutated(rng, json_infer), JSON)),
        lambda: Attack("v2 pipeline, mutated", post("/v2/models/age/infer", mutated(rng, pipeline_infer), JSON)),
        lambda: Attack("npy, mutated", post("/v1/age", mutated(rng, npy.getvalue()), "application/x-npy")),
        lambda: Attack("photo, mutated", post("/v1/age", mutated(rng, photo), "image/jpeg")),
        lambda: Attack("request, mutated", mutated(rng, picture[:500]), half=True),
        lambda: Attack("pipelined", live * rng.randrange(2, 200) + mutated(rng, last), half=True),
        lambda: Attack("leave", whole[: rng.randrange(len(whole))], leave=True),
        lambda: Attack("leave", picture[: pick((10, 300, 20_000, 10**9))], leave=True),
        lambda: Attack("headers", post("/v1/age", photo[:99], "image/jpeg", pick(HEADERS))),
    ]  # fmt: skip
    for _ in range(count):
        yield pick(makers)()


def abuse(args: argparse.Namespace) -> dict[str, Any]:
    """Hostile requests beside good ones."""
    photo, rows = args.photo.read_bytes(), {}
    with serving(args.bundle) as server:
        for seed in map(int, args.seeds.split(",")):
            rng = random.Random(seed)
            with Good(server, photo) as good:
                time.sleep(2)
                worker, before = server.worker, server.memory_mb()
                statuses: collections.Counter[str] = collections.Counter()
                faults = []
                for attack in attacks(rng, photo, args.requests):
                    status, answer = strike(server, attack)
                    statuses[str(status)] += 1
                    if isinstance(status, int) and status >= 500 and status != 503:
                        faults.append(f"{attack.kind}: {status}: {attack.data[:120]!r}")
                    if b"Traceback" in answer or b"site-packages" in answer:
                        faults.append(f"{attack.kind}: leak: {answer[:300]!r}")
            time.sleep(3)
            rows[f"seed {seed}"] = {
                "requests": args.requests, "statuses": dict(statuses.most_common()), "faults": faults[:10],
                "worker_kept": worker == server.worker, "memory_up_mb": round(server.memory_mb() - before, 1),
                "good": good.to_json(),
            }  # fmt: skip
            print(f"seed {seed}", json.dumps(rows[f"seed {seed}"]), flush=True)
    return rows


def strike(server: Server, attack: Attack) -> tuple[int | str, bytes]:
    """Sends a hostile request."""
    if attack.leave:
        with suppress(OSError), closing(server.connect()) as connection:
            connection.sendall(attack.data)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return "left", b""
    if attack.pieces:
        with suppress(OSError), closing(server.connect(20)) as connection:
            for piece in attack.pieces:
                connection.sendall(piece)
                time.sleep(0.01)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(MEGABYTE)
            status = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
            return (int(status[1]) if status else "closed"), answer
        return "closed", b""
    return server.ask(attack.data, 30, half=attack.half)


# --------------------------------------------------------------------------------------------------------------- soak


def soak(args: argparse.Namespace) -> dict[str, Any]:
    """Mixed requests at a share of what the server can do."""
    photo = args.photo.read_bytes()
    face = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    binary, length = tensor("face", face)
    disposition = b'Content-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg'
    form = b"--XX\r\n" + disposition + b"\r\n\r\n" + photo + b"\r\n--XX--\r\n"
    kinds = [
        post("/v1/age", photo, "image/jpeg"),
        *[post(INFER, binary, BINARY, f"{LENGTH}: {length}")] * 4,
        post("/v1/age", form, "multipart/form-data; boundary=XX"),
        post("/v1", b"", JSON, method="GET"),
        post("/metrics", b"", "", method="GET"),
        post("/v1/age", b"no picture", "image/jpeg"),
    ]
    with serving(args.bundle) as server:
        expected = [server.ask(kind) for kind in kinds]
        for status, answer in expected:
            assert status in (200, 422), answer[:200]
        pace = capacity(server, kinds)
        print(f"capacity: {pace:.1f} requests a second", flush=True)
        outcome: collections.Counter[str] = collections.Counter()
        memory: list[float] = []
        stop = time.monotonic() + args.minutes * 60
        clients = 4

        def client(number: int) -> None:
            rng = random.Random(number)
            due = time.monotonic()
            while due < stop:
                index = rng.randrange(len(kinds))
                status, answer = server.ask(kinds[index])
                wanted, first = expected[index]
                same = index in (0, 5) and body_of(answer) != body_of(first)
                outcome["right" if status == wanted and not same else f"{status}"] += 1
                due = max(due + rng.expovariate(args.share * pace / clients), time.monotonic() - 5)
                time.sleep(max(0.0, due - time.monotonic()))

        threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        while time.monotonic() < stop:
            time.sleep(min(args.minutes * 2, max(0.1, stop - time.monotonic())))
            memory.append(round(server.memory_mb(), 1))
        for thread in threads:
            thread.join()
        warm = memory[max(1, len(memory) // 10) :]
        half = len(warm) // 2
        growth = float(np.median(warm[half:]) - np.median(warm[:half]))
    return {
        "minutes": args.minutes, "per_second": round(args.share * pace, 1), "outcome": dict(outcome),
        "memory_mb": memory, "growth_mb": round(growth, 2), "last_minus_first_mb": round(warm[-1] - warm[0], 1),
    }  # fmt: skip


def body_of(answer: bytes) -> bytes:
    """What follows the head."""
    return answer.partition(b"\r\n\r\n")[2]


def capacity(server: Server, kinds: Sequence[bytes]) -> float:
    """Requests a second that four clients get answered when none of them waits."""
    done = []
    stop = time.monotonic() + 15

    def client(number: int) -> None:
        rng = random.Random(number)
        while time.monotonic() < stop:
            server.ask(rng.choice(kinds))
            done.append(1)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(done) / 15


def main() -> None:
    """Runs one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("starve", "abuse", "soak"))
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--slow", default="8,64,500")
    parser.add_argument("--probes", type=int, default=2000)
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--share", type=float, default=0.67)
    parser.add_argument("--write", action="store_true", help=f"write the figures into {RESULTS}")
    args = parser.parse_args()
    rows = {"starve": starve, "abuse": abuse, "soak": soak}[args.what](args)
    print(json.dumps(rows, indent=1))
    if args.write:
        document = {"machine": describe_machine(), "cores": os.cpu_count(), "rows": rows}
        (RESULTS / f"service_{args.what}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
