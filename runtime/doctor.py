"""What is wrong with this installation, and how to mend it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from runtime.bundle import Bundle
from runtime.devices import ProviderStatus, known_devices, onnxruntime, probe
from runtime.errors import EdgedlError
from runtime.machine import installed, processor_name
from runtime.parts import shadowed
from runtime.threads import ThreadBudget, thread_budget

# Wheels that install the same top-level folder: the one installed last wins, and removing one breaks the other.
_ONNXRUNTIME_WHEELS = re.compile(r"onnxruntime([-_.](gpu|directml|openvino|qnn|rocm|migraphx|silicon|azure|training))?"
                                 r"|ort[-_.]nightly([-_.]\w+)?")  # fmt: skip
_OPENCV_WHEELS = re.compile(r"opencv[-_.](contrib[-_.])?python([-_.]headless)?")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what was found, whether that is well, and what to do if not."""

    name: str
    ok: bool
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All checks; ``ok`` when every one is."""

    ok: bool
    checks: tuple[Check, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        lines = []
        for check in self.checks:
            lines.append(f"{'ok   ' if check.ok else 'WRONG'}  {check.name:<{width}}  {check.found}")
            if check.advice:
                lines.append(f"{'':{width + 9}}{check.advice}")
        return "\n".join(lines)


def diagnose(
    *,
    distributions: Callable[[], Iterable[str]] | None = None,
    start_providers: Callable[[], list[ProviderStatus]] = probe,
    bundles: Sequence[str | os.PathLike[str]] = (),
    reprove: bool = False,
) -> Report:
    """Looks at versions, providers, wheels, threads, telemetry, OpenCV, shadowed packages and proofs of bundles.

    Args:
        distributions: names the installed distributions; None asks importlib.metadata.
        start_providers: starts every provider; the default does so in child processes.
        bundles: of each, whether a proof was made with this ONNX Runtime on this class of processor.
        reprove: replay all recorded cases of each, and add a proof.

    Raises:
        BundleError: one of the bundles cannot be read.
    """
    names = sorted({_normal(name) for name in (distributions or _distributions)()})
    checks = [_python(), _numpy(), _wheels("onnxruntime wheels", _ONNXRUNTIME_WHEELS, names, "cpu")]
    try:
        ort = onnxruntime()
    except EdgedlError as error:
        checks.append(Check("onnxruntime", False, str(error), "pip install 'edgedl[cpu]'"))
    else:
        checks.append(Check("onnxruntime", True, f"{ort.__version__}"))
        checks += [_telemetry(), *_providers(start_providers())]
    checks += [_opencv(names), _threads(thread_budget()), _parts(shadowed())]
    checks += [_proven(Bundle.open(path), reprove) for path in bundles]
    return Report(all(check.ok for check in checks), tuple(checks))


def _python() -> Check:
    return Check("python", True, f"{platform.python_version()} on {platform.machine()}, {processor_name()}")


def _numpy() -> Check:
    return Check("numpy", True, installed("numpy") or "installed without metadata")


def _wheels(title: str, pattern: re.Pattern[str], names: Iterable[str], extra: str) -> Check:
    found = [name for name in names if pattern.fullmatch(name)]
    if len(found) > 1:
        return Check(
            title,
            False,
            f"{' and '.join(found)} are both installed; they share one folder, and only the last one works",
            f"pip uninstall {' '.join(found)} && pip install 'edgedl[{extra}]'",
        )
    return Check(title, True, found[0] if found else "none through pip")


def _telemetry() -> Check:
    value = os.environ.get("ORT_DISABLE_TELEMETRY")
    if value == "1":
        return Check("telemetry", True, "off (ORT_DISABLE_TELEMETRY=1)")
    return Check("telemetry", False, f"on (ORT_DISABLE_TELEMETRY={value})", "unset the variable or set it to 1")


def _providers(statuses: Iterable[ProviderStatus]) -> list[Check]:
    devices = known_devices()
    # What `cpu` and `gpu` stand for has to start. The GPU wheel also carries TensorRT, which few machines have.
    needed = {devices[name] for name in ("cpu", "gpu") if name in devices}
    checks = []
    for status in statuses:
        title = f"device {status.device}"
        if status.ok:
            checks.append(Check(title, True, f"{status.provider} starts"))
        elif status.provider in needed:
            advice = "pip install 'edgedl[gpu]' brings NVIDIA's libraries; without a GPU use 'edgedl[cpu]'"
            checks.append(Check(title, False, status.reason, advice if status.device != "cpu" else "reinstall"))
        else:
            checks.append(Check(title, True, f"not usable here: {status.reason}"))
    return checks


def _opencv(names: Iterable[str]) -> Check:
    wheels = _wheels("opencv", _OPENCV_WHEELS, names, "media")
    if not wheels.ok:
        return wheels
    if importlib.util.find_spec("cv2") is None:
        return Check("opencv", True, "not installed", "to read photos: pip install 'edgedl[media]'")
    version = next((installed(name) for name in names if _OPENCV_WHEELS.fullmatch(name)), None)
    return Check("opencv", True, f"{wheels.found} {version or ''}".strip())


def _threads(budget: ThreadBudget) -> Check:
    quota = "no quota" if budget.quota is None else f"a quota of {budget.quota:g}"
    return Check(
        "threads",
        True,
        f"{budget.chosen} chosen: {budget.host} processors, {budget.affinity} allowed, {budget.cores} cores, {quota}",
    )


def _parts(problems: list[str]) -> Check:
    if problems:
        return Check("packages", False, "; ".join(problems), "see above which folder to rename or remove")
    return Check("packages", True, "edgedl, exporters, runtime and service are edgedl's own")


def _proven(bundle: Bundle, reprove: bool) -> Check:
    """Whether a proof speaks of this place."""
    from runtime.pipelines import pipeline_class
    from runtime.place import Place, last_proof, told_unproven  # here, because they need onnxruntime

    title = f"bundle {bundle.manifest.name}"
    if reprove:
        from runtime.door import Door
        from runtime.reprove import reprove as prove_here

        try:
            with pipeline_class(bundle.manifest.task).open(bundle) as pipeline:
                proof = prove_here(Door(bundle, pipeline.engines), bundle)
        except EdgedlError as error:
            return Check(title, False, str(error))
        return Check(
            title, True, f"proven now: {proof.cases} recorded cases, at most {proof.share or 0:.2g} of the tolerance"
        )
    place = Place.here()
    last = last_proof(bundle, place, "fp32")
    told = told_unproven(bundle, place, last)
    if told is not None:
        found, _, advice = told.partition(". ")
        return Check(title, False, found, advice)
    if last is None:
        return Check(title, True, "no proof lies beside it", f"to prove it here: edgedl doctor {bundle.path} --reprove")
    return Check(title, True, f"proven with ONNX Runtime {last.onnxruntime} on {last.processor}, {last.date}")


def _distributions() -> Iterable[str]:
    return [distribution.name or "" for distribution in importlib.metadata.distributions()]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
