"""Writing a graph by hand, and cutting a part out of another one: what is written runs in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from exporters.cutting import constant_of, only, part
from exporters.errors import GuardError
from exporters.execute import LEVELS, open_graph
from exporters.expose import expose
from exporters.writer import Value, Writer


def run(writer: Writer, **feed: np.ndarray) -> list[np.ndarray]:
    model = writer.model("test")
    onnx.checker.check_model(model)
    sessions = [open_graph(model.SerializeToString(), level) for level in LEVELS]
    plain, optimised = (session.run(None, feed) for session in sessions)
    for one, other in zip(plain, optimised, strict=True):
        np.testing.assert_array_equal(one, other)
    return optimised


def numbers(writer: Writer, name: str = "x", dtype: int = TensorProto.FLOAT) -> Value:
    return writer.input(name, dtype, ["N"])


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        (lambda x: (x + 1) * 2 - 3, [-1.0, 3.0, 7.0]),
        (lambda x: 1 - x / 2, [1.0, 0.0, -1.0]),
        (lambda x: 6 / (x + 1), [6.0, 2.0, 1.2]),
        (lambda x: -x.most(1).least(3), [-1.0, -2.0, -3.0]),
        (lambda x: x.writer.where((x > 1) & ~(x >= 4), x, -1), [-1.0, 2.0, -1.0]),
        (lambda x: x.writer.where((x < 1) | x.equals(4), x, 9), [0.0, 9.0, 4.0]),
        (lambda x: x.cut(1, 3).take(x.writer.whole(1, 0)), [4.0, 2.0]),
        (lambda x: x.over("ReduceSum", 0, keep=True), [6.0]),
    ],
    ids=["sums", "from a number", "over a number", "bounds", "and not", "or", "places", "sum"],
)
def test_formulas_are_what_python_would_give(formula, expected):
    writer = Writer()
    writer.output("y", formula(numbers(writer)), ["M"])
    np.testing.assert_allclose(run(writer, x=np.array([0, 2, 4], np.float32))[0], expected, rtol=1e-6)


def test_a_branch_that_is_not_chosen_is_not_computed():
    writer = Writer()
    x = numbers(writer, dtype=TensorProto.INT64)
    (answer,) = writer.choose(x > 0, lambda: [12 / x], lambda: [x])  # whole numbers over 0 would end the process
    writer.output("y", answer, ["N"])
    assert run(writer, x=np.array([0]))[0].tolist() == [0]
    assert run(writer, x=np.array([5]))[0].tolist() == [2]


def test_a_loop_carries_stacks_and_ends_on_its_condition():
    writer = Writer()
    x = numbers(writer, dtype=TensorProto.INT64)

    def body(turn, carried):
        (value,) = carried
        return value * 2 < 100, [value * 2], [turn]

    doubled, turns = writer.repeat(None, x < 100, [x], body, ranks=[1])
    writer.output("y", doubled, ["N"])
    writer.output("turns", turns.reshaped(-1), ["M"])
    last, turns_run = run(writer, x=np.array([7]))
    assert (last.tolist(), turns_run.tolist()) == ([112], [0, 1, 2, 3])
    last, turns_run = run(writer, x=np.array([500]))
    assert (last.tolist(), turns_run.tolist()) == ([500], [])


def test_all_values_of_a_graph_can_be_looked_at_though_its_steps_have_several_shapes():
    writer = Writer()
    x = numbers(writer)
    (grown,) = writer.repeat(writer.whole(3), None, [x], lambda turn, held: (None, [writer.joined([*held, *held])], []))
    writer.output("y", grown, ["M"])
    exposed, names = expose(writer.model("growing"))
    found = dict(zip(names, open_graph(exposed, LEVELS[0]).run(names, {"x": np.ones(1, np.float32)}), strict=True))
    assert found["y"].shape == (8,)


def test_what_a_branch_gives_twice_or_from_outside_has_names_of_its_own():
    writer = Writer()
    x = numbers(writer)
    yes = writer.choose(x.over("ReduceMax", 0, keep=True) > 1, lambda: [x, x], lambda: [x + 1, x])
    writer.output("y", yes[0] + yes[1], ["N"])
    assert run(writer, x=np.array([3], np.float32))[0].tolist() == [6]


def small() -> onnx.ModelProto:
    writer = Writer()
    x = writer.input("x", TensorProto.FLOAT, ["N", 2])
    scaled = x @ writer.constant(np.array([[1, 2], [3, 4]], np.float32))
    writer.output("y", writer.op("Relu", scaled) + 0.5, ["N", 2])
    return writer.model("small")


def test_a_part_is_inserted_with_its_weights_where_it_is_used():
    model = small()
    inner = part(model, [only(model, "Relu").input[0]], ["y"])
    assert [node.op_type for node in inner.graph.node] == ["Relu", "Add", "Identity"]
    writer = Writer()
    x = writer.input("x", TensorProto.FLOAT, ["N", 2])
    name = inner.graph.input[0].name
    chosen = writer.choose(
        x.over("ReduceMax", 0, 1).reshaped(1) > 0, lambda: list(writer.insert(inner, {name: x}).values()), lambda: [x]
    )
    writer.output("z", chosen[0], ["N", 2])
    assert run(writer, x=np.array([[1, -1]], np.float32))[0].tolist() == [[1.5, 0.5]]
    assert run(writer, x=np.array([[-1, -1]], np.float32))[0].tolist() == [[-1, -1]]
    (branch,) = [node for node in writer.model("m").graph.node if node.op_type == "If"]
    (taken,) = [attribute.g for attribute in branch.attribute if attribute.name == "then_branch"]
    weights = {tensor.name for tensor in taken.initializer}
    assert any(set(node.input) & weights for node in taken.node if node.op_type == "Add")


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda model: part(model, [], ["y"]), "need x beside"),
        (lambda model: only(model, "Conv"), "0 nodes Conv"),
        (lambda model: constant_of(model, "x"), "x is not a number"),
    ],
    ids=["an input too few", "no such node", "no number"],
)
def test_what_cannot_be_cut_is_said(ask, told):
    with pytest.raises(GuardError, match=told):
        ask(small())
