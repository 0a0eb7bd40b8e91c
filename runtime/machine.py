"""What a measurement or a report has to say about the machine that it was made on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

from runtime.threads import thread_budget


def describe_machine() -> dict[str, Any]:
    """Processor, system, versions and threads, as JSON-able values."""
    budget = thread_budget()
    return {
        "processor": processor_name(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": installed("numpy"),
        "onnxruntime": installed("onnxruntime") or installed("onnxruntime-gpu"),
        "processors": budget.host,
        "threads": budget.chosen,
    }


def processor_name() -> str:
    """The processor's name as the system gives it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    # x86 says "model name", many ARM boards "Model" or "Hardware".
    for key in ("model name", "Model", "Hardware"):
        found = re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def installed(distribution: str) -> str | None:
    """The version of an installed distribution; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def peak_memory_mb() -> float:
    """The most memory that this process held at once, in MB (10^6 bytes)."""
    try:
        # Not `ru_maxrss` where this is to be had: that one survives exec, so a child reports its parent's peak.
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    if found:
        return int(found.group(1)) * 1024 / 1e6
    if os.name != "posix":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
