"""Graphs that other tools wrote become bundles that answer as their tools do, or are refused by cause."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from exporters import parity
from exporters.doubled import doubled
from exporters.errors import ExportError, GuardError, ParityError
from exporters.existing import declared_by, export_graph, read_graph
from exporters.spec import Case, Input
from runtime.engine import Engine
from runtime.errors import InputError

GRAPHS = Path(__file__).parent / "graphs"

TOLERANCE = 1e-5


NODE_MODULES = (
    "adagrad", "ai_onnx_ml.tree_ensemble", "attention", "bernoulli", "conv", "convinteger", "convtranspose", "einsum",
    "gatherelements", "gemm", "gru", "instance_normalization", "layernormalization", "lstm", "maxpool", "scan",
    "sequenceinsert", "softmax", "stringnormalizer", "where",
)  # fmt: skip


@functools.cache
def node_tests() -> dict[str, Any]:
    """onnx's own tests of its operators: a graph with inputs and outputs each.

    A module computes its tests when it is imported. All of them take five seconds; these are the ones asked for below.
    """
    from onnx.backend.test.case import node

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in NODE_MODULES:
            importlib.import_module(f"{node.__name__}.{name}")
    return {case.name: case for case in node._NodeTestCases}


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3))).softmax(-1)


def scripted(module: nn.Module, x: torch.Tensor, axes: dict[int, str], opset: int, path: Path) -> Path:
    """What torch's older exporter writes, which traces through TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (x,), str(path), dynamo=False, opset_version=opset,
            input_names=["x"], output_names=["y"], dynamic_axes={"x": axes, "y": {0: axes[0]}},
        )  # fmt: skip
    return path


TORCH: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[int, str], int]] = {
    "convolutions, opset 9": (Convolutions, (2, 3, 8, 9), {0: "batch", 2: "height", 3: "width"}, 9),
    "convolutions, opset 17": (Convolutions, (2, 3, 8, 9), {0: "batch", 2: "height", 3: "width"}, 17),
    "perceptron, opset 13": (lambda: nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 2)), (2, 5), {0: "N"}, 13),
    "encoder, opset 16": (
        lambda: nn.Sequential(nn.Conv1d(5, 6, 3, padding=1), nn.ELU(), nn.Conv1d(6, 2, 1)),
        (2, 5, 9), {0: "N", 2: "T"}, 16,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
def test_torchs_older_exporter(name: str, tmp_path: Path) -> None:
    make, shape, axes, opset = TORCH[name]
    torch.manual_seed(0)
    module = make().eval()
    model, reference = export_graph(scripted(module, torch.randn(shape), axes, opset, tmp_path / "m.onnx"))
    assert reference == model.parity.reference == "onnx.reference float64"
    assert model.report.mutants, "a fault was measured"
    x = np.random.default_rng(1).standard_normal([s + 4 * (i in axes) for i, s in enumerate(shape)]).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(Engine(model.graph, threads=1).run({"x": x})["y"], expected, atol=TOLERANCE)


@pytest.mark.parametrize("path", sorted(GRAPHS.glob("*.onnx")), ids=lambda path: path.stem)
def test_scikit_learns_models(path: Path) -> None:
    """Trees and support vectors, written by skl2onnx and onnxmltools; a list of dicts becomes its array."""
    model, _ = export_graph(path)
    assert {tensor.dtype for tensor in model.outputs} <= {"int64", "float32"}
    x = np.random.default_rng(2).standard_normal((9, 4)).astype(np.float32)
    (name,) = [tensor.name for tensor in model.inputs]
    answers = Engine(model.graph, threads=1).run({name: x})
    assert all(np.isfinite(answers[tensor.name]).all() and len(answers[tensor.name]) == 9 for tensor in model.outputs)
    if "probabilities" in answers:
        np.testing.assert_allclose(answers["probabilities"].sum(1), 1, atol=1e-5)


NODES = (
    "test_softmax_axis_1", "test_conv_with_strides_padding", "test_gemm_all_attributes", "test_lstm_with_initial_bias",
    "test_gru_seq_length", "test_layer_normalization_2d_axis1", "test_gather_elements_0", "test_einsum_batch_matmul",
    "test_instancenorm_example", "test_scan9_sum", "test_where_example", "test_attention_4d", "test_maxpool_2d_ceil",
    "test_convtranspose", "test_convinteger_without_padding", "test_ai_onnx_ml_tree_ensemble_single_tree",
)  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_onnxs_own_tests_of_nodes(name: str, tmp_path: Path) -> None:
    case = node_tests()[name]
    onnx.save(case.model, tmp_path / "m.onnx")
    model, _ = export_graph(tmp_path / "m.onnx")
    inputs, outputs = case.data_sets[0]
    answers = Engine(model.graph, threads=1).run(
        {tensor.name: np.asarray(array) for tensor, array in zip(model.inputs, inputs, strict=True)}
    )
    for tensor, expected in zip(model.outputs, outputs, strict=True):
        np.testing.assert_allclose(answers[tensor.name], expected, rtol=1e-4, atol=TOLERANCE)


REFUSED = {
    "test_bernoulli": "is random: Bernoulli",
    "test_adagrad": "operators of another runtime's own: ai.onnx.preview.training::Adagrad",
    "test_sequence_insert_at_back": "sequence is of sequence_type; a bundle takes and gives arrays",
    "test_strnormalizer_export_monday_casesensintive_lower": "x is of type object",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_function_of_arrays_is_refused(name: str, tmp_path: Path) -> None:
    onnx.save(node_tests()[name].model, tmp_path / "m.onnx")
    with pytest.raises(GuardError, match=REFUSED[name]):
        export_graph(tmp_path / "m.onnx")


def doubling(operator: str = "Mul", domain: str = "", opset: int = 17, **options: Any) -> onnx.ModelProto:
    """y = x · w, w of four numbers."""
    weight = numpy_helper.from_array(np.float32([[1.1, 2.2, 3.3, 4.4], [5.5, 6.6, 7.7, 8.8]]), "w")
    node = helper.make_node(operator, ["x", "w"], ["y"], domain=domain)
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2, 4]) for name in "xy"]
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:], [weight])
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_external_data_come_into_the_bundle(tmp_path: Path) -> None:
    onnx.save(doubling(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    model, _ = export_graph(tmp_path / "m.onnx")
    x = np.ones((1, 2, 4), np.float32)
    np.testing.assert_allclose(Engine(model.graph, threads=1).run({"x": x})["y"][0, 0], [1.1, 2.2, 3.3, 4.4], rtol=1e-6)
    (tmp_path / "m.data").unlink()
    with pytest.raises(InputError, match="its external data is missing"):
        read_graph(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (doubling("FusedMul", "com.microsoft"), GuardError, "another runtime's own: com.microsoft::FusedMul"),
        (doubling(opset=8), GuardError, "is of opset 8, expected 9 to"),
    ],
    ids=["domain", "opset"],
)
def test_graphs_that_do_not_run_everywhere_are_refused(
    model: onnx.ModelProto, error: type[Exception], words: str, tmp_path: Path
) -> None:
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(error, match=words):
        export_graph(tmp_path / "m.onnx")


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x08"], ids=["empty", "text", "no graph"])
def test_what_is_no_graph_is_told_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"is no ONNX file|holds no graph"):
        read_graph(tmp_path / "m.onnx")


def test_given_answers_are_the_reference(tmp_path: Path) -> None:
    onnx.save(doubling(), tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    weight = np.float32([[1.1, 2.2, 3.3, 4.4], [5.5, 6.6, 7.7, 8.8]])
    cases = [Case(str(n), {"x": rng.standard_normal((n, 2, 4)).astype(np.float32)}) for n in range(1, 9)]
    answers = {case.name: {"y": case.inputs["x"] * weight} for case in cases}
    model, reference = export_graph(tmp_path / "m.onnx", cases=cases, answers=answers)
    assert reference == "given answers"
    assert model.report.cases == 8
    answers["3"]["y"][0, 0, 0] += 0.01
    with pytest.raises(ParityError, match="case '3'"):
        export_graph(tmp_path / "m.onnx", cases=cases, answers=answers)


def test_a_runtime_that_answers_otherwise_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = parity.open_graph

    def wrong(graph: bytes, level: str) -> Any:
        model = onnx.load_from_string(graph)
        model.graph.node[0].op_type = "Sub"
        return right(model.SerializeToString(), level)

    onnx.save(doubling("Add"), tmp_path / "m.onnx")
    monkeypatch.setattr(parity, "open_graph", wrong)
    with pytest.raises(ExportError):
        export_graph(tmp_path / "m.onnx")


def test_the_reference_computes_in_float64() -> None:
    model = doubling()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value_float=0.1))
    model.graph.node.insert(1, helper.make_node("Cast", ["c"], ["d"], to=TensorProto.FLOAT))
    wide = doubled(model)
    types = {value.type.tensor_type.elem_type for value in (*wide.graph.input, *wide.graph.output)}
    assert types == {TensorProto.DOUBLE}
    assert {tensor.data_type for tensor in wide.graph.initializer} == {TensorProto.DOUBLE}
    assert wide.graph.node[0].attribute[0].t.data_type == TensorProto.DOUBLE
    assert wide.graph.node[1].attribute[0].i == TensorProto.DOUBLE
    assert model.graph.node[1].attribute[0].i == TensorProto.FLOAT, "the graph itself is not changed"


def test_axes_are_named_and_ranges_declared(tmp_path: Path) -> None:
    from runtime.manifest import DimensionSpec

    onnx.save(doubling(), tmp_path / "m.onnx")
    inputs, _ = declared_by(read_graph(tmp_path / "m.onnx"))
    assert inputs == (Input("x", "float32", ("rows", 2, 4)),)
    better = [Input("x", "float32", ("rows", 2, 4), limits=(0.0, 1.0))]
    model, _ = export_graph(tmp_path / "m.onnx", inputs=better, dimensions={"rows": DimensionSpec(1, 16)})
    assert model.dimensions["rows"].max == 16
    assert max(len(case.inputs["x"]) for case in model.golden) <= 16
    with pytest.raises(InputError, match="no input z; it has x"):
        export_graph(tmp_path / "m.onnx", inputs=[Input("z", "float32", (1,))])
