"""The engine: right inputs give the graph's answer from any thread, wrong ones a message that names them."""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime import devices
from runtime import engine as engine_module
from runtime.bundle import Bundle
from runtime.child import run_python
from runtime.engine import Engine
from runtime.errors import BundleError, DeviceError, InputError
from runtime.manifest import ModelSpec, TensorSpec
from tests.runtime.conftest import WEIGHTS, graph_bytes


@pytest.fixture
def linear(linear_graph: bytes) -> Engine:
    return Engine(linear_graph, threads=1, name="linear")


@pytest.fixture(scope="module")
def two_inputs_graph() -> bytes:
    """sum [N, T] = a [N, T] + b [N, T]; both named sizes are shared."""
    return graph_bytes(
        [helper.make_node("Add", ["a", "b"], ["sum"])],
        [("a", TensorProto.FLOAT, ["N", "T"]), ("b", TensorProto.FLOAT, ["N", "T"])],
        [("sum", TensorProto.FLOAT, ["N", "T"])],
    )


def test_mapping_positional_and_call_are_the_same(linear: Engine) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = x @ WEIGHTS
    for answer in (linear.run({"x": x}), linear.run(x), linear(x), linear({"x": x})):
        assert list(answer) == ["y", "total"]
        np.testing.assert_allclose(answer["y"], expected, rtol=1e-6)
        np.testing.assert_allclose(answer["total"], expected.sum(1), rtol=1e-6)


def test_only_the_outputs_that_were_asked_for(linear: Engine) -> None:
    x = np.ones((1, 3), np.float32)
    assert list(linear.run({"x": x}, outputs=["total"])) == ["total"]
    assert list(linear.run(x, outputs=("total", "y"))) == ["total", "y"]
    with pytest.raises(InputError, match="linear: no output 'z'; there are y, total"):
        linear.run(x, outputs=["z"])
    with pytest.raises(InputError, match="no outputs were asked for"):
        linear.run(x, outputs=[])
    with pytest.raises(InputError, match="the text 'total', expected a list of names"):
        linear.run(x, outputs="total")


X = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, r"input 'x' is missing; given: none; expected x: float32 \[N, 3\]"),
        ({"X": X}, "input 'x' is missing; given: X"),
        ({"x": X, "z": X}, "unknown input 'z'"),
        ({"x": X.tolist()}, r"input 'x': expected float32 \[N, 3\], got list; pass a numpy array"),
        ({"x": None}, "got NoneType"),
        ({"x": X.astype(np.float64)}, "got float64; nothing is cast"),
        ({"x": X.astype(">f4")}, "got >f4"),
        ({"x": X.astype(object)}, "got object"),
        ({"x": X[0]}, r"got the shape \[3\]"),
        ({"x": X[None]}, r"got the shape \[1, 2, 3\]"),
        ({"x": X[:, :2]}, r"got the shape \[2, 2\]: dimension 1 is off"),
    ],
    ids=[
        "missing",
        "misspelt",
        "unknown",
        "list",
        "none",
        "float64",
        "byte order",
        "object",
        "rank 1",
        "rank 3",
        "size",
    ],
)
def test_wrong_inputs_are_named(linear: Engine, inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        linear.run(inputs)
    assert str(caught.value).startswith("linear: ")


def test_wrong_numbers_of_positional_inputs(linear: Engine) -> None:
    for inputs in ((), (X, X)):
        with pytest.raises(InputError, match=f"{len(inputs)} inputs, expected x: float32"):
            linear.run(*inputs)


def test_a_name_is_the_same_size_everywhere(two_inputs_graph: bytes) -> None:
    engine = Engine(two_inputs_graph, threads=1)
    a = np.ones((2, 5), np.float32)
    with pytest.raises(InputError, match=r"input 'b'.*: T is 5 elsewhere in the same call"):
        engine.run({"a": a, "b": a[:, :1]})  # ONNX Runtime itself would broadcast, silently
    with pytest.raises(InputError, match="N is 2 elsewhere"):
        engine.run({"a": a, "b": a[:1]})
    assert engine.run(a, a)["sum"].shape == (2, 5)


def test_arrays_in_any_memory_order(linear: Engine) -> None:
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    expected = linear.run(x)["y"]
    padded = np.zeros((8, 6), np.float32)
    padded[::2, ::2] = x
    for view in (np.asfortranarray(x), padded[::2, ::2], x[::-1][::-1], np.broadcast_to(x, (4, 3))):
        np.testing.assert_array_equal(linear.run(view)["y"], expected)
    np.testing.assert_array_equal(linear.run(x[:0])["y"], expected[:0])
    read_only = x.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(linear.run(read_only)["y"], expected)


def test_what_the_graph_refuses_names_the_inputs() -> None:
    engine = Engine(
        graph_bytes(
            [helper.make_node("Reshape", ["x", "shape"], ["y"])],
            [("x", TensorProto.FLOAT, ["N"])],
            [("y", TensorProto.FLOAT, [2, 2])],
            [("shape", np.array([2, 2], np.int64))],
        ),
        threads=1,
        name="square",
    )
    with pytest.raises(InputError, match=r"square: ONNX Runtime refused the input: x float32 \[3\]"):
        engine.run(np.ones(3, np.float32))


def test_text_and_scalar_inputs() -> None:
    engine = Engine(
        graph_bytes(
            [helper.make_node("Identity", ["words"], ["same"]), helper.make_node("Neg", ["n"], ["minus"])],
            [("words", TensorProto.STRING, ["N"]), ("n", TensorProto.INT64, [])],
            [("same", TensorProto.STRING, ["N"]), ("minus", TensorProto.INT64, [])],
        ),
        threads=1,
    )
    answer = engine.run(np.array(["a", "bc"]), np.array(7))
    assert answer["same"].tolist() == ["a", "bc"]
    assert answer["minus"] == -7
    with pytest.raises(InputError, match=r"'n': expected int64 \[\], got int64|got the shape \[1\]"):
        engine.run(np.array(["a"]), np.array([7]))
    with pytest.raises(InputError, match="'words': expected string"):
        engine.run(np.array([1.0]), np.array(7))


# --- batch ---------------------------------------------------------------------------------------------------------


def test_batch_answers_in_order_and_bit_equal_to_single_runs(two_inputs_graph: bytes) -> None:
    engine = Engine(two_inputs_graph, threads=1)
    rng = np.random.default_rng(1)
    items = [
        {name: rng.normal(size=(rows, length)).astype(np.float32) for name in "ab"}
        for rows, length in [(1, 5), (2, 3), (1, 5), (3, 5), (1, 3), (0, 5), (1, 1)]
    ]
    calls: list[int] = []
    run = engine.run
    engine.run = lambda inputs: calls.append(1) or run(inputs)  # type: ignore[method-assign]
    answers = engine.batch(items)
    assert len(calls) == 3  # lengths 5, 3 and 1
    for item, answer in zip(items, answers, strict=True):
        np.testing.assert_array_equal(answer["sum"], run(item)["sum"])
    assert engine.batch([]) == []


def test_batch_keeps_to_its_limit(linear: Engine) -> None:
    items = [{"x": np.full((rows, 3), index, np.float32)} for index, rows in enumerate([2, 1, 3, 5, 1])]
    sizes: list[int] = []
    run = linear.run
    linear.run = lambda inputs: sizes.append(len(inputs["x"])) or run(inputs)  # type: ignore[method-assign]
    answers = linear.batch(items, limit=3)
    assert sizes == [3, 3, 5, 1]  # an item larger than the limit still runs, alone
    for item, answer in zip(items, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], run(item)["y"])


def test_batch_along_another_axis_and_through_a_recurrent_layer() -> None:
    """LSTM: x [T, B, 2], h0 [1, B, 4]; the batch is the second dimension."""
    rng = np.random.default_rng(2)
    nodes = [helper.make_node("LSTM", ["x", "w", "r", "", "", "h0"], ["all", "hn"], hidden_size=4)]
    engine = Engine(
        graph_bytes(
            nodes,
            [("x", TensorProto.FLOAT, ["T", "B", 2]), ("h0", TensorProto.FLOAT, [1, "B", 4])],
            [("all", TensorProto.FLOAT, ["T", 1, "B", 4]), ("hn", TensorProto.FLOAT, [1, "B", 4])],
            [
                ("w", rng.normal(size=(1, 16, 2)).astype(np.float32)),
                ("r", rng.normal(size=(1, 16, 4)).astype(np.float32)),
            ],
        ),
        threads=1,
    )
    items = [
        {"x": rng.normal(size=(6, rows, 2)).astype(np.float32), "h0": rng.normal(size=(1, rows, 4)).astype(np.float32)}
        for rows in (1, 2, 1)
    ]
    for item, answer in zip(items, engine.batch(items), strict=True):
        single = engine.run(item)
        np.testing.assert_array_equal(answer["all"], single["all"])
        np.testing.assert_array_equal(answer["hn"], single["hn"])


def test_a_graph_without_a_batch_dimension_runs_items_one_by_one() -> None:
    """Pictures [H, W, 3]: stacked along their first named dimension they would be one tall picture."""
    engine = Engine(
        graph_bytes(
            [
                helper.make_node("ReduceMax", ["image"], ["top"], keepdims=1),
                helper.make_node("Sub", ["top", "image"], ["below"]),
            ],
            [("image", TensorProto.UINT8, ["H", "W", 3])],
            [("below", TensorProto.UINT8, ["H", "W", 3])],
        ),
        threads=1,
    )
    items = [{"image": np.full((2, 2, 3), value, np.uint8)} for value in (3, 9, 5)]
    assert [int(answer["below"].max()) for answer in engine.batch(items)] == [0, 0, 0]


def test_an_output_without_the_batch_is_not_split(linear_graph: bytes) -> None:
    engine = Engine(
        graph_bytes(
            [helper.make_node("ReduceSum", ["x"], ["all"], keepdims=0)],
            [("x", TensorProto.FLOAT, ["N", 3])],
            [("all", TensorProto.FLOAT, [])],
        ),
        threads=1,
    )
    items = [{"x": np.full((1, 3), value, np.float32)} for value in (1, 2)]
    assert [float(answer["all"]) for answer in engine.batch(items)] == [3.0, 6.0]


def test_a_wrong_item_of_a_batch_is_named(linear: Engine) -> None:
    with pytest.raises(InputError, match=r"item 1: linear: input 'x'.*got float64"):
        linear.batch([{"x": X}, {"x": X.astype(np.float64)}])


# --- signature -----------------------------------------------------------------------------------------------------


def test_the_signature_of_a_graph_without_a_manifest() -> None:
    engine = Engine(
        graph_bytes(
            [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["z"], ["w"])],
            [("x", TensorProto.FLOAT, [None, 2]), ("z", TensorProto.FLOAT, [None, 2])],
            [("y", TensorProto.FLOAT, [None, 2]), ("w", TensorProto.FLOAT, ["M", 2])],
        ),
        threads=1,
    )
    assert engine.spec.inputs == (
        TensorSpec("x", "float32", ("x.0", 2)),
        TensorSpec("z", "float32", ("z.0", 2)),
    )
    engine.run(np.ones((1, 2), np.float32), np.ones((5, 2), np.float32))  # nameless sizes are not the same size


def spec_with(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...] | None = None) -> ModelSpec:
    standard = (TensorSpec("y", "float32", ("N", 2)), TensorSpec("total", "float32", ("N",)))
    return ModelSpec(variants={}, inputs=inputs, outputs=standard if outputs is None else outputs)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (spec_with((TensorSpec("z", "float32", ("N", 3)),)), "the manifest gives the inputs z, the graph has x"),
        (spec_with((TensorSpec("x", "uint8", ("N", 3)),)), "says input 'x' is uint8"),
        (spec_with((TensorSpec("x", "float32", ("N", 4)),)), r"\[N, 4\], the graph says float32 \[N, 3\]"),
        (spec_with((TensorSpec("x", "float32", ("N", "K")),)), r"\[N, K\], the graph says float32 \[N, 3\]"),
        (spec_with((TensorSpec("x", "float32", ("N",)),)), "the graph says"),
        (spec_with((TensorSpec("x", "float32", ("N", 3)),), ()), "the manifest gives the outputs"),
    ],
    ids=["name", "dtype", "size", "wider than the graph", "rank", "outputs"],
)
def test_a_manifest_that_does_not_fit_the_graph(linear_graph: bytes, spec: ModelSpec, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        Engine(linear_graph, spec=spec, threads=1)


def test_the_manifest_may_say_less_than_the_graph_can(linear_graph: bytes) -> None:
    engine = Engine(linear_graph, spec=spec_with((TensorSpec("x", "float32", (2, 3)),)), threads=1)
    engine.run(X)
    with pytest.raises(InputError, match="dimension 0 is off"):
        engine.run(X[:1])


def test_inputs_that_numpy_cannot_hold_are_refused_at_once() -> None:
    graph = graph_bytes(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", TensorProto.BFLOAT16, ["N"])],
        [("y", TensorProto.BFLOAT16, ["N"])],
    )
    with pytest.raises(BundleError, match=r"'x' is a tensor\(bfloat16\)|cannot load the graph"):
        Engine(graph, threads=1)


@pytest.mark.parametrize("graph", [b"", b"not a graph", b"\x08\x07"], ids=["empty", "text", "no graph in it"])
def test_damaged_graphs(graph: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BundleError, match="cannot load the graph"):
        Engine(graph, threads=1)
    assert capfd.readouterr() == ("", "")  # ONNX Runtime's own copy of the message would be a second one


def test_a_graph_in_memory_reads_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights may lie outside an ONNX file; ONNX Runtime would take them from the working directory."""
    (tmp_path / "secret.bin").write_bytes(np.eye(3, dtype=np.float32).tobytes())
    weights = numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "secret.bin"
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["leak"])],
        "leak",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("leak", TensorProto.FLOAT, ["N", 3])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    monkeypatch.chdir(tmp_path)
    bare = devices.onnxruntime().InferenceSession(model, providers=["CPUExecutionProvider"])
    assert bare.run(["leak"], {"x": np.eye(3, dtype=np.float32)})[0][0, 0] == 1.0  # it does, left to itself
    with pytest.raises(BundleError, match=r"cannot load the graph: .*no-external-data"):
        Engine(model, threads=1)


def test_a_graph_from_a_file(linear_graph: bytes, tmp_path: Path) -> None:
    file = tmp_path / "linear.onnx"
    file.write_bytes(linear_graph)
    assert Engine(file, threads=1).run(X)["y"].shape == (2, 2)
    with pytest.raises(BundleError, match="cannot load the graph"):
        Engine(tmp_path / "none.onnx", threads=1)


# --- life ----------------------------------------------------------------------------------------------------------


def test_closing(linear_graph: bytes) -> None:
    with Engine(linear_graph, threads=1, name="linear") as engine:
        assert (engine.device, engine.provider, engine.threads) == ("cpu", "CPUExecutionProvider", 1)
        assert repr(engine) == "Engine('linear', device='cpu', threads=1)"
        engine.run(X)
    with pytest.raises(InputError, match="engine 'linear' is closed"):
        engine.run(X)
    engine.close()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices of the sessions that engines open, in their order."""
    asked: list[str] = []

    def open_session(graph: Any, device: str, threads: int) -> Any:
        asked.append(device)
        time.sleep(0.02)  # as long as another thread needs to come by
        return devices.open_session(graph, device, threads)

    monkeypatch.setattr(engine_module, "open_session", open_session)
    return asked


def test_an_engine_that_opens_later_opens_once_and_answers_the_same(linear_graph: bytes, opened: list[str]) -> None:
    now = Engine(linear_graph, threads=1)
    later = Engine(linear_graph, spec=now.spec, threads=1, later=True, device="cpu,graph=basic")
    assert opened == ["cpu"], "nothing was asked of the other one so far"
    assert (later.device, later.provider) == (now.device, now.provider)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: later.run(X), range(4)))
    assert opened == ["cpu", "cpu,graph=basic"]
    assert all((answer["y"] == now.run(X)["y"]).all() for answer in answers)


def test_what_an_engine_that_opens_later_refuses(linear_graph: bytes, opened: list[str]) -> None:
    spec = Engine(linear_graph, threads=1).spec
    other = replace(spec, outputs=(TensorSpec("z", "float32", ("N", 2)),))
    for graph, said, words in ((b"no graph", spec, "cannot load"), (linear_graph, other, "the manifest gives")):
        engine = Engine(graph, spec=said, threads=1, later=True)
        for _ in range(2):
            with pytest.raises(BundleError, match=words):
                engine.run(X)
    engine = Engine(linear_graph, spec=spec, threads=1, later=True)
    del opened[:]
    engine.close()
    with pytest.raises(InputError, match="is closed"):
        engine.run(X)
    assert opened == []
    with pytest.raises(DeviceError, match="unknown device"):
        Engine(linear_graph, spec=spec, threads=1, later=True, device="abacus")


def test_many_threads_share_one_engine(linear_graph: bytes) -> None:
    engine = Engine(linear_graph, threads=2)
    rng = np.random.default_rng(3)
    wrong: list[BaseException | int] = []

    def work(seed: int) -> None:
        local = np.random.default_rng(seed)
        try:
            for _ in range(60):
                x = local.normal(size=(local.integers(1, 9), 3)).astype(np.float32)
                y = engine.run(x)["y"] if seed % 2 else engine.batch([{"x": x}, {"x": x}])[1]["y"]
                if not np.allclose(y, x @ WEIGHTS, rtol=1e-5, atol=1e-6):
                    wrong.append(seed)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(int(rng.integers(1 << 30)) * 2 + index % 2,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_closing_while_others_run_lets_them_end(linear_graph: bytes) -> None:
    engine = Engine(linear_graph, threads=1)
    ended: list[str] = []
    started = threading.Barrier(5)

    def work() -> None:
        started.wait()
        try:
            while True:
                engine.run(X)
        except InputError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    engine.close()
    for thread in threads:
        thread.join(timeout=30)
    assert len(ended) == 4
    assert all("is closed" in text for text in ended)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_an_engine_is_refused_in_a_forked_child(tmp_path: Path, linear_graph: bytes) -> None:
    """In a child process, since forking the threaded test process itself is what the engine warns of."""
    (tmp_path / "linear.onnx").write_bytes(linear_graph)
    code = """
import os, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from runtime.engine import Engine
from runtime.errors import DeviceError
graph = open(sys.argv[1], "rb").read()
engine = Engine(graph, threads=2, name="linear")
x = np.ones((1, 3), np.float32)
engine.run(x)
child = os.fork()
if child == 0:
    try:
        engine.run(x)
    except DeviceError as error:
        fresh = Engine(graph, threads=2).run(x)["y"].shape
        print("refused:", error, fresh, flush=True)
        os._exit(0)
    os._exit(1)
assert os.waitpid(child, 0)[1] == 0
print("parent:", engine.run(x)["y"].shape)
"""
    done = run_python(code, str(tmp_path / "linear.onnx"), timeout=60)
    assert done.returncode == 0, done.stderr
    assert "refused: engine 'linear' was opened before this process was forked" in done.stdout
    assert "without --preload) (1, 2)" in done.stdout
    assert "parent: (1, 2)" in done.stdout


def test_the_bundle_and_the_engine_fit_together(linear_bundle: Bundle) -> None:
    engine = Engine(linear_bundle.graph("linear"), spec=linear_bundle.model("linear"), threads=1)
    for case in linear_bundle.golden("linear"):
        answer = engine.run(case.inputs)
        np.testing.assert_allclose(answer["y"], case.outputs["y"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [0, -1])
def test_impossible_numbers_of_threads(linear_graph: bytes, threads: int) -> None:
    with pytest.raises(InputError, match=f"threads is {threads}"):
        Engine(linear_graph, threads=threads)


def test_the_session_got_the_threads_that_were_asked_for(linear_graph: bytes) -> None:
    engine = Engine(linear_graph, threads=3)
    options = engine.session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_an_unknown_device(linear_graph: bytes) -> None:
    with pytest.raises(DeviceError, match="unknown device 'abacus'"):
        Engine(linear_graph, device="abacus")


def test_importing_the_engine_is_light() -> None:
    code = "import sys, runtime.engine; print([m for m in ('onnxruntime', 'cv2', 'torch', 'onnx') if m in sys.modules])"
    done = run_python(code)
    assert done.stdout.strip() == "[]", done.stderr
    assert sys.version_info >= (3, 11)
