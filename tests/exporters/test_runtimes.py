"""What stands between a graph and an older ONNX Runtime."""

from __future__ import annotations

from itertools import pairwise

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from exporters.errors import GuardError
from exporters.export import export_model
from exporters.runtimes import RELEASES, check_runtimes, obstacles, parse_runtime
from exporters.spec import Input, Output
from runtime.errors import InputError


def graph(operator: str = "Relu", opset: int = 13, ir: int = 7, domain: str = "", **attributes: int) -> onnx.ModelProto:
    node = helper.make_node(operator, ["x"], ["y"], domain=domain, **attributes)
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 4, 4]) for name in "xy"]
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 9)] if domain else [])]
    made = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    return helper.make_model(made, opset_imports=opsets, ir_version=ir)


@pytest.mark.parametrize(
    ("model", "minor", "words"),
    [
        (graph(), 8, None),
        (graph(opset=20), 17, None),
        (graph(opset=21), 17, "opset 21, it knows up to 20: --opset 20"),
        (graph("Gelu", opset=20), 16, "opset 20 (Gelu changed since), it knows up to 19"),
        (graph(ir=10), 17, "IR version 10, it reads up to 9"),
        (graph("Resize", opset=18, antialias=1), 14, "Resize with antialias exists from 1.15 on"),
        (graph("Resize", opset=18, antialias=0), 14, None),
        (graph("Binarizer", domain="ai.onnx.ml"), 17, "opset 9"),
        (graph("X", domain="com.microsoft"), 17, "may not have the operators of com.microsoft"),
        (graph(opset=19, ir=9), 15, "opset 19, it knows up to 18"),
        (graph(opset=25), 99, None),
    ],
)
def test_what_an_older_release_lacks(model: onnx.ModelProto, minor: int, words: str | None) -> None:
    found = obstacles(model, minor)
    assert (found == []) if words is None else words in "; ".join(found)


def test_a_newer_release_loads_what_an_older_one_does() -> None:
    newest = list(RELEASES.values())
    assert list(RELEASES) == list(range(min(RELEASES), max(RELEASES) + 1))
    assert all(now >= before for one, other in pairwise(newest) for before, now in zip(one, other, strict=True))
    ir, opset, _ = newest[-1]
    assert ir <= onnx.IR_VERSION
    assert opset <= onnx.defs.onnx_opset_version()


@pytest.mark.parametrize("text", ["1.17", "onnxruntime", "onnxruntime>=1.17", "onnxruntime==0.5", "tflite==2.14"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no release that can be checked"):
        parse_runtime(text)


def test_an_export_is_refused_for_the_release_it_is_meant_for() -> None:
    torch.manual_seed(0)
    what = {"inputs": [Input("x", "float32", ("N", 4))], "outputs": [Output("y", "float32", ("N", 3))]}
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh()).eval()
    model = export_model(module, **what, runtimes=["onnxruntime==1.17", "onnxruntime==1.14.1"])
    check_runtimes(onnx.load_from_string(model.graph), ["onnxruntime==1.17"])
    with pytest.raises(GuardError, match=r"onnxruntime==1.12 does not load the graph: .*--opset 17"):
        export_model(module, **what, runtimes=["onnxruntime==1.12"])
    with pytest.raises(InputError):
        export_model(module, **what, runtimes=["1.12"])
