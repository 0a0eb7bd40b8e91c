"""Each way in which an export goes wrong in silence, and the guard that speaks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from exporters.convert import convert, rename_axes
from exporters.errors import ExportError, GuardError, ParityError
from exporters.export import export, export_model
from exporters.guards import check_graph
from exporters.spec import Case, Input, Output, Signature
from tests.exporters.networks import SCORES, VECTOR, Perceptron, perceptron

SEQUENCE = Input("x", "float32", ("N", "T", 4))
TIME = {"N": [1, 2, 7], "T": [2, 5, 9, 33]}


def refused(
    module: nn.Module,
    match: str,
    *,
    inputs: Sequence[Input] = (VECTOR,),
    outputs: Sequence[Output] = (SCORES,),
    error: type[ExportError] = GuardError,
    **options: Any,
) -> None:
    with pytest.raises(error, match=match):
        export_model(module, inputs=inputs, outputs=outputs, **options)


def test_training_mode_is_refused_by_name() -> None:
    module = perceptron()
    module.second.train()
    refused(module, "in training mode: second")


def test_weights_that_are_no_numbers_are_refused() -> None:
    module = perceptron()
    module.first.bias.data[0] = float("nan")
    refused(module, "first.bias holds a number that is not finite")


def test_shared_memory_among_inputs_is_refused() -> None:
    class Cell(nn.Module):
        def forward(self, h: Tensor, c: Tensor) -> Tensor:
            return h * 2 - c

    zeros = np.zeros((2, 3), np.float32)
    case = Case("zeros", {"h": zeros, "c": zeros[:]})
    inputs = [Input("h", "float32", ("N", 3)), Input("c", "float32", ("N", 3))]
    refused(Cell().eval(), "h and c share memory", inputs=inputs, cases=[case])


def test_an_unused_input_is_refused() -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return x * 2

    inputs = [Input("x", "float32", ("N", 3)), Input("mask", "float32", ("N", 3))]
    refused(Half().eval(), "no node reads mask", inputs=inputs)


def test_an_input_that_is_used_for_its_shape_only_is_refused() -> None:
    """A state that begins anew at every call: ``zeros_like(h0)`` where ``h0`` was meant."""

    class Forgetful(nn.Module):
        def forward(self, x: Tensor, h0: Tensor) -> Tensor:
            return torch.zeros_like(h0) + x.mean()

    inputs = [Input("x", "float32", ("N", 3)), Input("h0", "float32", ("B", 5))]
    outputs = [Output("h", "float32", ("B", 5))]
    refused(Forgetful().eval(), "only the shape of h0 is read", inputs=inputs, outputs=outputs)


def test_an_axis_that_forward_freezes_is_named() -> None:
    class Frozen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / math.gcd(int(x.shape[1]), 12)

    outputs = [Output("y", "float32", ("N", "T", 4))]
    refused(Frozen().eval(), "forward freezes T of x to 5", inputs=[SEQUENCE], outputs=outputs, sizes=TIME)


def test_a_loop_over_time_with_numbers_of_no_formula_is_refused() -> None:
    class Unrolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.zeros_like(x[:, 0])
            for t in range(x.shape[1]):
                h = torch.tanh(self.cell(h) + x[:, t] * (7919 * t % 13))
            return h

    outputs = [Output("h", "float32", ("N", 4))]
    refused(Unrolled().eval(), "forward freezes T of x to 5", inputs=[SEQUENCE], outputs=outputs, sizes=TIME)


def test_a_baked_constant_fails_the_sweep() -> None:
    """What the example's values were at export time stays in the graph for ever."""

    class Baked(Perceptron):
        def forward(self, x: Tensor) -> Tensor:
            offset = 0.5 if type(x) is not Tensor else 0.0
            return super().forward(x) + offset

    refused(Baked().eval(), "the fault arose while forward was traced", error=ParityError)


def test_a_size_that_is_only_swept_at_one_value_is_refused() -> None:
    cases = [Case(f"case {i}", {"x": np.zeros((2, 6), np.float32)}) for i in range(9)]
    refused(perceptron(), "dimension N is swept over 2 only", cases=cases)


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ({"y": np.zeros((2, 6), np.float32)}, r"has the inputs \['y'\], declared are \['x'\]"),
        ({"x": [[0.0] * 6]}, "x is of type list, expected a numpy array"),
        ({"x": np.zeros((2, 6))}, "x is float64, declared is float32"),
        ({"x": np.zeros((2, 5), np.float32)}, r"x has shape \[2, 5\], declared is \['N', 6\]"),
    ],
    ids=["name", "type", "dtype", "shape"],
)
def test_cases_must_fit_the_declaration(inputs: Mapping[str, Any], match: str) -> None:
    refused(perceptron(), match, cases=[Case("odd", inputs)])


@pytest.mark.parametrize(
    ("outputs", "match"),
    [
        ([Output("y", "float32", ("N", 4))], r"y has shape \[\d+, 3\], declared is \['N', 4\]"),
        ([Output("y", "float32", ("N",))], "y has shape"),
        ([Output("y", "int64", ("N", 3))], "output y is float32 in torch, declared is int64"),
        ([SCORES, Output("z", "float32", ("N",))], "forward returns 1 values"),
    ],
    ids=["size", "rank", "dtype", "count"],
)
def test_outputs_must_be_as_declared(outputs: Sequence[Output], match: str) -> None:
    refused(perceptron(), match, outputs=outputs)


def test_a_float_type_that_forward_names_is_no_obstacle() -> None:
    class Hard(Perceptron):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.to(torch.float32))

    class Soft(Perceptron):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).float()

    for module in (Hard(), Soft(), Perceptron().double()):
        torch.manual_seed(0)
        model = export_model(module.eval(), inputs=[VECTOR], outputs=[SCORES], untrained=True)
        noise = model.parity.outputs[SCORES.name].noise
        assert noise is not None
        assert 0 < noise < 1e-6  # measured against float64, which no cast has rounded


def test_an_opset_that_cannot_be_had_is_refused() -> None:
    """The antialiased Resize exists from opset 18 on; torch keeps 18 and only logs it."""
    from tests.exporters.networks import IMAGE, OUTPUTS, SmallClassifier, picture_cases

    with pytest.raises(GuardError, match=r"asked for opset 17, the graph has .*18"):
        export_model(SmallClassifier().eval(), inputs=[IMAGE], outputs=OUTPUTS, cases=picture_cases(), opset=17)


def test_axes_of_one_size_need_one_name() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x.mT

    x = Input("x", "float32", ("H", "W"))
    with pytest.raises(GuardError):  # torch itself, or the sweep, or the axes: never silence
        export_model(Square().eval(), inputs=[x], outputs=[Output("y", "float32", ("H", "W"))])


def converted() -> onnx.ModelProto:
    return convert(perceptron(), {"x": np.zeros((2, 6), np.float32)}, Signature([VECTOR], [SCORES]), 18).model


def test_the_graph_must_be_what_was_declared() -> None:
    model = converted()
    rename_axes(model, Signature([VECTOR], [SCORES]))
    check_graph(model, Signature([VECTOR], [SCORES]), 18)
    with pytest.raises(GuardError, match="asked for opset 19"):
        check_graph(model, Signature([VECTOR], [SCORES]), 19)
    with pytest.raises(GuardError, match="declared are"):
        check_graph(model, Signature([VECTOR], [Output("z", "float32", ("N", 3))]), 18)


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_frozen_axis_of_the_graph_is_refused(side: str) -> None:
    """torch's report says ok and the axis has a number: the second LSTM of a process does that."""
    model = converted()
    (value,) = getattr(model.graph, side)
    value.type.tensor_type.shape.dim[0].dim_value = 7
    with pytest.raises(GuardError, match="frozen to 7"):
        rename_axes(model, Signature([VECTOR], [SCORES]))


def test_operators_of_one_runtime_only_are_refused() -> None:
    model = converted()
    rename_axes(model, Signature([VECTOR], [SCORES]))
    model.graph.node[0].domain = "com.example"
    with pytest.raises(GuardError, match=r"com\.example::"):
        check_graph(model, Signature([VECTOR], [SCORES]), 18)


def test_nothing_is_left_behind(tmp_path: Any) -> None:
    with pytest.raises(ExportError):
        export(perceptron().train(), tmp_path / "b.edge", name="b", task="t", inputs=[VECTOR], outputs=[SCORES])
    assert list(tmp_path.iterdir()) == []


def test_an_unsupported_operator_is_named() -> None:
    class Strange(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.eigvalsh(x @ x.mT)

    x = Input("x", "float32", ("N", 3, 3))
    refused(Strange().eval(), "no translation", inputs=[x], outputs=[Output("y", "float32", ("N", 3))])
