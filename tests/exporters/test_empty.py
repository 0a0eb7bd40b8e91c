"""Which sizes may be 0: the export decides it, and what it writes is what the engine then does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from exporters import empty
from exporters.empty import dimension_ranges
from exporters.errors import GuardError
from exporters.export import export
from exporters.spec import Case, Input, Output, Signature
from runtime.errors import InputError
from runtime.manifest import DimensionSpec, StateSpec
from runtime.pipelines import load
from runtime.verify import verify
from tests.runtime.conftest import graph_bytes

SEQUENCE = Input("x", "float32", ("B", "T", 3))
STATE = Input("h", "float32", (1, "B", 4))
STEPS = Output("y", "float32", ("B", "T", 4))
LAST = Output("y", "float32", ("B", 4))
LEFT = Output("hn", "float32", (1, "B", 4))


class Pooled(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        answers = self.linear(x)
        return answers.sum(dim=1) if self.how == "sum" else answers.amax(dim=1)


class LastStep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.recurrent(x)[1][0][0]


CARRIED = (StateSpec("h", "hn", (1, "B", 4), "float32"),)
MODELS = {
    "sum": (Pooled("sum"), [SEQUENCE], [LAST], (), {"B": 0, "T": 0}),
    "max": (Pooled("max"), [SEQUENCE], [LAST], (), {"B": 0, "T": 1}),
    "last step": (LastStep(), [SEQUENCE], [LAST], (), {"B": 0, "T": 1}),
    "carried": (nn.GRU(3, 4, batch_first=True), [SEQUENCE, STATE], [STEPS, LEFT], CARRIED, {"B": 0, "T": 0}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_says_which_sizes_may_be_0_and_answers_to_them(name: str, tmp_path: Path) -> None:
    module, inputs, outputs, state, least = MODELS[name]
    about = {"name": "b", "task": "any", "untrained": True}
    bundle = export(module.eval(), tmp_path / "b.edge", inputs=inputs, outputs=outputs, state=state, **about)
    assert {key: spec.min for key, spec in bundle.model("b").dimensions.items()} == least
    assert verify(bundle, threads=1).ok
    with load(bundle, threads=1) as pipeline:
        nothing = np.ones((2, 0, 3), np.float32)
        if least["T"]:
            with pytest.raises(InputError, match="T is 0, the bundle takes 1 or more"):
                pipeline.predict({"x": nothing})
        else:
            found = pipeline.predict({"x": nothing})["outputs"]["y"]
            with torch.no_grad():
                expected = module(torch.from_numpy(nothing)).tolist() if len(inputs) == 1 else [[], []]
            assert found == expected


def ranges_of_exp(
    answer: float, operators: tuple[str, ...] = ("ReduceSum", "Exp"), **declared: DimensionSpec
) -> dict[str, DimensionSpec]:
    """Of a graph that gives 1 for no steps, exp of a sum, where the reference gives another number."""
    graph = graph_bytes(
        [helper.make_node("ReduceSum", ["x", "axes"], ["sum"], keepdims=0), helper.make_node("Exp", ["sum"], ["y"])],
        [("x", TensorProto.FLOAT, ["B", "T"])],
        [("y", TensorProto.FLOAT, ["B"])],
        [("axes", np.array([1], np.int64))],
    )
    spec = Signature([Input("x", "float32", ("B", "T"))], [Output("y", "float32", ("B",))]).spec(declared, ())
    return dimension_ranges(
        graph,
        spec,
        Case("two", {"x": np.ones((2, 2), np.float32)}),
        lambda case: {"y": np.full(len(case.inputs["x"]), answer)},
        {"y": 1e-6},
        operators,
    )


def test_an_answer_that_torch_does_not_share_is_a_no() -> None:
    assert ranges_of_exp(1.0) == {"B": DimensionSpec(0), "T": DimensionSpec(0)}
    assert ranges_of_exp(0.0) == {"B": DimensionSpec(0), "T": DimensionSpec(1)}
    # What a recurrent operator does with nothing depends on the device's ONNX Runtime, whatever this one does.
    assert ranges_of_exp(1.0, ("LSTM", "Exp")) == {"B": DimensionSpec(0), "T": DimensionSpec(1)}


def test_declared_ranges_stand_and_an_impossible_0_is_refused() -> None:
    declared = {"B": DimensionSpec(2, 8, 2), "T": DimensionSpec(0, 512)}
    assert ranges_of_exp(1.0, **declared) == declared
    with pytest.raises(GuardError, match="T is declared to be 0 at times, to which the graph has no right answer"):
        ranges_of_exp(0.0, **declared)
    with pytest.raises(GuardError, match="sizes are declared of K, which no input has"):
        ranges_of_exp(1.0, K=DimensionSpec())


def test_an_input_takes_infinities_where_that_is_declared_or_a_case_holds_one() -> None:
    def takes(hidden: float, finite: bool) -> bool:
        case = Case("masked", {"mask": np.array([[0, hidden]], np.float32), "token": np.array([3])})
        inputs = [Input("mask", "float32", ("B", "T"), finite=finite), Input("token", "int64", ("B",))]
        mask, token = Signature(inputs, []).spec({}, [case]).inputs
        assert token.finite
        return not mask.finite

    assert not takes(-3.0, finite=True)
    assert takes(-np.inf, finite=True)
    assert takes(-3.0, finite=False)


def test_a_trial_sees_memory_that_nobody_wrote() -> None:
    """An LSTM's state after no steps: ONNX Runtime gives what lies there. This is why no such call reaches it."""
    rng = np.random.default_rng(0)
    graph = graph_bytes(
        [helper.make_node("LSTM", ["x", "w", "r"], ["", "hn", "cn"], hidden_size=4)],
        [("x", TensorProto.FLOAT, ["T", "B", 3])],
        [("hn", TensorProto.FLOAT, [1, "B", 4]), ("cn", TensorProto.FLOAT, [1, "B", 4])],
        [("w", rng.normal(size=(1, 16, 3)).astype(np.float32)), ("r", rng.normal(size=(1, 16, 4)).astype(np.float32))],
    )
    case = Case("no steps", {"x": np.zeros((0, 2, 3), np.float32)})
    answers = empty._trials(graph, case)
    if all(answer is not None and not any(array.any() for array in answer.values()) for answer in answers):
        pytest.skip("this ONNX Runtime or C library leaves no memory unwritten")
    assert not all(answer is not None and np.allclose(answer["cn"], 0) for answer in answers)


def test_a_trial_that_aborts_is_a_no() -> None:
    rng = np.random.default_rng(0)
    graph = graph_bytes(
        [helper.make_node("GRU", ["x", "w", "r"], ["", "hn"], hidden_size=4)],
        [("x", TensorProto.FLOAT, ["T", "B", 3])],
        [("hn", TensorProto.FLOAT, [1, "B", 4])],
        [("w", rng.normal(size=(1, 12, 3)).astype(np.float32)), ("r", rng.normal(size=(1, 12, 4)).astype(np.float32))],
    )
    assert None in empty._trials(graph, Case("no rows", {"x": np.zeros((2, 0, 3), np.float32)}))
