"""Rows that depend on each other are told from those that do not, by the recorded cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from runtime.compare import EXACT
from runtime.door import Door
from runtime.engine import Engine
from runtime.golden import GoldenCase, RecordedInputs
from runtime.manifest import CRITERION, DimensionSpec, ModelSpec, OutputParity, Parity, StateSpec
from runtime.pieces import PIECE, run_in_pieces
from runtime.pipelines import load
from runtime.rows import rows_stand_alone, telling_rows
from runtime.signature import TensorSpec
from tests.bundles import sums_graph, write_scale_bundle

PARITY = Parity(CRITERION, "numpy float64", {"y": OutputParity(1e-5, 0.0)})


def engine_of(nodes: list[tuple[str, list[str], str]], minimum: int = 1, rows: str = "N") -> Engine:
    """y [N, 3] of x [N, 3]."""
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output]) for kind, inputs, output in nodes],
        "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 3])],
        [helper.make_tensor("first", TensorProto.INT64, [1], [0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    spec = ModelSpec(
        variants={},
        inputs=(TensorSpec("x", "float32", (rows, 3)),),
        outputs=(TensorSpec("y", "float32", (rows, 3)),),
        dimensions={rows: DimensionSpec(minimum, None)},
        parity=PARITY,
    )
    return Engine(model.SerializeToString(), spec=spec, threads=1)


def recorded(engine: Engine, x: np.ndarray) -> GoldenCase:
    """What the graph itself answers to the rows together."""
    inputs = RecordedInputs(x=x.astype(np.float32))
    return GoldenCase("rows", inputs, {name: y.astype(np.float64) for name, y in engine.run(inputs).items()})


X = np.random.default_rng(0).normal(size=(4, 3))
ALONE = [("Relu", ["x"], "y")]
CENTRED = [("ReduceMean", ["x", "first"], "m"), ("Sub", ["x", "m"], "y")]
SUMMED = [("CumSum", ["x", "first"], "y")]


@pytest.mark.parametrize(
    ("nodes", "alone"), [(ALONE, True), (CENTRED, False), (SUMMED, False)], ids=["relu", "x - x.mean(0)", "cumsum"]
)
@pytest.mark.parametrize("rows", [2, 4, 20])
def test_rows_that_depend_on_each_other_are_found(nodes: list, alone: bool, rows: int) -> None:
    engine = engine_of(nodes)
    case = recorded(engine, np.random.default_rng(rows).normal(size=(rows, 3)))
    assert telling_rows(engine.spec, case)
    assert rows_stand_alone(engine, case) is alone


@pytest.mark.parametrize(("x", "why"), [(X[:1], "one row"), (np.ones((5, 3)), "equal rows"), (X[:0], "no row")])
def test_a_case_that_cannot_tell_says_nothing(x: np.ndarray, why: str) -> None:
    engine = engine_of(CENTRED)
    assert not telling_rows(engine.spec, recorded(engine, x) if len(x) else GoldenCase("none", {"x": x}, {"y": x})), why


def test_a_graph_without_a_batch_has_no_rows() -> None:
    engine = engine_of(ALONE, rows="length")
    case = recorded(engine, X)
    assert not telling_rows(engine.spec, case)
    assert not rows_stand_alone(engine, case)


def test_rows_that_may_not_come_alone_are_not_stacked() -> None:
    engine = engine_of(ALONE, minimum=2)
    assert not rows_stand_alone(engine, recorded(engine, X))


def test_a_recorded_answer_without_rows_cannot_be_compared() -> None:
    engine = engine_of(ALONE)
    case = recorded(engine, X)
    assert not rows_stand_alone(engine, GoldenCase("short", case.inputs, {"y": case.outputs["y"][:1]}))
    assert not rows_stand_alone(engine, GoldenCase("none", case.inputs, {}))


def test_states_are_cut_with_their_rows() -> None:
    spec = ModelSpec(
        variants={},
        inputs=(TensorSpec("x", "float32", ("B", "T", 2)), TensorSpec("s0", "float32", ("B", 2))),
        outputs=(TensorSpec("y", "float32", ("B", "T", 2)), TensorSpec("sn", "float32", ("B", 2))),
        state=(StateSpec("s0", "sn", ("B", 2), "float32"),),
        parity=Parity(CRITERION, "numpy", {"y": EXACT, "sn": EXACT}),
    )
    engine = Engine(sums_graph(), spec=spec, threads=1)
    x = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    inputs = RecordedInputs(x=x, s0=np.zeros((3, 2), np.float32))
    case = GoldenCase("sums", inputs, {"y": x.cumsum(1), "sn": x.sum(1)})
    assert telling_rows(spec, case)
    assert rows_stand_alone(engine, case)


def test_a_bundle_says_which_of_its_models_may_be_stacked(tmp_path: Path) -> None:
    with load(write_scale_bundle(tmp_path / "scale.edge"), threads=1) as pipeline:
        door = Door(pipeline.bundle, pipeline.engines)
        assert door.stackable == {"scale": False}, "not before it was tried"
        door.judge_rows()
        assert door.stackable == {"scale": True}
    with load(write_scale_bundle(tmp_path / "spoilt.edge", spoilt=1), threads=1) as pipeline:
        door = Door(pipeline.bundle, pipeline.engines)
        door.judge_rows()
        assert door.stackable == {"scale": False}, "together its rows do not give what was recorded"


@pytest.mark.parametrize(("nodes", "cut"), [(ALONE, True), (CENTRED, False)], ids=["relu", "x - x.mean(0)"])
def test_a_long_call_is_cut_only_between_rows_that_stand_alone(nodes: list, cut: bool) -> None:
    """Cut, the mean would be that of a piece, and the answer silently another."""
    engine = engine_of(nodes)
    case = recorded(engine, X)
    x = np.random.default_rng(1).normal(size=(PIECE, 3)).astype(np.float32)
    whole, calls = engine.run({"x": x})["y"], counted(engine)
    found = run_in_pieces(engine, {"x": x}, apart=lambda: rows_stand_alone(engine, case))["y"]
    np.testing.assert_array_equal(found, whole)
    assert (len(x) in calls) is not cut


def counted(engine: Engine) -> list[int]:
    """The rows of each call of the session from here on."""
    calls: list[int] = []
    session = engine.session

    class Counting:
        def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            calls.append(len(feed["x"]))
            return session.run(names, feed)

    engine._session = Counting()
    return calls


@pytest.mark.parametrize("recorded_as", [None, [1.0, 1.0, 1.0]], ids=["rows that stand alone", "rows that do not"])
def test_a_pipeline_asks_its_recorded_cases_before_it_cuts(tmp_path: Path, recorded_as: list[float] | None) -> None:
    """Answers other than those recorded are no proof that rows stand alone."""
    other = {} if recorded_as is None else {"recorded": np.array(recorded_as, np.float32)}
    bundle = write_scale_bundle(tmp_path / "scale.edge", **other)
    with load(bundle.path, threads=1) as pipeline:
        calls = counted(pipeline.engine)
        pipeline.predict(np.zeros((PIECE // 3, 3), np.float32))
    assert (PIECE // 3 in calls) is (recorded_as is not None)
