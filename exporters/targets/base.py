"""What a target is: a place with an ONNX Runtime of its own that answers as a session does.

A target only runs. Inputs are checked and answers compared on this machine, by the code that `verify` uses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from runtime.errors import DeviceError

Feed = Mapping[str, NDArray[Any]]


class TargetError(DeviceError):
    """A target cannot be had: what is missing, or where it was lost."""


@dataclass(frozen=True, slots=True)
class TargetMachine:
    """What stands behind a target.

    Attributes:
        onnxruntime: Its version there, e.g. ``1.32.0``; other builds name themselves, e.g. ``web 1.30.0``.
        processor: The processor's name as the system there gives it.
        processor_class: As far as answers in int8 depend on it, see `runtime.processor`.
        system: The operating system and the language that runs the graph, e.g. ``Linux, Python 3.13.5``.
    """

    onnxruntime: str
    processor: str
    processor_class: str
    system: str


@dataclass(frozen=True, slots=True)
class CallTimes:
    """How long a graph takes on a target. Times are in seconds.

    Attributes:
        first: From the graph's bytes to the first answer.
        calls: Each of the calls after it.
        memory_mb: The most memory that the process there held; None where it cannot be told.
    """

    first: float
    calls: tuple[float, ...]
    memory_mb: float | None = None


class RemoteSession(ABC):
    """A graph that is open on a target. `run` gives exactly what a session of ONNX Runtime gives."""

    @abstractmethod
    def run(self, names: Sequence[str], feed: Feed) -> list[Any]:
        """Runs the graph once.

        Args:
            names: The outputs that are asked for.
            feed: The inputs by name.

        Returns:
            The outputs in the order of their names.

        Raises:
            TargetError: the target refused the call, or was lost.
        """

    def times(self, feed: Feed, calls: int) -> CallTimes | None:
        """How long calls with these inputs take there; None where that cannot be told."""
        return None

    def close(self) -> None:
        """Lets the graph go."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Target(ABC):
    """A place that runs graphs. Entering it opens it, leaving it closes it.

    Attributes:
        name: As it is asked for and written into proofs: ``arm64/cortex-a72``, ``node``, ``onnxruntime==1.17.3`` …
        emulated: Whether its processor is emulated. Then its arithmetic means something, and its speed nothing.
    """

    name: str
    emulated: bool = False

    @abstractmethod
    def open(self) -> None:
        """Sets the target up where that was not done before, and starts what runs there.

        Raises:
            TargetError: something is missing; the message says what.
        """

    @abstractmethod
    def machine(self) -> TargetMachine:
        """What stands behind it; the target is open."""

    @abstractmethod
    def session(self, graph: bytes) -> RemoteSession:
        """Opens a graph there.

        Args:
            graph: The ONNX file; it holds all its weights.

        Raises:
            TargetError: the runtime there cannot load it.
        """

    def lost(self) -> str:
        """Why the target can be asked no more, e.g. that a connection was cut; empty while it can.

        A process that a graph has ended is no loss: that is an answer to the question whether the graph runs there.
        """
        return ""

    def close(self) -> None:
        """Ends what runs there. What was set up stays."""
        return

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
