"""A long call in pieces: the answer of the whole, in the memory of a part."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from runtime import pieces
from runtime.child import run_python
from runtime.engine import Engine
from runtime.errors import InputError, TooLargeError
from runtime.manifest import DimensionSpec
from runtime.pieces import count_outputs, run_in_pieces
from runtime.pipelines import load, tensors
from tests.frozen_bundles import ARRAYS, unpack
from tests.runtime.conftest import graph_bytes

Feed = dict[str, np.ndarray]


def counting(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shape of the first input of every call of a graph."""
    shapes: list[tuple[int, ...]] = []
    run = engine.run

    def counted(*inputs: Any, **options: Any) -> Feed:
        feed = inputs[0]
        shapes.append(feed[engine.spec.inputs[0].name].shape)
        return run(feed, **options)

    monkeypatch.setattr(engine, "run", counted)
    return shapes


@pytest.mark.parametrize("name", ARRAYS)
def test_pieces_answer_as_the_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = unpack(name, tmp_path)
    ((model, spec),) = bundle.manifest.models.items()
    assert spec.parity is not None
    engine = Engine(bundle.graph(model), spec=spec, threads=1, name=model)
    carried = {state.input for state in spec.state}
    for case in bundle.golden(model):
        feed = dict(case.inputs)
        fresh = {key: array for key, array in feed.items() if key not in carried}
        whole = engine.run(feed)
        begun = run_in_pieces(engine, fresh)
        with monkeypatch.context() as patch:
            patch.setattr(pieces, "PIECE", 40)
            shapes = counting(engine, patch)
            cut, cut_begun = run_in_pieces(engine, feed), run_in_pieces(engine, fresh)
        if spec.state and feed[spec.inputs[0].name].size > 12:
            assert len(shapes) > 2
        assert list(cut) == list(whole) == [tensor.name for tensor in spec.outputs]
        for key, array in whole.items():
            atol = spec.parity.outputs[key].atol
            np.testing.assert_allclose(cut[key], array, rtol=0, atol=atol)
            np.testing.assert_allclose(cut_begun[key], begun[key], rtol=0, atol=atol)


def echo(rows: str = "N", **ranges: DimensionSpec) -> Engine:
    """y [rows, 3] = x [rows, 3]."""
    graph = graph_bytes(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, [rows, 3])],
        [("y", TensorProto.FLOAT, [rows, 3])],
    )
    spec = Engine(graph, threads=1).spec
    return Engine(graph, spec=dataclasses.replace(spec, dimensions=ranges), threads=1)


@pytest.mark.parametrize(
    ("engine", "calls"),
    [
        (echo(), [4, 4, 2]),
        (echo(N=DimensionSpec(0, 100)), [4, 4, 2]),
        (echo(N=DimensionSpec(2)), [10]),
        (echo(N=DimensionSpec(5, None, 5)), [10]),
        (echo("H"), [10]),
    ],
    ids=["rows", "rows up to 100", "at least two rows", "rows by fives", "no batch"],
)
def test_what_may_not_be_cut_is_not(engine: Engine, calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 24)
    shapes = counting(engine, monkeypatch)
    x = np.arange(30, dtype=np.float32).reshape(10, 3)
    np.testing.assert_array_equal(run_in_pieces(engine, {"x": x})["y"], x)
    assert [shape[0] for shape in shapes] == calls


def test_places_and_refusals_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 24)
    x = np.zeros((10, 3), np.float32)
    x[7, 2] = np.nan
    with pytest.raises(InputError, match=r"at \[7, 2\]"):
        run_in_pieces(echo(), {"x": x})
    with pytest.raises(InputError, match="N is 10, the bundle takes 1 to 8"):
        run_in_pieces(echo(N=DimensionSpec(1, 8)), {"x": np.zeros((10, 3), np.float32)})
    with pytest.raises(InputError, match="input 'x' is missing"):
        run_in_pieces(echo(), {})


def test_an_answer_is_counted_before_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = unpack("gradients-lstm", tmp_path)
    spec = bundle.model("gradients")
    assert count_outputs(spec, {"B": 2, "T": 5}) == 2 * 5 * (1 + 3 * 3) + 2 * 2 * 3
    with load(bundle, threads=1) as pipeline:
        u = np.zeros((1, 7, 3), np.float32)
        monkeypatch.setattr(tensors, "MOST_NUMBERS", 76)
        pipeline.predict(u)
        monkeypatch.setattr(tensors, "MOST_NUMBERS", 75)
        with pytest.raises(TooLargeError, match="the answer has 76 numbers; at most 75 are given as lists"):
            pipeline.predict(u)


def wide_lstm(folder: Path) -> None:
    """An LSTM of 64 units over u [B, T, 2] and what its manifest would say, for a process of its own."""
    rng = np.random.default_rng(0)
    hidden = 64
    nodes = [
        helper.make_node("Transpose", ["u"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "w", "r", "", "", "h0", "c0"], ["all", "hn", "cn"], hidden_size=hidden),
        helper.make_node("ReduceMean", ["all", "axes"], ["mean"], keepdims=0),
        helper.make_node("Transpose", ["mean"], ["answer"], perm=[1, 0]),
    ]
    state = [1, "B", hidden]
    graph = graph_bytes(
        nodes,
        [("u", TensorProto.FLOAT, ["B", "T", 2]), ("h0", TensorProto.FLOAT, state), ("c0", TensorProto.FLOAT, state)],
        [("answer", TensorProto.FLOAT, ["B", "T"]), ("hn", TensorProto.FLOAT, state), ("cn", TensorProto.FLOAT, state)],
        [
            ("w", rng.normal(size=(1, 4 * hidden, 2)).astype(np.float32) / 8),
            ("r", rng.normal(size=(1, 4 * hidden, hidden)).astype(np.float32) / 8),
            ("axes", np.array([1, 3], np.int64)),
        ],
    )
    (folder / "wide.onnx").write_bytes(graph)


MEASURE = """
import sys
import numpy as np
from pathlib import Path
from runtime import pieces
from runtime.engine import Engine
from runtime.manifest import ModelSpec, StateSpec, TensorSpec
from runtime.arena import release_memory
from runtime.pieces import run_in_pieces

def megabytes(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024

pieces.PIECE = int(sys.argv[2])
state = (1, "B", 64)
spec = ModelSpec(
    variants={},
    inputs=tuple(TensorSpec(n, "float32", s) for n, s in (("u", ("B", "T", 2)), ("h0", state), ("c0", state))),
    outputs=tuple(TensorSpec(n, "float32", s) for n, s in (("answer", ("B", "T")), ("hn", state), ("cn", state))),
    state=(StateSpec("h0", "hn", state, "float32"), StateSpec("c0", "cn", state, "float32")),
)
engine = Engine(Path(sys.argv[1]), spec=spec, threads=1)
run_in_pieces(engine, {"u": np.zeros((1, 2, 2), np.float32)})
idle = megabytes("VmRSS")
for shape in ((1, 200_000, 2), (400, 500, 2)):
    run_in_pieces(engine, {"u": np.zeros(shape, np.float32)})
release_memory()
print(megabytes("VmHWM") - idle, megabytes("VmRSS") - idle)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """200,000 steps at once take over 250 MB; in pieces a few, and after either the system has them back."""
    wide_lstm(tmp_path)

    def measured(piece: int) -> tuple[float, float]:
        done = run_python(MEASURE, str(tmp_path / "wide.onnx"), str(piece))
        assert done.returncode == 0, done.stderr
        peak, kept = map(float, done.stdout.split())
        return peak, kept

    whole, cut = measured(1 << 40), measured(pieces.PIECE)
    assert whole[0] > 200, "the measurement sees what a whole call takes"
    assert cut[0] < 40
    assert max(whole[1], cut[1]) < 40
