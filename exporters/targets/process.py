"""Targets behind a child process: another ONNX Runtime, an emulated processor, a host over ssh, Node.

One process serves all graphs of a target. One that a graph has ended is started again for the next graph.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from exporters.targets.base import CallTimes, Feed, RemoteSession, Target, TargetError, TargetMachine
from exporters.targets.child import Child, program
from runtime.processor import SATURATION_GRAPH, class_of, saturates_on

START_S = 180.0
"""Seconds until a process that tells nothing of its machine is given up."""


class ProcessTarget(Target):
    """A target behind a child process, which is Python unless a class says otherwise."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._child: Child | None = None
        self._told: dict[str, Any] = {}
        self._machine: TargetMachine | None = None
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    @abstractmethod
    def command(self) -> Sequence[str]:
        """How the process is started; it then reads its program, see `exporters.targets.child.BOOT`."""

    def spoken(self) -> bytes:
        """What the process reads before the first message."""
        return program()

    def environment(self) -> Mapping[str, str] | None:
        """The environment of the process; None gives this process's."""
        return None

    def set_up(self) -> None:
        """Makes what the process needs, where it is not there yet."""
        return

    def explain_start(self, problem: str) -> str:
        """What is told where the process does not begin as it should."""
        return f"{self.name}: {problem}"

    def open(self) -> None:
        """See `Target.open`."""
        self.set_up()
        self._running()

    def machine(self) -> TargetMachine:
        """See `Target.machine`."""
        self._running()
        if self._machine is None:
            told = self._told
            self._machine = TargetMachine(
                onnxruntime=told["onnxruntime"],
                processor=told["processor"],
                processor_class=class_of(told["machine"], told["system"], told["flags"], self._saturates),
                system=f"{told['system']} {told['machine']}, {told['language']}",
            )
        return self._machine

    def session(self, graph: bytes) -> RemoteSession:
        """See `Target.session`."""
        child = self._running()
        number = next(self._numbers)
        child.ask({"open": number}, {"graph": np.frombuffer(graph, np.uint8)})
        return GraphSession(child, number)

    def close(self) -> None:
        """See `Target.close`."""
        with self._lock:
            if self._child is not None:
                self._child.close()
                self._child = None

    def _saturates(self) -> bool:
        with self.session(SATURATION_GRAPH) as session:
            return saturates_on(session)

    def _running(self) -> Child:
        with self._lock:
            if self._child is not None:
                if self._child.alive:
                    return self._child
                self._child.close()
            self._child = child = Child(self.command(), self.environment(), self.spoken())
            try:
                self._told = child.ask(None, seconds=START_S)[0]["machine"]
            except TargetError as error:
                child.close()
                self._child = None
                raise TargetError(self.explain_start(str(error))) from error
            return child


class Peer(Protocol):
    """What answers messages: a child process, or a page in a browser."""

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""

    def ask(self, header: Mapping[str, Any], tensors: Feed | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `exporters.targets.child.Child.ask`."""


class GraphSession(RemoteSession):
    """A graph that is open in a child process or a page, under a number."""

    def __init__(self, child: Peer, number: int) -> None:
        self._child = child
        self._number = number

    def run(self, names: Sequence[str], feed: Feed) -> list[Any]:
        """See `RemoteSession.run`."""
        _, answers = self._child.ask({"run": self._number, "names": list(names)}, feed)
        return [answers[name] for name in names]

    def times(self, feed: Feed, calls: int) -> CallTimes:
        """See `RemoteSession.times`."""
        told, _ = self._child.ask({"times": self._number, "calls": calls}, feed)
        return CallTimes(told["first"], tuple(told["calls"]), told["memory_mb"])

    def close(self) -> None:
        """Lets the graph go; a process that has ended holds none."""
        if self._child.alive:
            with contextlib.suppress(TargetError):
                self._child.ask({"close": self._number})
