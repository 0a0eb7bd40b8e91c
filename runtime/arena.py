"""Giving memory back to the system that the shared pool of ONNX Runtime keeps after a large call."""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any

import numpy as np

from runtime.devices import PROBE_GRAPH, onnxruntime, open_session
from runtime.memory import give_back


def release_memory() -> None:
    """Returns to the system what earlier calls took, which the shared pool and the C library would keep.

    The pool gives back what no session holds at the end of a run that asks for it. So the smallest of graphs is run.
    """
    options = onnxruntime().RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    # onnxruntime raises a class of its own per status code; one that has no pool (32 bits) has nothing to give back.
    with contextlib.suppress(Exception):
        _smallest_session().run(None, {"x": np.zeros((1, 1, 4, 4), np.float32)}, options)
    give_back()


@cache
def _smallest_session() -> Any:
    return open_session(PROBE_GRAPH, "cpu", 1).session
