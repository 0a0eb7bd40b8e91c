"""A graph in memory that names a file is refused where ONNX Runtime would read it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime import devices
from runtime.engine import Engine
from runtime.errors import BundleError
from runtime.external import names_files, refuse_files

OLD, NEW = "1.21", "1.21.1"


def tensor(external: bool) -> TensorProto:
    made = numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    if external:
        made.ClearField("raw_data")
        made.data_location = TensorProto.EXTERNAL
        made.external_data.add(key="location", value="/etc/hostname")
    return made


def in_initializer(value: TensorProto) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "location",  # a graph may be called so
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [value],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def in_constant(value: TensorProto) -> onnx.ModelProto:
    model = in_initializer(tensor(False))
    del model.graph.initializer[:]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=value))
    return model


def in_branch(value: TensorProto) -> onnx.ModelProto:
    model = in_initializer(tensor(False))
    branch = helper.make_graph([], "branch", [], [helper.make_tensor_value_info("w", 1, [3, 3])], [value])
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))
    return model


def in_function(value: TensorProto) -> onnx.ModelProto:
    model = in_initializer(tensor(False))
    node = helper.make_node("Constant", [], ["w"], value=value)
    model.functions.append(helper.make_function("own", "F", [], ["w"], [node], [helper.make_opsetid("", 18)]))
    return model


PLACES = [in_initializer, in_constant, in_branch, in_function]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_tensor_in_another_file_is_found_wherever_it_stands(place: Callable[[TensorProto], onnx.ModelProto]) -> None:
    assert names_files(place(tensor(True)).SerializeToString())
    assert not names_files(place(tensor(False)).SerializeToString())


def test_either_mark_is_enough() -> None:
    for field in ("data_location", "external_data"):
        value = tensor(True)
        value.ClearField(field)
        assert names_files(in_initializer(value).SerializeToString())


def test_only_old_releases_need_it() -> None:
    graph = in_initializer(tensor(True)).SerializeToString()
    with pytest.raises(BundleError, match=r"ONNX Runtime 1\.21 would read whatever file it names"):
        refuse_files(graph, OLD)
    with pytest.raises(BundleError):
        refuse_files(graph, "1.20.2")
    refuse_files(graph, NEW)
    refuse_files(graph, "1.33.0+dev")
    refuse_files(in_initializer(tensor(False)).SerializeToString(), OLD)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_what_cannot_be_walked_is_refused(cut: int) -> None:
    graph = in_initializer(tensor(True)).SerializeToString()
    with pytest.raises(BundleError):
        refuse_files(graph[:-cut], OLD)


def test_the_engine_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.onnxruntime(), "__version__", OLD)
    with pytest.raises(BundleError, match="keeps weights in another file"):
        Engine(in_initializer(tensor(True)).SerializeToString(), threads=1)
    Engine(in_initializer(tensor(False)).SerializeToString(), threads=1).close()
