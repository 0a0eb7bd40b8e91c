"""Half an hour of mixed load at a share of what the server can do: faults and memory.

    python benchmarks/service_soak.py AGE.edge PHOTO [--minutes 30] [--share 0.67] [--write]

Four clients send photos, faces as tensors, forms and wrong requests, and ask for lists and metrics. The server runs on
loopback.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the three programs share lies beside this one

import numpy as np

from benchmarks.service_clients import BINARY, INFER, JSON, LENGTH, Server, post, program, serving, tensor


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


if __name__ == "__main__":
    program(__doc__ or "", "service_soak", soak, minutes=(float, 30.0), share=(float, 0.67))
