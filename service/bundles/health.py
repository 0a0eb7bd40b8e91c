"""Whether a bundle can answer: a state that is read in a request, and changed beside the requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock

import numpy as np

from runtime.door import Door
from runtime.errors import BundleError, CheckFailedError, InputError
from runtime.pipelines.base import Pipeline
from runtime.reprove import keep_proof
from service.bundles.background import Background
from service.bundles.door import REST, Proving
from service.problems import Problem

LOG = logging.getLogger("edgedl.service")

RETRY_SECONDS = 1.0
"""Between the tries of a broken pipeline, at least."""


class Health:
    """The health of one pipeline.

    When it has been made, the pipeline has answered a grey picture and one recorded case of each model, as recorded.
    The other cases follow in the background. A pipeline that fails one of them is withdrawn and stays so. One that is
    broken, because its engine raises, is tried again in the background until it works.

    Args:
        pipeline: The pipeline.
        name: What messages call it.
        busy: Whether requests are under way.
        reprove: Keep a proof beside the bundle once all cases are replayed, where none speaks of this place.

    Attributes:
        door: What was proven, and what may be stacked.
        failure: Why it cannot answer; None where it can.
        withdrawn: Which recorded answer it does not give; None where it is not withdrawn.
        warm_up_ms: How long the last warm-up took.

    Raises:
        CheckFailedError: A recorded answer differs.
    """

    def __init__(self, pipeline: Pipeline, name: str, busy: Callable[[], bool], *, reprove: bool = False) -> None:
        self._pipeline, self._name, self._busy = pipeline, name, busy
        self.failure: str | None = None
        self.withdrawn: str | None = None
        self.warm_up_ms: float | None = None
        self.door = Door(pipeline.bundle, pipeline.engines, pipeline.variant)
        self._retrying = Lock()
        self._threads: tuple[Background, ...] = ()
        try:
            self._answer_once()
            self.door.judge_rows()
        except CheckFailedError:
            raise
        except Exception as error:  # noqa: BLE001 - it is logged
            self._fail(error)
        proven = self.door.proven
        wanted = reprove and not self.door.proven_before
        if not wanted:
            self.door.notice()
        if proven.cases < proven.recorded or wanted:
            done = self._keep_proof if wanted else None
            self._start(Proving(self.door, name, busy, self._withdraw, done).start())

    def warm_up(self) -> None:
        """Runs the pipeline on a grey picture and each engine on its smallest recorded case, and notes the outcome."""
        try:
            self._answer_once()
        except Exception as error:  # noqa: BLE001 - it is logged
            self._fail(error)
        else:
            self.failure = self.withdrawn

    def problem(self) -> Problem:
        """What whoever asks is told while it cannot answer."""
        if self.withdrawn is not None:
            return Problem(
                503,
                f"The bundle {self._name!r} was withdrawn: it does not give its recorded answers on this machine.",
                headers={"Retry-After": "60"},
                kind="broken",
            )
        return Problem(
            503,
            f"The bundle {self._name!r} cannot answer at present; try again soon.",
            headers={"Retry-After": "2"},
            kind="broken",
        )

    def close(self) -> None:
        """Ends what runs in the background."""
        for thread in self._threads:
            thread.stop()

    def _answer_once(self) -> None:
        start = time.perf_counter()
        with suppress(InputError):  # a task that takes no pictures answers, too
            self._pipeline.predict(np.full((64, 64, 3), 128, np.uint8))
        self.door.first()
        self.warm_up_ms = (time.perf_counter() - start) * 1e3

    def _fail(self, error: Exception) -> None:
        found = self.withdrawn or (str(error) if isinstance(error, CheckFailedError) else type(error).__name__)
        if found != self.failure:  # a try each second that finds the same would fill the log
            LOG.error("bundle %s does not answer its warm-up run", self._name, exc_info=error)
        self.failure = found
        self._retry()

    def _retry(self) -> None:
        if self.withdrawn is None and self._retrying.acquire(blocking=False):
            self._start(Background(self._try_again, f"edgedl-retry-{self._name}"))

    def _try_again(self, stopping: Event) -> None:
        took = 0.0
        try:
            while self.failure is not None and not stopping.wait(max(RETRY_SECONDS, REST * took)):
                begin = time.monotonic()
                self.warm_up()
                took = time.monotonic() - begin
                if self.withdrawn is not None:
                    return
        finally:
            self._retrying.release()
        if self.failure is not None and not stopping.is_set():
            self._retry()  # it failed once more after the last look and before the release

    def _withdraw(self, reason: str) -> None:
        LOG.error("bundle %s is withdrawn: %s", self._name, reason)
        self.withdrawn = self.failure = reason

    def _keep_proof(self) -> None:
        try:
            keep_proof(self.door, self._pipeline.bundle)
        except BundleError as error:
            LOG.warning("bundle %s: no proof was kept: %s", self._name, error)
        else:
            LOG.info("bundle %s: a proof was kept: %s", self._name, self.door.proven)

    def _start(self, thread: Background) -> None:
        self._threads = (*(other for other in self._threads if other.running), thread)
