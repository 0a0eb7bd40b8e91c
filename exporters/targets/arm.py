"""ARM processors under qemu's user emulation: ``arm64/cortex-a72`` and its kin, and ``armhf`` for 32 bits.

The system is a folder of Debian's packages, taken from where this machine takes its own. On arm64 numpy and ONNX
Runtime are the wheels of the package index. On armhf, for which there are none, they are Debian's. Emulation proves
arithmetic and linking. Whether ONNX Runtime knows a real board's processor is not proven by it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporters.cache import made_once
from exporters.targets.base import TargetError
from exporters.targets.child import BOOT
from exporters.targets.process import ProcessTarget
from exporters.targets.setup import install, run, target_folder
from runtime.machine import installed

SUITE = "trixie"
"""The release of Debian; the first that has ONNX Runtime for 32-bit ARM."""

_WHEELS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
_ROOT_S = 900


@dataclass(frozen=True, slots=True)
class _Processor:
    """What a processor is called, and what Linux says of it.

    Without this text ONNX Runtime's look at ``/proc/cpuinfo`` ends the process under emulation, because it finds the
    host's there.
    """

    architecture: str
    model: str
    features: str
    level: int
    part: str


_A53 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_A76 = f"{_A53} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
_A7 = "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm"
ARM = {
    "arm64/cortex-a53": _Processor("arm64", "Cortex-A53", _A53, 8, "0xd03"),
    "arm64/cortex-a72": _Processor("arm64", "Cortex-A72", _A53, 8, "0xd08"),
    "arm64/cortex-a76": _Processor("arm64", "Cortex-A76", _A76, 8, "0xd0b"),
    "armhf": _Processor("armhf", "Cortex-A7", _A7, 7, "0xc07"),
}
"""Targets by name."""

ARM64 = "arm64/cortex-a72"
"""What ``arm64`` alone means."""

_EMULATORS = {
    "arm64": ("qemu-aarch64-static", "qemu-aarch64"),
    "armhf": ("qemu-arm-static", "qemu-arm"),
}
_PACKAGES = {"arm64": "python3,libstdc++6", "armhf": "python3-onnxruntime"}


class ArmTarget(ProcessTarget):
    """An emulated ARM processor; the name is a key of `ARM`."""

    emulated = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._processor = ARM[name]

    def set_up(self) -> None:
        """Makes the system, fetches the wheels, and writes what the processor says of itself."""
        self._emulator()
        made_once(self._system, self._make_system)
        if self._processor.architecture == "arm64":
            made_once(self._wheels, self._fetch_wheels)
        made_once(self._root, self._make_root)

    def command(self) -> Sequence[str]:
        """See `ProcessTarget.command`."""
        processor = self._processor.model.lower()
        python = self._system / "usr" / "bin" / self._python
        return [self._emulator(), "-cpu", processor, "-L", str(self._root), str(python), "-S", "-P", "-c", BOOT]

    def environment(self) -> Mapping[str, str]:
        """See `ProcessTarget.environment`."""
        library = self._system / "usr" / "lib"
        if self._processor.architecture == "arm64":
            return {**os.environ, "PYTHONPATH": str(self._wheels)}
        # The packages are unpacked and not configured, so that nothing says which BLAS is the system's.
        places = [str(library / "arm-linux-gnueabihf" / name) for name in ("blas", "lapack")]
        return {
            **os.environ,
            "PYTHONPATH": str(library / "python3" / "dist-packages"),
            "LD_LIBRARY_PATH": os.pathsep.join(places),
        }

    def _emulator(self) -> str:
        names = _EMULATORS[self._processor.architecture]
        found = next((name for name in names if shutil.which(name)), None)
        if found is None:
            raise TargetError(
                f"{self.name} runs under {names[1]}, which is not installed; on Debian and Ubuntu: apt-get install "
                "qemu-user-static mmdebstrap"
            )
        return found

    @property
    def _system(self) -> Path:
        return target_folder(f"debian-{SUITE}-{self._processor.architecture}")

    @property
    def _root(self) -> Path:
        return target_folder(f"debian-{SUITE}-{self.name.replace('/', '-')}-root")

    @property
    def _wheels(self) -> Path:
        return target_folder(f"onnxruntime-{_release()}-{self._python.replace('.', '')}-aarch64")

    @property
    def _python(self) -> str:
        """The name of the system's Python, e.g. ``python3.13``."""
        return (self._system / "usr" / "bin" / "python3").readlink().name

    def _make_system(self, folder: Path) -> None:
        if shutil.which("mmdebstrap") is None:
            raise TargetError(
                f"{self.name} needs mmdebstrap to unpack a system, and it is not installed; on Debian and Ubuntu: "
                "apt-get install qemu-user-static mmdebstrap"
            )
        architecture = self._processor.architecture
        options = ["--variant=extract", f"--architectures={architecture}", f"--include={_PACKAGES[architecture]}"]
        command = ["mmdebstrap", "--quiet", *options, SUITE, str(folder), *_mirrors()]
        run(command, f"{self.name}: mmdebstrap cannot unpack Debian's packages", _ROOT_S)

    def _fetch_wheels(self, folder: Path) -> None:
        install(
            [f"onnxruntime=={_release()}", "numpy"],
            folder,
            platforms=_WHEELS,
            python=self._python.removeprefix("python"),
        )

    def _make_root(self, folder: Path) -> None:
        """What the emulator lays over this machine's files: the system's own, and another ``/proc/cpuinfo``."""
        (folder / "usr").symlink_to(self._system / "usr")
        (folder / "lib").symlink_to(self._system / "usr" / "lib")
        (folder / "proc").mkdir()
        one = self._processor
        lines = {
            "processor": "0",
            "model name": one.model,
            "BogoMIPS": "38.40",
            "Features": one.features,
            "CPU implementer": "0x41",
            "CPU architecture": str(one.level),
            "CPU variant": "0x0",
            "CPU part": one.part,
            "CPU revision": "4",
        }
        text = "".join(f"{key}\t: {value}\n" for key, value in lines.items())
        (folder / "proc" / "cpuinfo").write_text(f"{text}\n", encoding="utf-8")


def _release() -> str:
    """The release of ONNX Runtime: the one that is installed here, so that only the processor differs."""
    found = installed("onnxruntime") or installed("onnxruntime-gpu")
    if found is None:
        raise TargetError("onnxruntime is not installed here, so nothing says which release the target should have")
    return found


def _mirrors() -> list[str]:
    """Where this machine takes Debian's packages from; empty where it does not say, then mmdebstrap knows."""
    command = ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.split(" ", 1)[1] for line in told.splitlines() if line.startswith("Debian ")][:1]
