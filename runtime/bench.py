"""Latency, throughput, memory and cold start of a bundle on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.child import run_python
from runtime.devices import PROBE_GRAPH
from runtime.engine import Engine
from runtime.errors import BundleError
from runtime.feeds import Feed, feeds, main_model
from runtime.machine import describe_machine, peak_memory_mb

_MIN_RUNS = 10


def bench(
    bundle: Bundle | str | os.PathLike[str],
    *,
    device: str = "cpu",
    threads: int | None = None,
    seconds: float = 1.0,
) -> dict[str, Any]:
    """Measures every variant of every model at batch 1 and, where there is a batch dimension, 8.

    The inputs are those of the first recorded case. ``variants`` is the model that bears the bundle's task or name (or
    the first one), ``models`` has all of them.

    Args:
        bundle: the bundle or its path.
        device: where to run, strictly.
        threads: threads for one call.
        seconds: how long each figure is measured.

    Returns:
        ``{"variants": {"fp32": {"1": {"p50_ms", "p95_ms", "per_s"}, "8": …}}, "models": …, "overhead", "cold_start_s",
        "rss_mb", "device", "provider", "machine": …}``; ``overhead`` in microseconds a call over a bare
        ``session.run``, ``cold_start_s`` from starting Python to the first answer, ``rss_mb`` the peak of that process.

    Raises:
        BundleError: the bundle cannot be trusted, or holds no recorded case to run.
        DeviceError: the device cannot be had.
    """
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(bundle)
    models: dict[str, Any] = {}
    opened: tuple[str, str, int] = ("", "", 0)
    for name, model in bundle.manifest.models.items():
        inputs = feeds(bundle, name)
        variants = models[name] = {}
        for variant in model.variants:
            graph = bundle.graph(name, variant)
            with Engine(graph, spec=model, device=device, threads=threads, name=name) as engine:
                opened = (engine.device, engine.provider, engine.threads)
                variants[variant] = {str(rows): _latency(engine, feed, rows, seconds) for rows, feed in inputs.items()}
    main = main_model(bundle)
    cold, peak = cold_start(bundle, main, feeds(bundle, main)[1], device=device, threads=threads)
    return {
        "variants": models[main],
        "models": models,
        "overhead": round(overhead_us(), 2),
        "cold_start_s": round(cold, 3),
        "rss_mb": round(peak, 1),
        "device": opened[0],
        "provider": opened[1],
        "threads": opened[2],
        "machine": describe_machine(),
    }


def overhead_us(
    engine: Engine | None = None, feed: Mapping[str, NDArray[Any]] | None = None, runs: int = 2000
) -> float:
    """Microseconds that one call of an engine takes more than the bare ``session.run``.

    By default on a graph of one small convolution, whose own time does not drown the difference. The two are timed in
    turns, so that what else the machine does falls on both, and their medians compared.
    """
    if engine is None or feed is None:
        engine, feed = Engine(PROBE_GRAPH, threads=1), {"x": np.zeros((1, 1, 4, 4), np.float32)}
    session, names = engine.session, [tensor.name for tensor in engine.spec.outputs]
    through_engine, bare = [], []
    for _ in range(runs + 100):
        start = time.perf_counter_ns()
        engine.run(feed)
        middle = time.perf_counter_ns()
        session.run(names, feed)
        through_engine.append(middle - start)
        bare.append(time.perf_counter_ns() - middle)
    return float(np.median(through_engine[100:]) - np.median(bare[100:])) / 1e3


def cold_start(
    bundle: Bundle, model: str, feed: Mapping[str, NDArray[Any]], *, device: str = "cpu", threads: int | None = None
) -> tuple[float, float]:
    """Starts a fresh Python that answers once; returns its seconds and its peak memory in MB.

    Raises:
        BundleError: the process did not come to its answer.
    """
    shapes = {name: [array.dtype.str, array.shape] for name, array in feed.items()}
    variant = next(iter(bundle.model(model).variants))
    request = json.dumps([str(bundle.path), model, variant, device, threads, shapes])
    code = "from runtime.bench import answer_once; answer_once()"
    start = time.perf_counter()
    try:
        done = run_python(code, request, timeout=300)
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"{bundle.path}: no answer from a fresh process within five minutes") from error
    seconds = time.perf_counter() - start
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise BundleError(f"{bundle.path}: a fresh process gave no answer: {last[0]}")
    return seconds, float(done.stdout)


def answer_once() -> None:
    """What the fresh process does: read one graph, run it once, and print its peak memory in MB."""
    path, model, variant, device, threads, shapes = json.loads(sys.argv[1])
    bundle = Bundle.open(path, check=False)
    engine = Engine(bundle.graph(model, variant), spec=bundle.model(model), device=device, threads=threads, name=model)
    engine.run({name: np.zeros(shape, dtype) for name, (dtype, shape) in shapes.items()})
    sys.stdout.write(f"{peak_memory_mb()}\n")


def _latency(engine: Engine, feed: Feed, rows: int, seconds: float) -> dict[str, float]:
    _timed(lambda: engine.run(feed), seconds / 5)
    times = np.array(_timed(lambda: engine.run(feed), seconds))
    return {
        "p50_ms": round(float(np.percentile(times, 50)) * 1e3, 4),
        "p95_ms": round(float(np.percentile(times, 95)) * 1e3, 4),
        "per_s": round(rows / float(times.mean()), 1),
    }


def _timed(call: Callable[[], object], seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < _MIN_RUNS:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times
