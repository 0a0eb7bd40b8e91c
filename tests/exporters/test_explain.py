"""One wrong node among many is named first, in the body of a loop too, with the user's line and a graph of its own."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from exporters import convert, export
from exporters import explain as explaining
from exporters.assemble import ExportedVariant, assemble
from exporters.errors import ParityError
from exporters.explain import explain
from exporters.export import ExportedModel, export_model
from exporters.graphs import all_nodes
from exporters.spec import Input, Output
from runtime.bundle import Bundle
from runtime.verify import verify

INPUTS = [Input("x", "float32", ("N", "T", 6))]
OUTPUTS = [Output("y", "float32", ("N", "T", 4)), Output("last", "float32", ("N", 4))]


class Mixed(nn.Module):
    """A layer, a loop of its own, a recurrent layer, a soft-max."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.into, self.again = nn.Linear(6, 6), nn.Linear(6, 4), nn.Linear(4, 4)
        self.norm, self.rnn, self.head = nn.LayerNorm(4), nn.GRU(4, 4, batch_first=True), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.tanh(self.before(x)) * 0.7
        h = x.new_zeros(x.shape[0], 4)
        seen = []
        for t in range(x.shape[1]):
            gate = torch.sigmoid(self.again(h))
            h = gate * h + torch.sin(self.into(x[:, t]) - h)
            seen.append(h)
        y, last = self.rnn(self.norm(torch.stack(seen, 1)))
        return self.head(y).softmax(-1), last[0] + 0.1


@pytest.fixture(scope="module")
def exported() -> ExportedModel:
    torch.manual_seed(0)
    return export_model(Mixed().eval(), inputs=INPUTS, outputs=OUTPUTS)


def body(model: onnx.ModelProto, operator: str, at: int = 0) -> onnx.NodeProto:
    (scan,) = [node for node in model.graph.node if node.op_type == "Scan"]
    return [node for node in scan.attribute[0].g.node if node.op_type == operator][at]


def outer(model: onnx.ModelProto, operator: str, at: int = 0) -> onnx.NodeProto:
    return [node for node in model.graph.node if node.op_type == operator][at]


def becomes(operator: str) -> Callable[[onnx.ModelProto, onnx.NodeProto], None]:
    def change(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        node.op_type = operator

    return change


def turned(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    node.input[:] = list(node.input)[::-1]


def scaled(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """The weight a thousandth larger, for this node alone."""
    weights = {weight.name: weight for weight in model.graph.initializer}
    at, name = next((at, name) for at, name in enumerate(node.input) if name in weights)
    other = numpy_helper.to_array(weights[name]) * np.float32(1.001)
    model.graph.initializer.append(numpy_helper.from_array(other, "another weight"))
    node.input[at] = "another weight"


def along(axis: int) -> Callable[[onnx.ModelProto, onnx.NodeProto], None]:
    def change(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        for attribute in node.attribute:
            if attribute.name == "axis":
                attribute.i = axis

    return change


FAULTS: dict[str, tuple[Callable[..., onnx.NodeProto], str, int, Callable[[onnx.ModelProto, onnx.NodeProto], None]]] = {
    "weight before": (outer, "MatMul", 0, scaled),
    "another function before": (outer, "Tanh", 0, becomes("Softsign")),
    "another factor": (outer, "Mul", 0, scaled),
    "normalisation": (outer, "LayerNormalization", 0, scaled),
    "recurrent layer": (outer, "GRU", 0, scaled),
    "soft-max along steps": (outer, "Softmax", 0, along(1)),
    "gate in the body": (body, "Sigmoid", 0, becomes("HardSigmoid")),
    "function in the body": (body, "Sin", 0, becomes("Tanh")),
    "sum in the body": (body, "Add", -1, becomes("Sub")),
    "product in the body": (body, "Mul", 0, becomes("Max")),
    "order in the body": (body, "Sub", 0, turned),
    "weight in the body": (body, "Gemm", 0, scaled),
    "bias after": (outer, "Add", -1, scaled),
}


def broken(exported: ExportedModel, name: str, path: Path) -> tuple[Bundle, str]:
    """A bundle with one wrong node, and its name."""
    where, operator, at, change = FAULTS[name]
    model = onnx.load_from_string(exported.graph)
    node = where(model, operator, at)
    change(model, node)
    wrong = dataclasses.replace(exported, variants={"fp32": ExportedVariant(model.SerializeToString())})
    return assemble(path / "b.edge", name="b", task="t", models={"b": wrong}), node.name


@pytest.mark.parametrize("name", FAULTS)
def test_the_wrong_node_is_named_first(exported: ExportedModel, tmp_path: Path, name: str) -> None:
    bundle, node = broken(exported, name, tmp_path)
    assert not verify(bundle)
    difference = explain(bundle, "b")
    assert difference is not None
    assert difference.node == node, str(difference)


@pytest.mark.parametrize("name", ["weight before", "function in the body", "recurrent layer"])
def test_the_node_is_written_as_a_graph_of_its_own(exported: ExportedModel, tmp_path: Path, name: str) -> None:
    bundle, node = broken(exported, name, tmp_path)
    assert explain(bundle, "b", reproduce=tmp_path / "node") is not None
    answer, expected = alone(tmp_path / "node", node)
    np.testing.assert_allclose(answer, expected, atol=1e-6)  # the node does what it says; it says something wrong


def test_a_failed_gate_writes_what_torch_gives(tmp_path: Path) -> None:
    """The wrong node in a graph of its own answers otherwise than torch."""

    def wrong(*args: object) -> convert.Converted:
        converted = convert.convert(*args)
        outer(converted.model, "Tanh").op_type = "Softsign"
        return converted

    with (
        mock.patch.object(export, "convert", wrong),
        pytest.raises(ParityError, match=r"first node that differs: Tanh .*test_explain.py:\d+: return torch.tanh"),
    ):
        export_plain(reproduce=tmp_path / "node")
    answer, expected = alone(tmp_path / "node", "Tanh")
    assert np.abs(answer - expected).max() > 0.01


def test_values_are_compared_in_parts_of_a_size(tmp_path: Path) -> None:
    """However many values come before the wrong one, few are held at a time."""
    assert list(explaining._parts({"a": 1, "b": 2, "c": 3})) == [["a", "b", "c"]]
    most = explaining.COMPARED_AT_ONCE
    assert list(explaining._parts({"a": most - 1, "b": 1, "c": most + 1, "d": 1})) == [["a", "b"], ["c"], ["d"]]
    with mock.patch.object(explaining, "COMPARED_AT_ONCE", 1):
        test_a_failed_gate_writes_what_torch_gives(tmp_path)


def test_the_users_line_is_told(tmp_path: Path) -> None:
    exported = export_plain()
    model = onnx.load_from_string(exported.graph)
    turned(model, outer(model, "Sub"))
    wrong = dataclasses.replace(exported, variants={"fp32": ExportedVariant(model.SerializeToString())})
    difference = explain(assemble(tmp_path / "b.edge", name="b", task="t", models={"b": wrong}), "b")
    assert difference is not None
    assert re.match(r"test_explain.py:\d+: z = self.a\(x\) - x.mean", difference.place)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        z = self.a(x) - x.mean(-1, keepdim=True)
        return torch.tanh(z)


def export_plain(**options: object) -> ExportedModel:
    torch.manual_seed(0)
    return export_model(Plain().eval(), inputs=INPUTS, outputs=OUTPUTS[:1], **options)


def alone(folder: Path, node: str) -> tuple[np.ndarray, np.ndarray]:
    """What the written node answers, and what it should."""
    model = onnx.load(folder / "node.onnx")
    onnx.checker.check_model(model)
    assert [part.name for part in model.graph.node] == [node]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with np.load(folder / "inputs.npz") as given, np.load(folder / "expected.npz") as expected:
        (name,) = expected.files
        return session.run([name], dict(given))[0], expected[name]


def test_the_trace_knows_the_loops_body(exported: ExportedModel) -> None:
    with np.load(io.BytesIO(exported.trace)) as trace:
        stepped = [value for value in trace["values"] if value.endswith(", step 2")]
    (scan,) = [node for node in all_nodes(onnx.load_from_string(exported.graph)) if node.op_type == "Scan"]
    assert len(stepped) == sum(len(node.output) for node in scan.attribute[0].g.node)
