"""Runs a graph in ONNX Runtime on the CPU, as it is written or with every optimisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.errors import GuardError, ParityError
from exporters.reference import Arrays
from exporters.spec import Case
from runtime.devices import onnxruntime
from runtime.threads import default_threads

LEVELS = ("as written", "optimised")
"""A fault of ONNX Runtime's optimiser shows in one of the two only."""


def open_graph(graph: bytes, level: str) -> Any:
    """An ONNX Runtime session on the CPU.

    Raises:
        GuardError: ONNX Runtime does not load the graph at this level.
    """
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    levels = runtime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if level == LEVELS[1] else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = default_threads()
    options.log_severity_level = 4  # the exception says it all
    try:
        return runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime has an exception class per status code, all direct children of Exception.
    except Exception as error:
        raise GuardError(f"ONNX Runtime {runtime.__version__} does not load the graph {level}: {error}") from error


def run_case(session: Any, case: Case, names: Sequence[str]) -> Arrays:
    """The named outputs for one case.

    Raises:
        ParityError: ONNX Runtime refuses the case.
    """
    feed: Mapping[str, NDArray[Any]] = {name: np.ascontiguousarray(array) for name, array in case.inputs.items()}
    try:
        return dict(zip(names, session.run(list(names), feed), strict=True))
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise ParityError(f"case {case.name!r}: ONNX Runtime stops: {lines[0] if lines else error!r}") from error
