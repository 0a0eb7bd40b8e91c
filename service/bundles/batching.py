"""The batching queue: a thread runs a bundle, and takes together what has gathered while it was busy.

Nobody waits for a batch to fill. The thread takes what is there, runs it, and looks again; the busier the service, the
larger its batches. Each bundle has a queue of its own, so one that is asked too much refuses its own requests only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Lock, Semaphore, Thread
from typing import Any

from service.problems import Problem
from service.visits import Visit

CAPACITY = 256
"""Calls that may wait for one bundle."""

TOGETHER = 16
"""Calls that are taken at once."""

TIDY_SECONDS = 1.0
"""How often, at most, memory is given back."""


@dataclass(slots=True, eq=False)
class Call:
    """One question to a bundle, and its outcome.

    Attributes:
        source: What the target takes; where `prepare` is given, what that takes.
        model: The graph that is asked; None asks the pipeline.
        options: Of the pipeline.
        prepare: Makes the source, in the thread that runs the bundle.
        render: Makes the outcome of the answer, in the same thread.
        deliver: Told once the outcome is there, in the same thread. It must not block.
        deadline: `time.monotonic` at which nobody waits any more.
        gone: Whoever asked has left; set by any thread.
        outcome: The answer, or what `render` made of it.
        error: Why there is none.
        asked: `time.perf_counter` when it was put into the queue, as for the next two.
        taken: When the bundle's thread took it.
        ended: When its answer was there.
        together: How many calls were taken with it.
        run: Rows of the run that answered it together with others; 0 in all of these but the first, None where it ran
            alone.
        visit: The request that it belongs to.
    """

    source: Any
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Any], Any] | None = None
    render: Callable[[Any, Call], Any] | None = None
    deliver: Callable[[Call], None] | None = None
    deadline: float = float("inf")
    gone: bool = False
    outcome: Any = None
    error: Exception | None = None
    asked: float = 0.0
    taken: float = 0.0
    ended: float = 0.0
    together: int = 1
    run: int | None = None
    visit: Visit | None = None

    def result(self) -> Any:
        """The outcome, or the error, which is raised once and forgotten.

        An error knows the functions that it went through, and with them this call and the picture that it asks about:
        as long as the call knew the error, too, both would wait for the garbage collector.

        Raises:
            Exception: That of the call.
        """
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
            return self.outcome
        finally:
            del error


def busy() -> Problem:
    """503: as many requests wait as may."""
    return Problem(503, "Too many requests wait already; try again soon.", headers={"Retry-After": "1"})


def overdue() -> Problem:
    """503: a request was not answered in time."""
    return Problem(
        503, "The request waited too long for its turn; try again soon.", headers={"Retry-After": "1"}, kind="timeout"
    )


class BatchingQueue:
    """Hands calls to the thread that runs a bundle.

    Attributes:
        capacity: Calls that may wait.
        together: Calls that are taken at once.

    Args:
        run: Answers calls: sets `outcome` or `error` of each. As many threads call it at a time as there are lanes.
        tidy: Gives memory back; called at most once a second, after work that was marked, and by the same thread.
        capacity: Calls that may wait.
        together: Calls that are taken at once.
        lanes: Threads. More than one pays off where a run of the bundle leaves cores idle.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Call]], None],
        *,
        tidy: Callable[[], None] = lambda: None,
        capacity: int = CAPACITY,
        together: int = TOGETHER,
        lanes: int = 1,
    ) -> None:
        self._run_calls, self._tidy = run, tidy
        self.capacity, self.together = capacity, together
        self._waiting: SimpleQueue[Call | None] = SimpleQueue()
        self._lanes = lanes
        self._turns = Semaphore(lanes)  # whoever holds one runs the bundle
        self._starting = Lock()
        self._threads: list[Thread] = []
        self._marked = False
        self._tidied = 0.0
        self._closed = False

    def submit(self, call: Call) -> None:
        """Puts a call into the queue; its `deliver` is told.

        Raises:
            Problem: 503, as many wait as may, or the queue is closed.
        """
        if self._closed:
            raise Problem(503, "This bundle is being replaced; try again.", headers={"Retry-After": "1"})
        if self._waiting.qsize() >= self.capacity:
            raise busy()
        if not self._threads:
            self._start()
        call.asked = time.perf_counter()
        self._waiting.put(call)

    def ask(self, call: Call) -> Any:
        """Answers a call, in this very thread where the bundle is idle.

        Raises:
            Problem: As `submit`.
            Exception: That of the call.
        """
        if not self._closed and self._waiting.empty() and self._turns.acquire(blocking=False):
            try:
                call.asked = time.perf_counter()
                self._answer([call])
            finally:
                self._turns.release()
        else:
            done = Event()
            call.deliver = lambda _call: done.set()
            self.submit(call)
            done.wait()
        return call.result()

    def mark(self) -> None:
        """Says that a request took memory that should go back to the system soon."""
        self._marked = True
        if not self._threads:
            self._start()

    def close(self) -> None:
        """Takes no more calls, and returns when those that were taken are answered."""
        self._closed = True
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()
        for _ in range(self._lanes):  # calls that other threads answer themselves
            self._turns.acquire()
        for _ in range(self._lanes):
            self._turns.release()

    def __len__(self) -> int:
        """Calls that wait."""
        return self._waiting.qsize()

    def _start(self) -> None:
        with self._starting:
            if not self._threads:
                # Daemons: whoever ends the process has seen to it that nothing is left to answer.
                self._threads = [
                    Thread(target=self._work, name="edgedl-bundle", daemon=True) for _ in range(self._lanes)
                ]
                for thread in self._threads:
                    thread.start()

    def _work(self) -> None:
        while True:
            try:
                first = self._waiting.get(timeout=TIDY_SECONDS)
            except Empty:
                self._tidy_if_due()
                continue
            last = self._work_off(first)
            del first  # a picture of a hundred megabytes would stay until the next call
            self._tidy_if_due()
            if last:
                return

    def _work_off(self, first: Call | None) -> bool:
        """Answers a call and what waits with it; gives whether the queue ends there."""
        with self._turns:
            calls, last = self._drained(first)
            self._answer(calls)
        return last

    def _drained(self, first: Call | None) -> tuple[list[Call], bool]:
        """What waits, up to as much as is taken at once, and whether it ends there."""
        # What waits is shared out, so that no lane stands idle.
        most = min(self.together, -(-(self._waiting.qsize() + 1) // self._lanes))
        calls: list[Call] = []
        call = first
        while call is not None:
            calls.append(call)
            if len(calls) == most:
                return calls, False
            try:
                call = self._waiting.get_nowait()
            except Empty:
                return calls, False
        return calls, True

    def _answer(self, calls: Sequence[Call]) -> None:
        now, moment = time.perf_counter(), time.monotonic()
        wanted = []
        for call in calls:
            call.taken = now
            if call.gone:
                call.error = Problem(503, "Nobody waits for this answer any more.")
            elif moment > call.deadline:
                call.error = overdue()
            else:
                wanted.append(call)
        for call in wanted:
            call.together = len(wanted)
        if wanted:
            try:
                self._run_calls(wanted)
            except Exception as error:  # noqa: BLE001 - it goes to whoever asks
                for call in wanted:
                    call.error = call.error or error
        for call in calls:
            if call.deliver is not None:
                call.deliver(call)
        for call in wanted:
            if call.gone:
                call.error = None  # nobody asks for it, see `Call.result`

    def _tidy_if_due(self) -> None:
        now = time.monotonic()
        if self._marked and now - self._tidied >= TIDY_SECONDS:
            self._marked, self._tidied = False, now
            self._tidy()
