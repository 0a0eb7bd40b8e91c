"""Devices: what was asked for by name runs there or is an error. A stand-in behaves as onnxruntime-gpu was seen to.

The stand-in follows onnxruntime-gpu 1.31.1 on a machine without a GPU: the provider is listed, the session opens
without an exception, and `get_providers()` alone tells that the CPU took over; with `disable_cpu_ep_fallback` the
session raises, and `preload_dlls` prints to standard output.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from runtime import devices
from runtime.child import run_python
from runtime.devices import CPU, PROBE_GRAPH, ProviderConfig, known_devices, open_session, probe, resolve
from runtime.engine import Engine
from runtime.errors import BundleError, DeviceError, EdgedlError, InputError, MissingExtraError

CUDA = "CUDAExecutionProvider"
FALLBACK_ERROR = (
    "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the default CPU EP, but "
    "fallback to CPU EP has been explicitly disabled by the user."
)


class StandIn:
    """An onnxruntime with the given providers, of which only some really start."""

    __version__ = "1.31.1"
    __file__ = None
    ExecutionMode = SimpleNamespace(ORT_SEQUENTIAL=0)
    GraphOptimizationLevel = SimpleNamespace(ORT_ENABLE_ALL=99)

    def __init__(self, *, listed: tuple[str, ...], working: tuple[str, ...] = (), cpu_nodes: tuple[str, ...] = ()):
        self.listed = (*listed, CPU)
        self.working = (*working, CPU)
        self.cpu_nodes = cpu_nodes
        self.device_nodes: tuple[str, ...] = ("Conv",)
        self.opened: list[Any] = []
        self.preloaded = 0

    def get_available_providers(self) -> list[str]:
        return list(self.listed)

    def get_all_providers(self) -> list[str]:
        return [CUDA, "TensorrtExecutionProvider", "CoreMLExecutionProvider", "QNNExecutionProvider", *self.listed]

    def preload_dlls(self) -> None:
        self.preloaded += 1
        print("Failed to load libcublasLt.so.13")

    class SessionOptions:
        def __init__(self) -> None:
            self.entries: dict[str, str] = {}

        def add_session_config_entry(self, key: str, value: str) -> None:
            self.entries[key] = value

    def InferenceSession(self, graph: Any, options: Any, *, providers: list[Any], enable_fallback: int) -> Any:
        assert enable_fallback == 0
        names = [entry if isinstance(entry, str) else entry[0] for entry in providers]
        settings = {entry[0]: entry[1] for entry in providers if not isinstance(entry, str)}
        running = [name for name in names if name in self.working]
        if options.entries.get("session.disable_cpu_ep_fallback") == "1" and not running:
            raise RuntimeError(FALLBACK_ERROR)
        if settings.get(CUDA, {}).get("device_id", "0") != "0":
            raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 101: invalid device ordinal")
        self.opened.append((graph, options, providers))
        parts = [
            SimpleNamespace(ep_name=running[0] if running else CPU, get_nodes=lambda: nodes(self.device_nodes)),
            SimpleNamespace(ep_name=CPU, get_nodes=lambda: nodes(self.cpu_nodes)),
        ]
        providers_now = [*dict.fromkeys([*running, CPU])]
        return SimpleNamespace(
            get_providers=lambda: providers_now, get_provider_graph_assignment_info=lambda: parts, _model_bytes=graph
        )


def nodes(types: tuple[str, ...]) -> list[Any]:
    return [SimpleNamespace(op_type=kind) for kind in types]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    def put(**kwargs: Any) -> StandIn:
        module = StandIn(**kwargs)
        monkeypatch.setattr(devices, "onnxruntime", lambda: module)
        return module

    return put


def test_a_listed_provider_that_does_not_start_is_an_error(install, capsys: pytest.CaptureFixture[str]) -> None:
    module = install(listed=(CUDA,))
    with pytest.raises(DeviceError, match=r"device 'gpu' \(CUDAExecutionProvider\) cannot start"):
        open_session(b"graph", "gpu")
    assert module.preloaded == 1
    assert module.opened == []  # the graph itself was never opened on the CPU
    assert capsys.readouterr().out == ""  # what preload_dlls prints is not a result


def test_a_silent_fallback_is_an_error_even_without_an_exception(install, monkeypatch) -> None:
    """An onnxruntime that ignores `disable_cpu_ep_fallback` is caught by comparing the providers."""
    module = install(listed=(CUDA,))
    monkeypatch.setattr(module.SessionOptions, "add_session_config_entry", lambda self, key, value: None)
    with pytest.raises(DeviceError, match="did not start: ONNX Runtime fell back to CPUExecutionProvider"):
        open_session(b"graph", "gpu")
    assert [graph for graph, *_ in module.opened] == [PROBE_GRAPH]  # found out on the tiny graph


def test_a_provider_that_works(install) -> None:
    module = install(listed=(CUDA,), working=(CUDA,))
    session, device, provider = open_session(b"graph", "gpu", 2)
    assert (device, provider) == ("gpu", CUDA)
    trial, real = module.opened
    assert trial[0] == PROBE_GRAPH
    assert trial[1].entries["session.disable_cpu_ep_fallback"] == "1"
    assert [name for name, _ in trial[2]] == [CUDA]  # only this one: the CPU cannot answer for it
    assert real[0] == b"graph"
    assert real[1].intra_op_num_threads == 2
    assert session._model_bytes is None  # not a second copy of the weights


def test_arithmetic_left_to_the_cpu_is_told(install, caplog: pytest.LogCaptureFixture) -> None:
    install(listed=(CUDA,), working=(CUDA,), cpu_nodes=("Shape", "Gather", "LSTM"))
    open_session(b"graph", "gpu")
    assert "device gpu: 3 of 4 nodes stay on the cpu, LSTM among them" in caplog.text
    caplog.clear()
    install(listed=(CUDA,), working=(CUDA,), cpu_nodes=("Shape", "Gather"))
    open_session(b"graph", "gpu")
    assert caplog.text == ""  # computing shapes belongs there


def test_a_device_that_takes_no_node_is_an_error(install) -> None:
    module = install(listed=(CUDA,), working=(CUDA,), cpu_nodes=("LSTM",))
    module.device_nodes = ()
    with pytest.raises(DeviceError, match="takes none of the 1 nodes"):
        open_session(b"graph", "gpu")


def test_a_gpu_that_is_not_there(install) -> None:
    install(listed=(CUDA,), working=(CUDA,))
    assert open_session(b"graph", "cuda:0").device == "cuda:0"
    with pytest.raises(DeviceError, match=r"'gpu:3'.*cannot start.*"):
        open_session(b"graph", "gpu:3")


@pytest.mark.parametrize("device", ["cpu:0", "gpu:x", "gpu:-1", "gpu:²"])
def test_numbers_after_the_colon(install, device: str) -> None:
    install(listed=(CUDA,), working=(CUDA,))
    with pytest.raises(InputError, match="a number after the colon"):
        resolve(device)


def test_auto_takes_what_works_and_says_so(install, caplog: pytest.LogCaptureFixture) -> None:
    install(listed=(CUDA,), working=(CUDA,))
    assert open_session(b"graph", "auto").device == "gpu"
    assert "device auto: took gpu (CUDAExecutionProvider)" in caplog.text
    caplog.clear()
    install(listed=(CUDA,))
    assert open_session(b"graph", "auto").device == "cpu"
    assert "device auto: device 'gpu' (CUDAExecutionProvider) cannot start" in caplog.text
    assert "device auto: took cpu (CPUExecutionProvider)" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_auto_is_heard_on_standard_error_without_any_set_up() -> None:
    code = "from runtime.devices import *; open_session(PROBE_GRAPH, 'auto')"
    done = run_python(code)
    assert done.stderr.strip() == "device auto: took cpu (CPUExecutionProvider)"
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("listed", "device", "provider"),
    [
        ((CUDA,), "gpu", CUDA),
        ((CUDA,), "CUDA", CUDA),
        (("TensorrtExecutionProvider", CUDA), "gpu", CUDA),
        (("TensorrtExecutionProvider", CUDA), "tensorrt", "TensorrtExecutionProvider"),
        (("DmlExecutionProvider",), "gpu", "DmlExecutionProvider"),
        (("CoreMLExecutionProvider",), "coreml", "CoreMLExecutionProvider"),
        (("QNNExecutionProvider",), "npu", "QNNExecutionProvider"),
        (("QNNExecutionProvider",), "qnn", "QNNExecutionProvider"),
        (("OpenVINOExecutionProvider",), "openvino", "OpenVINOExecutionProvider"),
        (("XnnpackExecutionProvider",), "xnnpack", "XnnpackExecutionProvider"),
        (("BrandNewExecutionProvider",), "brandnew", "BrandNewExecutionProvider"),
        ((), " cpu ", CPU),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_names_of_devices(install, listed: tuple[str, ...], device: str, provider: str) -> None:
    install(listed=listed)
    assert [config.provider for config in resolve(device)] == [provider]


@pytest.mark.parametrize("device", ["abacus", "", "gpu0", "CPUExecutionProvider", "auto:1", "azure"])
def test_names_that_nobody_knows(install, device: str) -> None:
    install(listed=("AzureExecutionProvider", CUDA))
    with pytest.raises(DeviceError, match=r"unknown device .*; here are: auto, cpu, cuda, gpu"):
        resolve(device)


@pytest.mark.parametrize(("device", "needs"), [("gpu", CUDA), ("npu", "QNN"), ("coreml", "coreml"), ("cuda:1", "cuda")])
def test_devices_that_this_onnxruntime_was_built_without(install, device: str, needs: str) -> None:
    install(listed=())
    with pytest.raises(DeviceError, match=f"device {device!r} needs .*{needs}.*it offers cpu"):
        resolve(device)


def test_azure_is_not_a_device(install) -> None:
    """It sends the data to a web service."""
    install(listed=("AzureExecutionProvider",))
    assert known_devices() == {"cpu": CPU}


def test_the_real_onnxruntime_without_a_gpu() -> None:
    if "gpu" in known_devices():
        pytest.skip("this onnxruntime was built with a GPU provider; see the tests marked gpu")
    with pytest.raises(DeviceError, match="pip install 'edgedl\\[gpu\\]'"):
        open_session(PROBE_GRAPH, "gpu")
    assert resolve("auto") == [ProviderConfig("cpu", CPU, {})]
    assert open_session(PROBE_GRAPH, "cpu", 1)[1:] == ("cpu", CPU)


def test_the_probe_graph_is_what_its_comment_says() -> None:
    model = onnx.load_from_string(PROBE_GRAPH)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert (model.opset_import[0].version, model.ir_version) == (13, 7)
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    np.testing.assert_array_equal(Engine(PROBE_GRAPH, threads=1).run(x)["y"], 2 * x)


def test_probe_starts_every_provider_in_a_process_of_its_own() -> None:
    statuses = probe()
    assert [status.provider for status in statuses if status.ok][-1] == CPU
    assert {status.device for status in statuses} <= set(known_devices())


def test_probe_survives_a_provider_that_crashes(install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(listed=(CUDA,))
    crash = "import os; os.abort()"
    monkeypatch.setattr("runtime.child.run_python", lambda code, device: run_python(crash if device == "cuda" else ""))
    status = {status.device: status for status in probe()}
    assert not status["cuda"].ok
    assert status["cuda"].reason == "the process ended with status -6"
    assert status["cpu"].ok


def test_probe_tells_a_wrong_answer(install, monkeypatch: pytest.MonkeyPatch) -> None:
    module = install(listed=(CUDA,), working=(CUDA,))
    session = SimpleNamespace(run=lambda names, feed: [feed["x"] * 3])
    monkeypatch.setattr(devices, "open_session", lambda *_: devices.OpenedSession(session, "gpu", CUDA))
    with pytest.raises(DeviceError, match="computes wrongly"):
        devices.probe_here("gpu")
    assert module.opened == []


def test_a_missing_onnxruntime_answers_with_the_pip_line() -> None:
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "onnxruntime":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from runtime.engine import Engine
try:
    Engine(b"")
except Exception as error:
    print(type(error).__name__, error)
"""
    expected = str(MissingExtraError("onnxruntime", "cpu"))
    assert run_python(code).stdout.strip() == f"MissingExtraError {expected}"


def test_an_empty_folder_left_by_the_other_wheel(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    code = """
import sys
from pathlib import Path
sys.path[:] = [sys.argv[1]] + [folder for folder in sys.path if not (Path(folder) / "onnxruntime").exists()]
from runtime import devices
try:
    devices.onnxruntime()
except Exception as error:
    print(type(error).__name__, error)
"""
    done = run_python(code, str(tmp_path))
    assert "DeviceError the folder of onnxruntime is there but empty" in done.stdout, done.stderr


# --- a real GPU ----------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu() -> str:
    if "gpu" not in known_devices():
        pytest.skip("onnxruntime was built without a GPU provider (pip install 'edgedl[gpu]')")
    try:
        open_session(PROBE_GRAPH, "gpu")
    except EdgedlError as error:
        pytest.skip(f"no GPU starts here: {error}")
    return "gpu"


@pytest.mark.gpu
def test_a_graph_really_runs_on_the_gpu(gpu: str, linear_graph: bytes) -> None:
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    engine = Engine(linear_graph, device=gpu)
    assert engine.provider != CPU
    assert engine.session.get_providers()[0] == engine.provider
    parts = engine.session.get_provider_graph_assignment_info()
    assert any(part.ep_name == engine.provider for part in parts)
    # TF32 rounds products to 11 bits; float32 proper is what a parity tolerance was measured for.
    np.testing.assert_allclose(engine.run(x)["y"], Engine(linear_graph).run(x)["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_a_gpu_number_that_does_not_exist_is_an_error(gpu: str) -> None:
    with pytest.raises(DeviceError):
        open_session(PROBE_GRAPH, f"{gpu}:99")


@pytest.mark.gpu
def test_auto_takes_the_gpu(gpu: str) -> None:
    assert open_session(PROBE_GRAPH, "auto").device == gpu


def test_a_damaged_graph_is_the_bundles_fault_not_the_devices(install, monkeypatch: pytest.MonkeyPatch) -> None:
    module = install(listed=(CUDA,), working=(CUDA,))
    real = module.InferenceSession

    def refuse(graph: bytes, *args: Any, **kwargs: Any) -> Any:
        if graph != PROBE_GRAPH:
            raise RuntimeError("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model failed")
        return real(graph, *args, **kwargs)

    monkeypatch.setattr(module, "InferenceSession", refuse)
    with pytest.raises(BundleError, match=r"cannot load the graph: .*Load model failed"):
        open_session(b"broken", "gpu")


_MEMORY = """
import sys
import onnxruntime as ort
from runtime.devices import PROBE_GRAPH
from runtime.engine import Engine

if sys.argv[1] == "registered before":
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg({"arena_extend_strategy": 0}))
else:
    import runtime.devices
    registered = []
    ort.create_and_register_allocator = lambda memory, config: registered.append((memory.name, config.arena_extend_strategy))
import numpy
engines = [Engine(PROBE_GRAPH, name="probe") for _ in range(2)]
for engine in engines:
    options = engine.session.get_session_options()
    print(options.enable_mem_pattern, options.get_session_config_entry("session.use_env_allocators"),
          float(engine.run(numpy.ones((1, 1, 4, 4), numpy.float32))["y"].sum()))
if sys.argv[1] != "registered before":
    print(registered)
"""  # noqa: E501


def test_all_sessions_share_memory_that_grows_by_what_is_asked_for() -> None:
    """One allocator for the process, registered once, and no block laid out for every shape seen."""
    done = run_python(_MEMORY, "fresh")
    assert done.stdout.splitlines() == ["False 1 32.0", "False 1 32.0", "[('Cpu', 1)]"], done.stderr


def test_an_allocator_that_the_process_has_already_serves() -> None:
    done = run_python(_MEMORY, "registered before")
    assert done.stdout.splitlines() == ["False 1 32.0", "False 1 32.0"], done.stderr


_LOADED = """
import sys
from pathlib import Path
import numpy, onnx
from onnx import helper, numpy_helper, TensorProto

weights = [numpy_helper.from_array(numpy.random.default_rng(i).random((1024, 1024), numpy.float32), f"w{i}") for i in range(24)]
nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(24)]
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1024])
graph = helper.make_graph(nodes, "wide", [value("x0")], [value("x24")], weights)
Path(sys.argv[1]).write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString())
"""  # noqa: E501

_RESIDENT = """
import re, sys
from pathlib import Path
from runtime.devices import PROBE_GRAPH
from runtime.engine import Engine

def resident():
    return int(re.search(r"VmRSS:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
Engine(PROBE_GRAPH, name="probe")
before = resident()
engine = Engine(Path(sys.argv[1]).read_bytes(), threads=1, name="wide")
print(resident() - before)
"""


def test_loading_leaves_little_more_than_the_weights(tmp_path: Path) -> None:
    """96 MiB of weights; what reading and parsing took beside them is given back."""
    done = run_python(_LOADED, str(tmp_path / "wide.onnx"))
    assert not done.stderr
    done = run_python(_RESIDENT, str(tmp_path / "wide.onnx"))
    assert 90 < float(done.stdout) < 110, done.stderr
