"""Divisions by a constant become multiplications, where nothing can rest on an exact quotient."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from exporters.divisions import multiply_for_divisions
from exporters.export import export_model
from exporters.graphs import operators
from exporters.spec import Input, Output
from runtime.engine import Engine


def graph_of(divisor: np.ndarray, *after: onnx.NodeProto, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """y = after(x / divisor)."""
    graph = helper.make_graph(
        [helper.make_node("Div", ["x", "c"], ["q"]), *(after or (helper.make_node("Identity", ["q"], ["y"]),))],
        "division",
        [helper.make_tensor_value_info("x", kind, ["N"])],
        [helper.make_tensor_value_info("y", kind, ["N"])],
        [numpy_helper.from_array(divisor, "c")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return Engine(model.SerializeToString(), threads=1).run({"x": x})["y"]


def one(value: float) -> np.ndarray:
    return np.array(value, np.float32)


finite = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


@given(st.lists(finite, min_size=1, max_size=8), st.integers(-100, 100), st.booleans())
def test_by_a_power_of_two_the_answers_are_the_same_bit_for_bit(numbers, exponent, negative):
    model = graph_of(one((-1.0 if negative else 1.0) * 2.0**exponent))
    x = np.array(numbers, np.float32)
    with np.errstate(over="ignore", under="ignore"):
        expected = x / numpy_helper.to_array(model.graph.initializer[0])
    assert multiply_for_divisions(model) == 1
    assert dict(operators(model)) == {"Mul": 1, "Identity": 1}
    normal = np.abs(expected) >= np.finfo(np.float32).tiny  # a session may flush smaller ones
    np.testing.assert_array_equal(run(model, x)[normal], expected[normal])


def test_by_another_number_it_is_off_by_a_unit_and_a_half_in_the_last_place():
    model = graph_of(one(127.5))
    x = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    assert multiply_for_divisions(model) == 1
    true = x.astype(np.float64) / 127.5
    assert (np.abs(run(model, x) - true) <= 1.5 * np.spacing(np.abs(true).astype(np.float32))).all()


ROUNDED = [
    [helper.make_node("Floor", ["q"], ["y"])],
    [helper.make_node("Neg", ["q"], ["n"]), helper.make_node("Ceil", ["n"], ["y"])],
    [helper.make_node("Cast", ["q"], ["i"], to=TensorProto.INT64), helper.make_node("Cast", ["i"], ["y"], to=1)],
]


@pytest.mark.parametrize("after", ROUNDED, ids=["floor", "ceil of minus", "whole numbers"])
def test_what_is_rounded_stays_a_division(after):
    model = graph_of(one(41.0), *after)
    before = run(model, np.arange(0, 1000, dtype=np.float32))
    assert multiply_for_divisions(model) == 0
    np.testing.assert_array_equal(run(model, np.arange(0, 1000, dtype=np.float32)), before)


def test_the_reason_why_it_stays():
    assert np.float32(41) * np.float32(1 / 41) < 1


def test_what_is_rounded_is_multiplied_by_an_exact_inverse():
    model = graph_of(one(8.0), helper.make_node("Floor", ["q"], ["y"]))
    assert multiply_for_divisions(model) == 1


@pytest.mark.parametrize("divisor", [0.0, np.inf, 1e-40, 2.0**127], ids=["0", "infinity", "denormal", "to a denormal"])
def test_without_an_inverse_it_stays(divisor):
    assert multiply_for_divisions(graph_of(one(divisor))) == 0


def test_whole_numbers_are_divided():
    assert multiply_for_divisions(graph_of(np.array(2, np.int64), kind=TensorProto.INT64)) == 0


def test_a_divisor_that_is_read_elsewhere_stays_and_another_goes():
    model = graph_of(one(3.0), helper.make_node("Add", ["q", "c"], ["y"]))
    assert multiply_for_divisions(model) == 1
    assert {tensor.name for tensor in model.graph.initializer} == {"c", "c.reciprocal"}
    model = graph_of(one(3.0))
    multiply_for_divisions(model)
    assert {tensor.name for tensor in model.graph.initializer} == {"c.reciprocal"}


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x / 255) / torch.floor(x.amax() / 3 + 2)


def test_an_export_has_none_but_those_that_are_rounded_or_computed():
    torch.manual_seed(0)
    inputs, outputs = [Input("x", "float32", ("N", 3))], [Output("y", "float32", ("N", 2))]
    exported = export_model(Scaled().eval(), inputs=inputs, outputs=outputs, untrained=True)
    found = operators(onnx.load_from_string(exported.graph))
    assert (found["Div"], found["Mul"]) == (2, 1)
