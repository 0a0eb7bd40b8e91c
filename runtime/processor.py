"""The class of processor, as far as the answers of a graph in int8 depend on it.

On x86 without VNNI the product of unsigned activations and signed weights is summed in pairs that saturate at 16 bits
(``vpmaddubsw``). Two products of 255·127 then give 32,767 and not 64,770, and decisions change. With VNNI, with SSE
alone and on ARM sums are exact. Flags in ``/proc/cpuinfo`` do not tell what ONNX Runtime uses, and under emulation they
are those of another processor. So a product that saturates is computed and looked at.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from runtime.devices import open_session

# The ONNX graph y = MatMulInteger(x, w), x uint8 [4, 64], w int8 [64, 16], y int32 [4, 16], opset 13, IR version 7.
SATURATION_GRAPH = (
    b'\x08\x07\x12\x00:`\n\x18\n\x01x\n\x01w\x12\x01y"\rMatMulInteger\x12\x05probeZ\x13\n\x01x\x12\x0e\n\x0c\x08\x02\x12'
    b"\x08\n\x02\x08\x04\n\x02\x08@Z\x13\n\x01w\x12\x0e\n\x0c\x08\x03\x12\x08\n\x02\x08@\n\x02\x08\x10b\x13\n\x01y\x12"
    b"\x0e\n\x0c\x08\x06\x12\x08\n\x02\x08\x04\n\x02\x08\x10B\x04\n\x00\x10\r"
)
Session = Any
"""What runs a graph: it has a method ``run(names, feed)``."""

_X86 = frozenset(("x86_64", "amd64", "i386", "i686", "x86"))
_ARM = frozenset(("aarch64", "arm64", "armv7l", "armv8l"))


@cache
def processor_class() -> str:
    """``vnni``, ``avx2`` or ``sse`` on x86, ``arm-dot`` or ``arm``, else the machine's own name.

    ``avx2`` stands for every x86 processor whose sums saturate, those with AVX-512 and without VNNI among them.
    ``arm-dot`` has the dot product of ARMv8.2.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    return class_of(platform.machine(), platform.system(), _flags(), saturates)


def class_of(machine: str, system: str, flags: Collection[str], saturates: Callable[[], bool]) -> str:
    """The class of a processor that may be elsewhere.

    Args:
        machine: What `platform.machine` says there.
        system: What `platform.system` says there.
        flags: What Linux says of the processor there; empty where it says nothing.
        saturates: Tells whether sums saturate there; it is asked on x86 only.
    """
    machine = machine.lower()
    if machine in _X86:
        if saturates():
            return "avx2"
        return "vnni" if "avx2" in flags or not flags else "sse"
    if machine in _ARM:
        return "arm-dot" if "asimddp" in flags or system == "Darwin" else "arm"
    return machine or "unknown"


@cache
def saturates() -> bool:
    """Whether ONNX Runtime's sums of products of uint8 and int8 saturate here."""
    return saturates_on(open_session(SATURATION_GRAPH, "cpu", 1).session)


def saturates_on(session: Session) -> bool:
    """Whether they saturate where this session of `SATURATION_GRAPH` runs."""
    (sums,) = session.run(["y"], {"x": np.full((4, 64), 255, np.uint8), "w": np.full((64, 16), 127, np.int8)})
    return bool((sums != 64 * 255 * 127).any())


@cache
def _flags() -> frozenset[str]:
    """What Linux says of the processor: ``flags`` on x86, ``Features`` on ARM. Empty where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.partition(":")[0].strip() in ("flags", "Features")), "")
    return frozenset(found.partition(":")[2].split())
