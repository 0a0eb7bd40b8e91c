"""A search through the gate: proven, its mutants caught in the loop's body, and a fault in the body located."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exporters.assemble import ExportedVariant
from exporters.errors import GuardError
from exporters.explain import explain
from exporters.export import ExportedModel, assemble, export_model
from exporters.graphs import all_nodes, graphs, operators
from exporters.guards import check_graph
from exporters.optimize import flush_graph
from exporters.spec import Case, Signature
from runtime.verify import verify
from tests.exporters.searches import LSTMSearch, Rule

MODULE = LSTMSearch(Rule(width=3, max_length=7))


def decided_cases() -> list[Case]:
    """Batches of 1, 3 and 8 whose searches are clear."""
    import torch

    chance = np.random.default_rng(0)
    with torch.no_grad():
        x = chance.standard_normal((200, 5)).astype(np.float32)
        clear = x[LSTMSearch(MODULE.rule).double().margins(torch.from_numpy(x).double()).numpy() > 1e-3]
    cases, at = [], 0
    for size in (1, 3, 8, 2, 5, 1, 4, 7):
        cases.append(Case(f"batch {size} from {at}", {"x": clear[at : at + size].copy()}))
        at += size
    assert at <= len(clear)
    return cases


@pytest.fixture(scope="module")
def search() -> ExportedModel:
    return export_model(MODULE, inputs=[MODULE.VECTOR], outputs=MODULE.outputs(), cases=decided_cases())


def test_the_search_passes_the_gate(search: ExportedModel) -> None:
    report = search.report
    assert report
    assert {name: tolerance.rule.decision for name, tolerance in report.tolerances.items()} == {
        "tokens": "exact", "lengths": "exact", "scores": None
    }  # fmt: skip
    assert {mutant.layer for mutant in report.mutants} == {
        "embedding.weight", "gates.weight", "head.weight", "project.weight"
    }  # fmt: skip
    scores = report.tolerances["scores"].rule
    assert all(mutant.effects["scores"] > scores.atol for mutant in report.mutants)


def test_the_graph_is_one_loop_and_says_so(search: ExportedModel) -> None:
    model = onnx.load_from_string(search.graph)
    counts = operators(model)
    assert counts["Loop"] == 1
    assert counts["MatMul"] == 2, "one for all gates, one for the words, both in the body"
    assert counts["Gemm"] == 1
    assert counts["LogSoftmax"] == 1
    assert search.report.operators == counts
    (loop,) = [node for node in model.graph.node if node.op_type == "Loop"]
    assert len(list(all_nodes(model))) == len(model.graph.node) + len(loop.attribute[0].g.node)
    names = [node.name for node in all_nodes(model)]
    assert len(set(names)) == len(names)
    products = [node.input[1] for node in all_nodes(model) if node.op_type == "MatMul"]
    assert products == ["gates.weight.T", "head.weight.T"]
    for part in graphs(model.graph):
        values = [*part.input, *part.output, *part.value_info]
        assert not any(value.metadata_props for value in values)
        assert {size.dim_param for v in part.input for size in v.type.tensor_type.shape.dim} <= {"", "B"}


def weight_to_float16(name: str) -> Callable[[onnx.ModelProto], None]:
    def mutate(model: onnx.ModelProto) -> None:
        (weight,) = [i for i in model.graph.initializer if i.name == name]
        array = numpy_helper.to_array(weight)
        weight.CopyFrom(numpy_helper.from_array(array.astype(np.float16).astype(np.float32), name))

    return mutate


def gates_swapped(model: onnx.ModelProto) -> None:
    """Input gate for forget gate."""
    (split,) = [node for node in all_nodes(model) if node.op_type == "Split"]
    split.output[0], split.output[1] = split.output[1], split.output[0]


def length_ignored(model: onnx.ModelProto) -> None:
    (weight,) = [i for i in model.graph.initializer if list(i.dims) == [7] and i.data_type == onnx.TensorProto.FLOAT]
    weight.CopyFrom(numpy_helper.from_array(np.ones(7, np.float32), weight.name))


def unknown_word_allowed(model: onnx.ModelProto) -> None:
    (mask,) = [
        i
        for i in model.graph.initializer
        if list(i.dims) == [11] and i.data_type == onnx.TensorProto.FLOAT and np.isinf(numpy_helper.to_array(i)).any()
    ]
    mask.CopyFrom(numpy_helper.from_array(np.zeros(11, np.float32), mask.name))


def state_not_reordered(model: onnx.ModelProto) -> None:
    """Each hypothesis goes on with the state of the one that stood at its place."""
    (loop,) = [node for node in model.graph.node if node.op_type == "Loop"]
    body = loop.attribute[0].g
    gathers = [node for node in body.node if node.op_type == "Gather"]
    rows = gathers[-1].input[1]
    offsets = next(node for node in body.node if node.output[0] == rows).input[1]
    model.graph.initializer.append(numpy_helper.from_array(np.arange(3)[None], "own"))
    own = onnx.helper.make_node("Add", ["own", offsets], ["own rows"], "own")
    body.node.insert(list(body.node).index(gathers[-2]) - 1, own)
    for gather in gathers[-2:]:
        assert gather.input[1] == rows
        gather.input[1] = "own rows"


MUTANTS: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "gates to float16": (weight_to_float16("gates.weight.T"), "Loop/MatMul"),
    "head to float16": (weight_to_float16("head.weight.T"), "Loop/MatMul_2"),
    "embedding to float16": (weight_to_float16("embedding.weight"), "Loop/Gather"),
    "gates swapped": (gates_swapped, "Loop/Split"),
    "length ignored": (length_ignored, "Loop/Gather_2"),
    "unknown word allowed": (unknown_word_allowed, "Loop/Add"),
    "state not reordered": (state_not_reordered, "Loop/Gather"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_fault_in_the_body_is_told_and_located(search: ExportedModel, tmp_path: Path, name: str) -> None:
    mutate, node = MUTANTS[name]
    model = onnx.load_from_string(search.graph)
    mutate(model)
    faulty = dataclasses.replace(search, variants={"fp32": ExportedVariant(model.SerializeToString())})
    bundle = assemble(tmp_path / "b.edge", name="b", task="t", models={"search": faulty})
    report = verify(bundle)
    assert not report, f"{name} went unnoticed:\n{report}"
    difference = explain(bundle, "search")
    assert difference is not None
    assert difference.node.startswith(node), str(difference)
    assert ", step " in difference.value
    assert difference.nodes == operators(model).total()


def test_the_graph_itself_passes_and_explains_nothing(search: ExportedModel, tmp_path: Path) -> None:
    bundle = assemble(tmp_path / "b.edge", name="b", task="t", models={"search": search})
    assert verify(bundle)
    assert explain(bundle, "search") is None


def test_guards_look_into_bodies(search: ExportedModel) -> None:
    model = onnx.load_from_string(search.graph)
    (loop,) = [node for node in model.graph.node if node.op_type == "Loop"]
    body = loop.attribute[0].g
    tiny = numpy_helper.from_array(np.full((2, 2), 1e-30, np.float32), "tiny")
    body.initializer.append(tiny)
    assert flush_graph(model) == 4
    model = onnx.load_from_string(search.graph)
    next(node for node in model.graph.node if node.op_type == "Loop").attribute[0].g.node[0].domain = "com.example"
    with pytest.raises(GuardError, match=r"the graph has com\.example::Gather"):
        check_graph(model, Signature([MODULE.VECTOR], MODULE.outputs()), 18)
