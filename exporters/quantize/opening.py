"""A candidate is opened and run in a child process first: some graphs end the process that opens them."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from exporters.quantize.inputs import Feed
from runtime.child import run_python

_SECONDS = 300.0
_CODE = """
import sys
import numpy as np
from runtime.engine import Engine

graph, feed = sys.argv[1:]
try:
    with np.load(feed) as arrays, open(graph, "rb") as file:
        engine = Engine(file.read(), threads=1, name="candidate")
        engine.session.run(None, {name: arrays[name] for name in arrays.files})
except Exception as error:
    sys.exit(str(error).splitlines()[0])
"""


def refusal(graph: bytes, feed: Feed) -> str | None:
    """Why a graph cannot be opened and run here; None where it can."""
    with tempfile.TemporaryDirectory(prefix="edgedl-") as folder:
        file, inputs = Path(folder, "graph.onnx"), Path(folder, "feed.npz")
        file.write_bytes(graph)
        np.savez(inputs, **feed)  # type: ignore[arg-type]
        try:
            done = run_python(_CODE, str(file), str(inputs), timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            return f"no answer within {_SECONDS:g} seconds"
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"it ends the process that opens it (signal {-done.returncode})"
    return (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
