"""Requests that are wrong in many ways, beside good ones.

    python benchmarks/service_abuse.py AGE.edge PHOTO [--seeds 1,2,3,4,5] [--requests 1000] [--write]

The server runs on loopback. Faults are statuses of 500 and above but 503, traces in an answer, a worker that died, and
good requests with another answer.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import random
import re
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the three programs share lies beside this one

import numpy as np

from benchmarks.service_clients import (
    BINARY,
    INFER,
    JSON,
    LENGTH,
    MEGABYTE,
    Good,
    Server,
    post,
    program,
    serving,
    tensor,
)


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


if __name__ == "__main__":
    program(__doc__ or "", "service_abuse", abuse, seeds=(str, "1,2,3,4,5"), requests=(int, 1000))
