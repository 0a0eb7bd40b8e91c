"""The program that runs on a target with Python: it opens graphs and answers calls, and compares nothing.

It is sent there as text together with `wire`, see `exporters.targets.child.program`. So it needs the standard library,
numpy and onnxruntime only, and runs with Python 3.8. It speaks `wire` on standard input and output. First it tells of
the machine. Then it answers one request after the other: ``{"open": number}`` with the tensor ``graph``, ``{"run":
number, "names": [...]}`` with the inputs, ``{"times": number, "calls": n}`` with the inputs, ``{"close": number}``. It
tells what fails as ``error``.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from exporters.targets.wire import pack, read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def main() -> None:
    """Answers requests until standard input ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand between two answers

    def send(header: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]] | None = None) -> None:
        out.write(pack(header, tensors))
        out.flush()

    # From 1.29 on the Linux wheels write to the user's cache and look up a collector, unless this is set by then.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import numpy
        import onnxruntime
    except ImportError as error:
        send({"error": f"{type(error).__name__}: {error}", "missing": (error.name or "").partition(".")[0]})
        return
    send({"machine": _machine(onnxruntime, numpy)})
    graphs: dict[int, _Graph] = {}
    while True:
        request = read(sys.stdin.buffer)
        if request is None:
            break
        header, tensors = request
        try:
            if "open" in header:
                graphs[header["open"]] = _Graph(onnxruntime, tensors["graph"].tobytes())
                send({})
            elif "run" in header:
                answers = graphs[header["run"]].session.run(header["names"], tensors)
                send({}, dict(zip(header["names"], map(numpy.asarray, answers))))  # noqa: B905 - not in 3.8
            elif "times" in header:
                send(graphs[header["times"]].times(tensors, header["calls"]))
            else:
                del graphs[header["close"]]
                send({})
        except Exception as error:  # noqa: BLE001 - whatever it is, the other side has to know
            told = (str(error).strip().splitlines() or [""])[0]
            send({"error": re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", told) or type(error).__name__})


class _Graph:
    """An open graph, with the time that opening it took."""

    def __init__(self, onnxruntime: Any, graph: bytes) -> None:
        begun = time.perf_counter()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.opened = time.perf_counter() - begun

    def times(self, feed: Mapping[str, NDArray[Any]], calls: int) -> dict[str, Any]:
        took = []
        for _ in range(calls + 1):
            begun = time.perf_counter()
            self.session.run(None, feed)
            took.append(time.perf_counter() - begun)
        return {"first": self.opened + took[0], "calls": took[1:], "memory_mb": _peak_memory_mb()}


def _machine(onnxruntime: Any, numpy: Any) -> dict[str, Any]:
    """What this machine says of itself; `flags` are those of /proc/cpuinfo."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - not only here
            text = file.read()
    except OSError:
        text = ""

    def of(*keys: str) -> str:
        for key in keys:
            found = re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE)
            if found:
                return found.group(1).strip()
        return ""

    return {
        "onnxruntime": onnxruntime.__version__,
        "numpy": numpy.__version__,
        "language": f"Python {platform.python_version()}",
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": of("model name", "Model", "Hardware") or platform.processor() or platform.machine(),
        "flags": of("flags", "Features").split(),
    }


def _peak_memory_mb() -> float | None:
    try:
        with open("/proc/self/status", encoding="utf-8") as file:  # noqa: PTH123 - not only here
            found = re.search(r"^VmHWM:\s*(\d+) kB$", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 / 1e6 if found else None
