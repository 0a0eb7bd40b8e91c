"""No answer holds what another call left in memory: A, then B, then A again, and memory that is filled on purpose.

The bundles hold every operator family that a task exports: Conv, Resize, MatMul, RNN, LSTM, GRU, Scan, Loop, TopK,
NonMaxSuppression, Gather and what lies between them. The recorded cases are the edges of each dimension (one row, one
step, one pixel, the longest) and what lies between.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from runtime.bundle import Bundle
from runtime.child import run_python
from runtime.engine import Engine
from runtime.errors import InputError
from runtime.manifest import ModelSpec
from runtime.pipelines import load
from tests.frozen_bundles import NAMES, RECURRENT, unpack
from tests.runtime.conftest import graph_bytes

Feed = dict[str, np.ndarray]

LEAST = np.iinfo(np.int64).min


def questions(bundle: Bundle, model: str) -> Iterator[tuple[str, Feed]]:
    """The recorded cases; and values that no caller should send, where a graph might read beyond its own memory."""
    cases = bundle.golden(model)
    for case in cases:
        yield case.name, dict(case.inputs)
    largest = max(cases, key=lambda case: sum(array.size for array in case.inputs.values())).inputs
    for tensor in bundle.model(model).inputs:
        values = {"int64": (-1, 0, 9, 10**6, 2**62, LEAST), "float32": (3e38, -3e38, 1e20, 1e-40)}
        for value in values.get(tensor.dtype, ()):
            first = largest[tensor.name].copy()
            first.flat[0] = value
            yield f"{tensor.name} begins with {value}", {**largest, tensor.name: first}
            yield f"{tensor.name} is {value}", {**largest, tensor.name: np.full_like(first, value)}


def tolerances(spec: ModelSpec, recurrent: bool) -> dict[str, float]:
    """ONNX Runtime's RNN operator is not promised to be the same bit for bit; everything else is."""
    assert spec.parity is not None
    return {name: parity.atol if recurrent else 0.0 for name, parity in spec.parity.outputs.items()}


def same(found: Feed, expected: Feed, allowed: dict[str, float]) -> None:
    for name, array in expected.items():
        if allowed[name]:
            np.testing.assert_allclose(found[name], array, rtol=0, atol=allowed[name])
        else:
            assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_does_not_depend_on_what_was_asked_before(name: str, tmp_path: Path) -> None:
    bundle = unpack(name, tmp_path)
    chance = np.random.default_rng(0)
    for model, spec in bundle.manifest.models.items():
        engine = Engine(bundle.graph(model), spec=spec, threads=1, name=model)
        allowed = tolerances(spec, name in ("timer-elman", "longlag-adding"))
        first: dict[str, tuple[Feed, Feed | None]] = {}
        for question, feed in questions(bundle, model):
            try:
                first[question] = feed, engine.run(feed)
            except InputError:
                first[question] = feed, None
        for question in chance.permutation(sorted(first)):
            feed, expected = first[str(question)]
            if expected is None:
                with pytest.raises(InputError):
                    engine.run(feed)
            else:
                same(engine.run(feed), expected, allowed)


@pytest.mark.parametrize("name", RECURRENT)
def test_a_stream_does_not_depend_on_its_neighbours(name: str, tmp_path: Path) -> None:
    bundle = unpack(name, tmp_path)
    ((model, spec),) = bundle.manifest.models.items()
    engine = Engine(bundle.graph(model), spec=spec, threads=1, name=model)
    allowed = tolerances(spec, name == "timer-elman")
    carried = {state.input for state in spec.state}
    cases = [{key: array for key, array in case.inputs.items() if key not in carried} for case in bundle.golden(model)]

    def pieces(case: Feed) -> Iterator[Feed]:
        for start in range(next(iter(case.values())).shape[1]):
            yield {key: array[:, start : start + 1] for key, array in case.items()}

    alone = []
    for case in cases:
        stream = engine.stream()
        alone.append([stream.step(piece) for piece in pieces(case)])
    streams = [(engine.stream(), list(pieces(case)), answers) for case, answers in zip(cases, alone, strict=True)]
    for step in range(max(len(answers) for answers in alone)):
        for stream, steps, answers in streams:  # side by side, one step of each
            if step < len(steps):
                same(stream.step(steps[step]), answers[step], allowed)


@pytest.mark.parametrize("name", ["age", "digits-dbn", "digits-cnn", "caption-mean", "caption-attention", "chars"])
def test_a_pipeline_does_not_depend_on_what_was_asked_before(name: str, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    sizes = ((1, 1), (30, 20), (16, 16), (1, 40), (40, 1))
    asked = [chance.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    if name == "chars":
        asked = [b"", b"a", b"once upon a time " * 40, "éß\n".encode()]
    with load(unpack(name, tmp_path), threads=1) as pipeline:
        first = [pipeline.predict(source) for source in asked]
        for index in chance.permutation(len(asked)).tolist() * 2:
            assert pipeline.predict(asked[index]) == first[index]


ASK = """
import pickle, sys
from runtime.devices import onnxruntime
ort = onnxruntime()
answers = []
with open(sys.argv[1], "rb") as file:
    calls = pickle.load(file)
for graph, feeds in calls:
    options = ort.SessionOptions()
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    for feed in feeds:
        try:
            answers.append([array.tobytes() for array in session.run(None, feed)])
        except Exception:
            answers.append("refused")
with open(sys.argv[2], "wb") as file:
    pickle.dump(answers, file)
"""


def answers_with_memory_filled(calls: list[tuple[bytes, list[Feed]]], folder: Path, filling: int) -> list[object]:
    """What graphs answer in a process in which every piece of fresh memory holds the same byte."""
    given, found = folder / "calls", folder / f"answers {filling}"
    given.write_bytes(pickle.dumps(calls))
    fill = {"MALLOC_PERTURB_": str(filling ^ 0xFF), "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    done = run_python(ASK, str(given), str(found), environment=fill)
    assert done.returncode == 0, done.stderr
    return pickle.loads(found.read_bytes())


def test_no_answer_holds_memory_that_nobody_wrote(tmp_path: Path) -> None:
    calls, names = [], []
    for name in NAMES:
        bundle = unpack(name, tmp_path)
        for model in bundle.manifest.models:
            asked = list(questions(bundle, model))
            calls.append((bundle.graph(model), [feed for _, feed in asked]))
            names += [(name, model, question) for question, _ in asked]
    one, other = (answers_with_memory_filled(calls, tmp_path, filling) for filling in (0x7F, 0x40))
    assert len(one) == len(names) > 300
    assert [name for name, a, b in zip(names, one, other, strict=True) if a != b] == []


def test_filled_memory_shows_an_answer_that_nobody_wrote(tmp_path: Path) -> None:
    """The check above can fail: an LSTM without steps, as an engine never asks it."""
    rng = np.random.default_rng(0)
    graph = graph_bytes(
        [helper.make_node("LSTM", ["x", "w", "r"], ["", "hn", "cn"], hidden_size=4)],
        [("x", TensorProto.FLOAT, ["T", "B", 3])],
        [("hn", TensorProto.FLOAT, [1, "B", 4]), ("cn", TensorProto.FLOAT, [1, "B", 4])],
        [("w", rng.normal(size=(1, 16, 3)).astype(np.float32)), ("r", rng.normal(size=(1, 16, 4)).astype(np.float32))],
    )
    calls = [(graph, [{"x": np.zeros((0, 2, 3), np.float32)}])]
    one, other = (answers_with_memory_filled(calls, tmp_path, filling) for filling in (0x7F, 0x40))
    if one == other == [[bytes(32), bytes(32)]]:
        pytest.skip("this ONNX Runtime writes the state of no steps")
    assert one != other
