"""Which named dimensions of a model may be empty: no rows, no steps, no elements.

ONNX Runtime aborts the process on some empty calls and answers others from memory that nobody wrote. So most of them
never reach it: `runtime.empty` works out the answer from the signature, and here torch is asked whether it agrees. An
answer that does not follow from the signature, such as a sum over no elements, is tried in a process of its own, in
which every piece of fresh memory is filled with large numbers.
"""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from exporters.errors import GuardError
from exporters.reference import Arrays
from exporters.spec import Case, bind_sizes
from runtime.axes import BATCH_NAMES, input_dimensions, step_name
from runtime.child import run_python
from runtime.empty import empty_answers
from runtime.manifest import ModelSpec
from runtime.signature import DimensionSpec

RECURRENT = frozenset(("LSTM", "GRU", "RNN"))
"""Operators that get no empty input, whatever a trial says: what they do with one depends on the version."""

FILLINGS = (0x7F, 0x40)
"""Bytes that fresh memory is filled with: as float32 3.4e38 and 3.0, as int64 9.2e18 and 4.6e18."""

_TRIAL = """
import sys
import numpy as np
from runtime.devices import onnxruntime
ort = onnxruntime()
options = ort.SessionOptions()
options.enable_cpu_mem_arena = False
options.log_severity_level = 4
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
with np.load(sys.argv[2]) as file:
    feed = {name: file[name] for name in file}
names = [output.name for output in session.get_outputs()]
np.savez(sys.argv[3], **dict(zip(names, session.run(names, feed), strict=True)))
"""


def dimension_ranges(
    graph: bytes,
    spec: ModelSpec,
    case: Case,
    reference: Callable[[Case], Arrays],
    allowed: Mapping[str, float],
    operators: Iterable[str],
) -> dict[str, DimensionSpec]:
    """The range of every named dimension of the inputs: as declared, else from 0 or 1 on.

    Args:
        graph: ONNX.
        spec: the signature, with the ranges that were declared.
        case: inputs of any sizes.
        reference: torch's answers to a case; raises GuardError where torch has none.
        allowed: what each output may be off by.
        operators: of the graph.

    Raises:
        GuardError: a dimension was declared that no input has, or to be empty at times where that has no right answer.
    """
    recurrent = not RECURRENT.isdisjoint(operators)
    strangers = sorted(spec.dimensions.keys() - set(input_dimensions(spec)))
    if strangers:
        raise GuardError(f"sizes are declared of {', '.join(strangers)}, which no input has")
    ranges = {}
    for name in input_dimensions(spec):
        declared = spec.dimensions.get(name)
        asked = declared is None or declared.min == 0
        taken = asked and _takes_none(graph, spec, name, case, reference, allowed, recurrent)
        if declared is not None and asked and not taken:
            raise GuardError(
                f"{name} is declared to be 0 at times, to which the graph has no right answer; declare min=1"
            )
        ranges[name] = replace(declared or DimensionSpec(), min=0) if taken else declared or DimensionSpec()
    return ranges


def _takes_none(
    graph: bytes,
    spec: ModelSpec,
    name: str,
    case: Case,
    reference: Callable[[Case], Arrays],
    allowed: Mapping[str, float],
    recurrent: bool,
) -> bool:
    """Whether a call has an answer in which one dimension is empty."""
    shapes = {tensor.name: tensor.shape for tensor in spec.inputs}
    empty = Case(
        f"no {name}",
        {
            key: np.array(array[tuple(slice(0) if size == name else slice(None) for size in shapes[key])])
            for key, array in case.inputs.items()
        },
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            truth = reference(empty)
    except GuardError:
        truth = None
    outputs = [tensor.name for tensor in spec.outputs]
    worked_out = empty_answers(spec, bind_sizes(shapes, empty.inputs), empty.inputs, outputs)
    if worked_out is None:
        return (
            truth is not None
            and not recurrent
            and all(found is not None and _agree(found, truth, allowed) for found in _trials(graph, empty))
        )
    # No rows and no steps have their answer by definition, also where torch refuses them.
    return name in (BATCH_NAMES | {step_name(spec)}) if truth is None else _agree(worked_out, truth, allowed)


def _agree(found: Arrays, truth: Arrays, allowed: Mapping[str, float]) -> bool:
    return all(
        found[name].shape == answer.shape and np.allclose(found[name], answer, rtol=0, atol=allowed.get(name, 0.0))
        for name, answer in truth.items()
    )


def _trials(graph: bytes, case: Case) -> Sequence[Arrays | None]:
    """What ONNX Runtime answers on each filling of fresh memory; None where it does not."""
    with tempfile.TemporaryDirectory() as folder:
        model, given, found = (Path(folder) / file for file in ("model.onnx", "given.npz", "found.npz"))
        model.write_bytes(graph)
        np.savez(given, **case.inputs)  # type: ignore[arg-type]
        answers: list[Arrays | None] = []
        for filling in FILLINGS:
            found.unlink(missing_ok=True)
            # glibc fills with the complement; without its caches every allocation is filled. Other systems ignore it.
            fill = {"MALLOC_PERTURB_": str(filling ^ 0xFF), "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
            try:
                run_python(_TRIAL, str(model), str(given), str(found), environment=fill)
            except subprocess.TimeoutExpired:
                return [None]
            if not found.exists():
                return [None]
            with np.load(found, allow_pickle=False) as file:
                answers.append({name: file[name] for name in file})
    return answers
