"""The gate can fail: each mutant of a graph is told by `verify`, and `explain` names where it was made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from exporters.assemble import ExportedVariant
from exporters.explain import Difference, explain, fingerprint
from exporters.export import ExportedModel, assemble, export_model
from exporters.expose import expose
from exporters.spec import Input, Output
from runtime.bundle import Bundle
from runtime.errors import BundleError
from runtime.verify import verify


def reweigh(model: onnx.ModelProto, node: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Changes the weight of a node."""
    (found,) = [n for n in model.graph.node if n.name == node]
    (weight,) = [i for i in model.graph.initializer if i.name == found.input[1]]
    weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight)), weight.name))


def swap_channels(model: onnx.ModelProto) -> None:
    """Red and blue: what BGR pixels do."""
    reweigh(model, "norm/Conv", lambda weight: np.ascontiguousarray(weight[:, ::-1]))


def resize_asymmetric(model: onnx.ModelProto) -> None:
    (resize,) = [node for node in model.graph.node if node.op_type == "Resize"]
    (attribute,) = [a for a in resize.attribute if a.name == "coordinate_transformation_mode"]
    attribute.s = b"asymmetric"


def resize_without_antialias(model: onnx.ModelProto) -> None:
    (resize,) = [node for node in model.graph.node if node.op_type == "Resize"]
    for attribute in resize.attribute:
        if attribute.name in ("antialias", "exclude_outside"):
            attribute.i = 0


def scale_off(model: onnx.ModelProto) -> None:
    """127 instead of 127.5."""
    inverse = float(np.float32(1 / 127.5))
    (scale,) = [i for i in model.graph.initializer if numpy_helper.to_array(i).tolist() == inverse]
    scale.CopyFrom(numpy_helper.from_array(np.array(1 / 127, np.float32), scale.name))


def to_float16(node: str) -> Callable[[onnx.ModelProto], None]:
    def mutate(model: onnx.ModelProto) -> None:
        reweigh(model, node, lambda weight: weight.astype(np.float16).astype(np.float32))

    return mutate


def swap_classes(model: onnx.ModelProto) -> None:
    reweigh(model, "head/Gemm", lambda weight: np.ascontiguousarray(weight[::-1]))


MUTANTS = {
    "channels swapped": (swap_channels, "norm/Conv"),
    "resize asymmetric": (resize_asymmetric, "Resize"),
    "resize without antialias": (resize_without_antialias, "Resize"),
    "another scale": (scale_off, "Mul"),
    "first convolution to float16": (to_float16("norm/Conv"), "norm/Conv"),
    "depthwise convolution to float16": (to_float16("depthwise/Conv"), "depthwise/Conv"),
    "pointwise convolution to float16": (to_float16("pointwise/Conv"), "pointwise/Conv"),
    "head to float16": (to_float16("head/Gemm"), "head/Gemm"),
    "classes in reverse": (swap_classes, "head/Gemm"),
}


def with_graph(exported: ExportedModel, graph: bytes, path: Path) -> Bundle:
    """A bundle whose graph is another than the one its answers were recorded with."""
    model = dataclasses.replace(exported, variants={"fp32": ExportedVariant(graph)})
    return assemble(path, name="b", task="t", models={"small": model})


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_caught_and_located(exported: ExportedModel, tmp_path: Path, name: str) -> None:
    mutate, node = MUTANTS[name]
    model = onnx.load_from_string(exported.graph)
    mutate(model)
    bundle = with_graph(exported, model.SerializeToString(), tmp_path / "b.edge")
    report = verify(bundle)
    assert not report, f"{name} went unnoticed:\n{report}"
    difference = explain(bundle, "small")
    assert difference is not None
    assert difference.node == node, str(difference)
    assert difference.relative > 5e-6


def test_the_graph_itself_passes_and_explains_nothing(exported: ExportedModel, tmp_path: Path) -> None:
    bundle = with_graph(exported, exported.graph, tmp_path / "b.edge")
    assert verify(bundle)
    assert explain(bundle, "small") is None


def test_without_a_trace_there_is_no_explanation(exported: ExportedModel, tmp_path: Path) -> None:
    bundle = with_graph(exported, exported.graph, tmp_path / "b.edge")
    spec = dataclasses.replace(bundle.manifest.models["small"], trace=None)
    bundle.manifest = dataclasses.replace(bundle.manifest, models={"small": spec})
    with pytest.raises(BundleError, match="has no trace; export it again"):
        explain(bundle, "small")


def test_every_value_is_exposed_once(exported: ExportedModel) -> None:
    model = onnx.load_from_string(exported.graph)
    graph, names = expose(model)
    assert len(names) == len(set(names)) == sum(len(node.output) for node in model.graph.node)
    assert [value.name for value in model.graph.output] == ["probabilities", "level"], "the model is not changed"
    assert {value.name for value in onnx.load_from_string(graph).graph.output} == set(names)


def test_a_fingerprint_sees_size_order_and_sign() -> None:
    x = np.arange(1.0, 7.0)
    whole = fingerprint(x)
    assert whole[0] == pytest.approx(np.sqrt(91))
    np.testing.assert_array_equal(fingerprint(x.reshape(2, 3)), whole)
    np.testing.assert_array_equal(fingerprint(-x)[1:], -whole[1:])
    assert all((fingerprint(np.roll(x, shift)) != whole).any() for shift in range(1, 6))


def test_a_difference_reads_as_a_sentence() -> None:
    said = str(Difference("backbone.conv/Conv", "Conv", "conv2d", 2.5e-4, 5, 44))
    assert said == (
        "first node that differs: backbone.conv/Conv (Conv, 5 of 44): its output conv2d is off by 2.5e-04 of its own "
        "size"
    )
    assert "has another shape or is not a number" in str(Difference("n", "Conv", "v", float("inf"), 1, 2))


def test_a_weight_that_is_never_asked_for_is_noted_not_a_crash() -> None:
    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    model = export_model(
        Half().eval(), inputs=[Input("x", "float32", ("N", 3))], outputs=[Output("y", "float32", ("N", 3))]
    )
    assert any("dead or unused: unused.weight" in note for note in model.report.notes)
