"""Cost and latency of one request: `edgedl serve`, ONNX Runtime alone, FastAPI, LitServe and BentoML, in one run.

    python benchmarks/serving.py FACE.edge --peers VENVS [--write]

FACE.edge is a bundle with one model that takes uint8 [N, H, W, 3]. VENVS is a folder with the virtual environments
`fastapi`, `litserve` and `bentoml`, each with its package, numpy and the same onnxruntime. Every server gets the same
.npy file over HTTP/1.1 on loopback, on connections that are kept, and answers with the same numbers as JSON. Each is
started, warmed, measured and stopped in turn, in several rounds; figures are medians over the rounds. Processor time is
that of the server's processes. Every server is tried with one thread a run and with as many as there are cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from runtime import pipelines
from runtime.bundle import Bundle
from runtime.machine import describe_machine, installed

RESULT = Path(__file__).parent / "results" / "serving.json"
PEERS = Path(__file__).parent / "serving_peers"
CLIENTS = (1, 8, 64)
TICK = os.sysconf("SC_CLK_TCK")


def processes(pid: int) -> list[int]:
    """A process and all that it started."""
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
    return found


def processor_seconds(pid: int) -> float:
    """Processor time of a process and all that it started."""
    total = 0
    for one in processes(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICK


async def client(port: int, request: bytes, left: list[int], seconds: list[float]) -> None:
    """Asks on one connection until no request is left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while left:
            left.pop()
            start = time.perf_counter()
            writer.write(request)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"port {port} answered {head[:200]!r}")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            assert length is not None, head
            await reader.readexactly(int(length[1]))
            seconds.append(time.perf_counter() - start)
    finally:
        writer.close()


async def load(port: int, request: bytes, clients: int, count: int) -> list[float]:
    """The seconds of each request."""
    left, seconds = [0] * count, list[float]()
    await asyncio.gather(*(client(port, request, left, seconds) for _ in range(clients)))
    return sorted(seconds)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def server(name: str, bundle: Path, model: Path, threads: int, peers: Path) -> Iterator[tuple[int, int, str]]:
    """Runs a server; gives its process, its port and the path that it answers."""
    port = free_port()
    environment = os.environ | {"MODEL": str(model), "THREADS": str(threads), "PORT": str(port)}
    environment |= {"BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": str(PEERS)}
    path = "/predict"
    match name:
        case "edgedl":
            environment["PYTHONPATH"] = str(Path(__file__).parents[1])
            words = [sys.executable, "-m", "edgedl", "serve", f"face={bundle}", "--port", str(port)]
            words += ["--threads", str(threads)]
            path = "/v1/face"
        case "bentoml":
            words = [str(peers / name / "bin" / "bentoml"), "serve", "bentoml_server:Network"]
            words += ["--host", "127.0.0.1", "--port", str(port), "--working-dir", str(PEERS)]
        case _:
            words = [str(peers / name / "bin" / "python"), str(PEERS / f"{name}_server.py")]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 90
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise SystemExit(f"{name} did not start: {log.read().decode()[-2000:]}")
                time.sleep(0.2)
            yield process.pid, port, path
        finally:
            started = processes(process.pid)
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            for one in started:  # some leave their own processes behind
                with contextlib.suppress(OSError):
                    os.kill(one, signal.SIGKILL)
            process.wait()


def measured(
    name: str, bundle: Path, model: Path, threads: int, peers: Path, body: bytes, count: int
) -> dict[str, Any]:
    """Figures of one server in one round, by the number of clients."""
    with server(name, bundle, model, threads, peers) as (pid, port, path):
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        request = head.encode() + body
        time.sleep(2)  # those that load in a process of their own listen before they answer
        asyncio.run(load(port, request, 8, 64))
        figures = {}
        for clients in CLIENTS:
            before, start = processor_seconds(pid), time.perf_counter()
            seconds = asyncio.run(load(port, request, clients, count))
            wall, used = time.perf_counter() - start, processor_seconds(pid) - before
            figures[str(clients)] = {
                "processor_ms": used / count * 1e3,
                "p50_ms": seconds[count // 2] * 1e3,
                "p99_ms": seconds[min(count - 1, int(count * 0.99))] * 1e3,
                "per_second": count / wall,
            }
        return figures


def alone(bundle: Bundle, threads: int, array: np.ndarray, body: bytes, count: int) -> dict[str, Any]:
    """In this process: milliseconds a face of ONNX Runtime, in batches of 1 and 8, and of the bare pipeline.

    The pipeline does what a server has to do beside HTTP: it reads the file, checks it, runs, and makes JSON of it.
    """
    figures = {}
    with pipelines.load(bundle, threads=threads) as pipeline:
        (engine,) = pipeline.engines.values()
        (tensor,) = engine.spec.inputs
        session, outputs = engine.session, [output.name for output in engine.spec.outputs]
        feeds = {batch: {tensor.name: np.repeat(array, batch, 0)} for batch in (1, 8)}
        for what, batch, run in (
            ("batch 1", 1, lambda: session.run(outputs, feeds[1])),
            ("batch 8", 8, lambda: session.run(outputs, feeds[8])),
            ("the bare pipeline", 1, lambda: orjson.dumps(pipeline.predict(body))),
        ):
            for _ in range(5):
                run()
            times, before = [], time.process_time()
            for _ in range(count // batch):
                start = time.perf_counter()
                run()
                times.append(time.perf_counter() - start)
            used = time.process_time() - before
            figures[what] = {
                "processor_ms": used / len(times) / batch * 1e3,
                "p50_ms": statistics.median(times) * 1e3,
            }
    return figures


def medians(rounds: list[Mapping[str, Any]]) -> dict[str, Any]:
    """The median over rounds of each figure."""
    first = rounds[0]
    return {
        key: medians([one[key] for one in rounds])
        if isinstance(first[key], Mapping)
        else round(statistics.median(one[key] for one in rounds), 3)
        for key in first
    }


def main() -> None:
    """Runs the benchmark and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--peers", type=Path, required=True, help="folder with the peers' virtual environments")
    parser.add_argument("--servers", default="edgedl,fastapi,litserve,bentoml")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--side", type=int, default=96, help="pixels of a face's side")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT}")
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle)
    (name,) = bundle.manifest.models
    array = np.random.default_rng(0).integers(0, 256, (1, args.side, args.side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    np.save(stream, array)
    body = stream.getvalue()
    threads = sorted({1, len(os.sched_getaffinity(0))})
    rounds: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        model.write_bytes(bundle.graph(name))
        for turn in range(args.rounds):
            for count in threads:
                key = f"ONNX Runtime alone, {count} threads"
                rounds.setdefault(key, []).append(alone(bundle, count, array, body, args.requests))
                for which in args.servers.split(","):
                    figures = measured(which, args.bundle, model, count, args.peers, body, args.requests)
                    rounds.setdefault(f"{which}, {count} threads", []).append(figures)
                    print(turn, which, count, json.dumps(figures["64"]), file=sys.stderr, flush=True)
    result = {
        "machine": describe_machine(),
        "onnxruntime": installed("onnxruntime"),
        "rounds": args.rounds,
        "requests": args.requests,
        "face": [args.side, args.side, 3],
        "figures": {key: medians(values) for key, values in rounds.items()},
    }
    for key, figures in result["figures"].items():
        for clients, row in figures.items():
            print(f"{key:32} {clients:>8} " + "  ".join(f"{what} {value:8.2f}" for what, value in row.items()))
    if args.write:
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
