"""From a device's name to an ONNX Runtime session that really runs there.

ONNX Runtime falls back to the CPU in silence: a CUDA provider that cannot load its libraries leaves a line on standard
error, and ``get_available_providers()`` goes on naming it. Here a device that was asked for by name either runs or is
a ``DeviceError`` with the reason; only ``auto`` may choose, and it says what it took.

This module owns the only import of onnxruntime, so that telemetry is off before it happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from runtime.errors import BundleError, DeviceError, InputError, MissingExtraError
from runtime.external import refuse_files
from runtime.memory import give_back
from runtime.session import SessionSettings, split_device
from runtime.threads import default_threads

if TYPE_CHECKING:
    from logging import Logger

CPU = "CPUExecutionProvider"
_SUFFIX = "ExecutionProvider"

# What people call a device -> the providers that may stand behind the name, the first one present wins.
_NAMES: dict[str, tuple[str, ...]] = {
    "cpu": (CPU,),
    "gpu": ("CUDAExecutionProvider", "MIGraphXExecutionProvider", "ROCMExecutionProvider", "DmlExecutionProvider"),
    "npu": ("QNNExecutionProvider", "VitisAIExecutionProvider", "RknpuExecutionProvider", "VSINPUExecutionProvider"),
}
_NOT_A_DEVICE = frozenset(("AzureExecutionProvider",))  # sends the data to a web service
_WITH_INDEX = frozenset(("CUDAExecutionProvider", "TensorrtExecutionProvider", "MIGraphXExecutionProvider",
                         "ROCMExecutionProvider", "DmlExecutionProvider"))  # fmt: skip
_AS_REQUESTED = 1
"""onnxruntime's kSameAsRequested."""
_LARGE_GRAPH = 32 << 20
"""Bytes of a graph after which memory is given back at once. It takes some milliseconds."""

_NOT_STARTED = (126, 127)
"""What a child ends with where its program cannot be run."""

_HEAVY = frozenset(
    ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Attention", "QLinearConv", "MatMulInteger")
)

# The ONNX graph y = Conv(x, w), x and y float32 [1, 1, 4, 4], w = 2, opset 13, IR version 7: every provider has Conv.
PROBE_GRAPH = (
    b'\x08\x07:g\n\x0f\n\x01x\n\x01w\x12\x01y"\x04Conv\x12\x05probe*\x13\x08\x01\x08\x01\x08\x01\x08\x01\x10\x01B\x01w'
    b"J\x04\x00\x00\x00@Z\x1b\n\x01x\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x04\n\x02\x08"
    b"\x04b\x1b\n\x01y\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x04\n\x02\x08\x04B\x04\n\x00"
    b"\x10\r"
)


class ProviderConfig(NamedTuple):
    """One way to run: the name of the device, its execution provider and that provider's options."""

    device: str
    provider: str
    options: dict[str, str]


class OpenedSession(NamedTuple):
    """A session, the device that it runs on and the provider behind it."""

    session: Any
    device: str
    provider: str


class ProviderStatus(NamedTuple):
    """Whether a provider really starts on this machine, and why not."""

    device: str
    provider: str
    ok: bool
    reason: str = ""


@cache
def onnxruntime() -> ModuleType:
    """Imports onnxruntime with its telemetry switched off.

    Raises:
        MissingExtraError: it is not installed.
        DeviceError: it is there but broken.
    """
    # From 1.29 on the Linux wheels write to ~/.cache/Microsoft and look up a collector, unless this is set by then.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime as module
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "onnxruntime":
            raise MissingExtraError("onnxruntime", "cpu") from error
        raise DeviceError(f"onnxruntime cannot be imported: {error}") from error
    except ImportError as error:
        raise DeviceError(f"onnxruntime cannot be imported: {error}; reinstall it") from error
    if not hasattr(module, "InferenceSession"):
        # What is left when one of the two wheels was removed: they share the folder.
        raise DeviceError(
            "the folder of onnxruntime is there but empty, as after removing one of two wheels; "
            "pip install --force-reinstall onnxruntime (or onnxruntime-gpu)"
        )
    _share_one_arena(module)
    return cast("ModuleType", module)


def _logger() -> Logger:
    import logging  # here, because a device that does what it is asked to says nothing

    return logging.getLogger("edgedl.devices")


def _share_one_arena(ort: Any) -> None:
    """One pool of memory for all sessions of the process, which grows by what a tensor takes.

    By default each session has its own, which doubles as it grows, and lays out a block for each shape that it has
    seen (`_options` turns that off). A captioner of 8 frames took 387 MB that way and takes 321, in the same time.
    """
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    # Another part of the process may have registered its own: then that one serves.
    with contextlib.suppress(RuntimeError):
        ort.create_and_register_allocator(memory, ort.OrtArenaCfg({"arena_extend_strategy": _AS_REQUESTED}))


def known_devices() -> dict[str, str]:
    """The devices that this onnxruntime offers and the provider behind each; whether they start is `probe`'s work."""
    available = [name for name in onnxruntime().get_available_providers() if name not in _NOT_A_DEVICE]
    devices = {_short(provider): provider for provider in available}
    for name, candidates in _NAMES.items():
        present = [provider for provider in candidates if provider in available]
        if present:
            devices[name] = present[0]
    return devices


def resolve(device: str) -> list[ProviderConfig]:
    """The providers to try for a device, in order. All but ``auto`` give exactly one.

    Args:
        device: ``cpu``, ``gpu``, ``npu``, ``auto``, or a provider's short name (``cuda``, ``tensorrt``, ``coreml``,
            ``openvino``, ``qnn``, ``xnnpack``, ``dml`` …); ``gpu:1`` is the second one. Settings that follow, see
            `runtime.session`, do not matter here.

    Raises:
        DeviceError: nobody knows a device of this name, or this onnxruntime was built without it.
        InputError: a number after the colon where it means nothing.
    """
    name, _, index = split_device(device)[0].partition(":")
    devices = known_devices()
    if name == "auto" and not index:
        accelerators = [ProviderConfig("gpu", devices["gpu"], {})] if "gpu" in devices else []
        return [*accelerators, ProviderConfig("cpu", CPU, {})]
    if name not in devices:
        everywhere = {
            _short(provider) for provider in onnxruntime().get_all_providers() if provider not in _NOT_A_DEVICE
        }
        here = ", ".join(sorted(devices))
        if name not in everywhere | set(_NAMES):
            raise DeviceError(f"unknown device {device!r}; here are: auto, {here}")
        raise DeviceError(
            f"device {device!r} needs {_wanted(name)}, which onnxruntime {onnxruntime().__version__} here was built "
            f"without; it offers {here}.{_advice(name)}"
        )
    provider = devices[name]
    if not index:
        return [ProviderConfig(name, provider, {})]
    if not index.isdecimal() or provider not in _WITH_INDEX:
        raise InputError(f"device {device!r}: a number after the colon chooses among several GPUs, e.g. gpu:1")
    return [ProviderConfig(f"{name}:{int(index)}", provider, {"device_id": str(int(index))})]


def open_session(graph: bytes | os.PathLike[str], device: str = "cpu", threads: int | None = None) -> OpenedSession:
    """Opens an ONNX graph on a device, strictly.

    A graph in memory must hold all its weights: ONNX Runtime would otherwise read files named in the graph from the
    working directory, so it is pointed to a folder that does not exist (heeded from onnxruntime 1.21 on).

    Raises:
        InputError: an impossible number of threads.
        DeviceError: the device cannot be had; the message gives the reason.
        BundleError: the graph itself cannot be loaded.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}, expected at least 1")
    count = default_threads() if threads is None else threads
    asked, settings = split_device(device)
    candidates = resolve(device)
    for candidate in candidates[:-1]:
        try:
            opened = _open(graph, candidate, count, settings)
        except DeviceError as error:
            _logger().warning("device auto: %s", error)
        else:
            _logger().warning("device auto: took %s (%s)", opened.device, opened.provider)
            return opened
    opened = _open(graph, candidates[-1], count, settings)
    if asked == "auto":
        _logger().warning("device auto: took %s (%s)", opened.device, opened.provider)
    return opened


def probe() -> list[ProviderStatus]:
    """Starts every provider that this onnxruntime offers on a tiny graph, each in a process of its own."""
    seen: dict[str, str] = {}
    for device, provider in known_devices().items():
        seen.setdefault(provider, device)
    return [_probe_one(device, provider) for provider, device in seen.items()]


def probe_here(device: str) -> None:
    """Starts a device on the tiny graph in this process and checks the answer.

    Raises:
        DeviceError: it does not start or answers wrongly.
    """
    import numpy as np

    session = open_session(PROBE_GRAPH, device, 1).session
    values = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    answer = session.run(["y"], {"x": values})[0]
    if not np.array_equal(answer, 2 * values):
        raise DeviceError(f"device {device!r} starts but computes wrongly: 2 * x came out as {answer.ravel()[:4]}…")


def _probe_one(device: str, provider: str) -> ProviderStatus:
    from subprocess import TimeoutExpired  # here, because only `doctor` and its like start processes

    from runtime.child import run_forked, run_python

    code = "import sys; from runtime.devices import probe_here\ntry: probe_here(sys.argv[1])\n"
    code += "except Exception as error: sys.exit('edgedl: ' + str(error))"
    try:
        done = run_python(code, device)
        status, reason = done.returncode, done.stderr.rpartition("edgedl: ")
        told = reason[2].strip() if reason[1] else ""
        if status in _NOT_STARTED and hasattr(os, "fork"):
            status, told = run_forked(lambda: probe_here(device))
    except TimeoutExpired:
        return ProviderStatus(device, provider, False, "does not answer within two minutes")
    if status == 0:
        return ProviderStatus(device, provider, True)
    return ProviderStatus(device, provider, False, told or f"the process ended with status {status}")


def _open(
    graph: bytes | os.PathLike[str], config: ProviderConfig, threads: int, settings: SessionSettings
) -> OpenedSession:
    if config.provider == CPU:
        return OpenedSession(_create(graph, [CPU], _options(graph, threads, settings)), config.device, CPU)
    return OpenedSession(_open_accelerator(graph, config, threads, settings), config.device, config.provider)


def _open_accelerator(
    graph: bytes | os.PathLike[str], config: ProviderConfig, threads: int, settings: SessionSettings
) -> Any:
    """Proves that the provider starts, then gives it the graph."""
    ort = onnxruntime()
    if config.provider in ("CUDAExecutionProvider", "TensorrtExecutionProvider") and hasattr(ort, "preload_dlls"):
        # Finds the CUDA libraries that pip installed. It prints what it misses, and standard output is not its place.
        with contextlib.redirect_stdout(io.StringIO()) as said:
            ort.preload_dlls()
        if said.getvalue():
            _logger().debug("preload_dlls: %s", said.getvalue().strip())
    entry = [(config.provider, config.options)]
    strict = _options(PROBE_GRAPH, threads, settings)
    strict.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        trial = _create(PROBE_GRAPH, entry, strict)
    except BundleError as error:
        raise DeviceError(
            f"device {config.device!r} ({config.provider}) cannot start: {_reason(config, error)}"
        ) from error
    _check_providers(trial, config)

    # The provider works. Nodes that compute shapes belong on the CPU even then, so the whole graph is not held to
    # the strict option; it is looked at instead which nodes went where.
    options = _options(graph, threads, settings)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = _create(graph, [*entry, CPU], options)
    _check_providers(session, config)
    _check_assignment(session, config)
    return session


def _check_providers(session: Any, config: ProviderConfig) -> None:
    found = session.get_providers()
    if not found or found[0] != config.provider:
        raise DeviceError(
            f"device {config.device!r} ({config.provider}) did not start: ONNX Runtime fell back to "
            f"{', '.join(found)}; {_reason(config, None)}"
        )


def _check_assignment(session: Any, config: ProviderConfig) -> None:
    """Refuses a session in which the device got nothing, and tells when arithmetic was left to the CPU."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return  # onnxruntime before 1.24 cannot tell
    device_nodes, left_behind = 0, []
    for part in session.get_provider_graph_assignment_info():
        operators = [node.op_type for node in part.get_nodes()]
        if part.ep_name == config.provider:
            device_nodes += len(operators)
        else:
            left_behind += operators
    if not device_nodes:
        raise DeviceError(
            f"device {config.device!r} ({config.provider}) starts, but takes none of the {len(left_behind)} nodes of "
            "this graph; use --device cpu"
        )
    heavy = sorted(_HEAVY.intersection(left_behind))
    if heavy:
        _logger().warning(
            "device %s: %d of %d nodes stay on the cpu, %s among them",
            config.device, len(left_behind), len(left_behind) + device_nodes, ", ".join(heavy),
        )  # fmt: skip


def _options(graph: bytes | os.PathLike[str], threads: int, settings: SessionSettings) -> Any:
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False
    settings.apply(options, ort)
    options.log_severity_level = 4  # what fails is raised; a second copy on standard error helps nobody
    if isinstance(graph, bytes):
        nowhere = Path(__file__).resolve() / "no-external-data"  # a file is no folder: this can never exist
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(nowhere))
    return options


def _create(graph: bytes | os.PathLike[str], providers: Sequence[Any], options: Any) -> Any:
    if isinstance(graph, bytes):
        refuse_files(graph, str(onnxruntime().__version__))
    try:
        # Without enable_fallback=0 a session that fails, now or in a later call, moves to the CPU by itself.
        session = onnxruntime().InferenceSession(
            graph if isinstance(graph, bytes) else os.fspath(graph), options, providers=providers, enable_fallback=0
        )
    # onnxruntime raises a class of its own per status code, all unrelated.
    except Exception as error:
        raise BundleError(f"ONNX Runtime cannot load the graph: {first_line(error)}") from error
    # Kept for that fallback only, and as large as the weights.
    session._model_bytes = None
    # What a smaller one leaves is of use to the next; `Pipeline` gives it back once all are open.
    if not isinstance(graph, bytes) or len(graph) >= _LARGE_GRAPH:
        give_back()
    return session


def _reason(config: ProviderConfig, error: BundleError | None) -> str:
    """Why a provider does not start, in the words of the system's loader where it knows."""
    if config.provider in ("CUDAExecutionProvider", "TensorrtExecutionProvider"):
        folder = Path(onnxruntime().__file__ or "").parent / "capi"
        library = folder / f"libonnxruntime_providers_{_short(config.provider)}.so"
        if library.exists():
            try:
                ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
                ctypes.CDLL(str(library))
            except OSError as problem:
                return f"{problem}; pip install 'edgedl[gpu]' brings NVIDIA's libraries"
        if not (Path("/dev/nvidiactl").exists() or os.name == "nt" or Path("/dev/dxg").exists()):
            return "no NVIDIA driver on this machine (/dev/nvidiactl is missing)"
    return str(error) if error else "see the lines of onnxruntime on standard error"


def first_line(error: Exception) -> str:
    """What an exception of onnxruntime says, without the code in front."""
    text = str(error).strip().splitlines()
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", text[0]) if text else type(error).__name__


def _short(provider: str) -> str:
    return provider.removesuffix(_SUFFIX).lower()


def _wanted(name: str) -> str:
    return " or ".join(_NAMES.get(name, (f"the {name} execution provider",)))


def _advice(name: str) -> str:
    if name in ("gpu", "cuda", "tensorrt"):
        return " For NVIDIA GPUs: pip uninstall onnxruntime && pip install 'edgedl[gpu]'"
    return ""
