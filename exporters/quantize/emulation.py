"""A graph that answers as on another class of processor: an emulated target, see `exporters.targets`.

So decisions on x86 without VNNI, and on ARM, are counted on another machine. Speed under emulation means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from exporters.quantize.inputs import Feed
from exporters.targets.known import find_target
from runtime.errors import DeviceError

EMULATORS = {"avx2": "x86_64/haswell", "arm": "arm64/cortex-a72", "arm-dot": "arm64/cortex-a76"}
"""Classes of `runtime.processor` that can be had by emulation, and the target that has them."""


class EmulatedSession:
    """Runs a graph under emulation; takes the place of an engine's session, see `runtime.engine.Engine.through`.

    Args:
        graph: The ONNX file.
        kind: The class of processor, a key of `EMULATORS`.

    Raises:
        DeviceError: there is no such emulator here, or it does not give that class.
    """

    def __init__(self, graph: bytes, kind: str) -> None:
        if kind not in EMULATORS:
            raise DeviceError(
                f"no emulator is known for processors of the class {kind!r}; there is {', '.join(EMULATORS)}"
            )
        self._target = find_target(EMULATORS[kind])
        self._target.open()
        try:
            found = self._target.machine().processor_class
            if found != kind:
                raise DeviceError(f"{self._target.name} is a processor of the class {found}, expected {kind}")
            self._session = self._target.session(graph)
        except BaseException:
            self.close()
            raise

    def run(self, names: Sequence[str], feed: Feed) -> list[Any]:
        """Runs the graph once, as a session does."""
        return self._session.run(names, feed)

    def close(self) -> None:
        """Ends the child process."""
        self._target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
