"""The search for a variant of one model: forms in their order, layers back to float32, other calibrations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from exporters.quantize.calibration import CALIBRATIONS
from exporters.quantize.candidates import FORMS, STATIC, WIDE, Candidates, Form
from exporters.quantize.inputs import Feed
from exporters.quantize.opening import refusal
from exporters.quantize.ranking import rank_layers
from exporters.quantize.speed import compare_speed, is_gain
from runtime.engine import Engine
from runtime.errors import EdgedlError
from runtime.turns import Ratio

log = logging.getLogger(__name__)

FIRST_CALIBRATION = next(iter(CALIBRATIONS))
MOST_REVERTED = 0.5
"""Share of the layers that may go back to float32."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One candidate and what was found of it.

    Attributes:
        model: Of the bundle.
        form: How it was made.
        calibration: Where its ranges came from; empty for a dynamic form.
        layers: How many layers are in int8.
        reverted: Layers that went back to float32, the most sensitive first.
        verdict: ``taken``, or why not.
        bytes: Of the graph.
        speed: Against float32; None where it was not measured.
        value: The metric on the part that chooses; None where it was not measured.
        drop: By how much that is worse than float32's.
    """

    model: str
    form: str
    calibration: str
    layers: int
    reverted: tuple[str, ...] = ()
    verdict: str = ""
    bytes: int | None = None
    speed: Ratio | None = None
    value: float | None = None
    drop: float | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to: all attempts, and the graph and the attempt that were taken."""

    attempts: tuple[Attempt, ...]
    graph: bytes | None = None
    taken: Attempt | None = None


@dataclass(slots=True)
class Search:
    """Looks for a variant of a model that is faster here and within the budget.

    Args:
        model: Its name.
        candidates: Makes them.
        rows: Inputs with batch 1, which are timed and rank the layers.
        measure: The task's metric and its drop on the part that chooses, with a graph in the place of the model's.
        allowed: The budget.
        threads: Of the timing.
    """

    model: str
    candidates: Candidates
    rows: list[Feed]
    measure: Callable[[bytes], tuple[float, float]]
    allowed: float
    threads: int = 1

    def run(self) -> Found:
        """Tries the forms in their order until one is taken."""
        attempts: list[Attempt] = []
        slow: set[Form] = set()
        for form in FORMS:
            if form == WIDE and STATIC in slow:
                continue  # as fast as with 7 bits
            found = self._form(form)
            attempts += found.attempts
            if found.graph is not None:
                return Found(tuple(attempts), found.graph, found.taken)
            if not any(one.value is not None for one in found.attempts):
                slow.add(form)
        return Found(tuple(attempts))

    def _form(self, form: Form) -> Found:
        layers = self.candidates.weighted(form)
        if not layers:
            return Found((Attempt(self.model, form.name, "", 0, verdict="no layer for this form"),))
        if form.dynamic:
            attempt, graph = self._attempt(form, "", layers)
            return Found((attempt,), graph, attempt if graph else None)
        attempts: list[Attempt] = []
        for calibration in CALIBRATIONS:
            attempt, graph = self._attempt(form, calibration, layers)
            attempts.append(attempt)
            if graph is None and calibration == FIRST_CALIBRATION and attempt.drop is not None:
                reverting = self._revert(form, calibration)
                attempts += reverting.attempts
                graph, attempt = reverting.graph, reverting.taken or attempt
            if graph is not None:
                return Found(tuple(attempts), graph, attempt)
            if attempt.drop is None:
                break  # too slow or not to be opened: that depends on the form and not on the ranges
        return Found(tuple(attempts))

    def _revert(self, form: Form, calibration: str) -> Found:
        """Takes the most sensitive layers back to float32, one after the other, as long as it stays faster."""
        ranked = list(rank_layers(self.candidates, form, calibration, self.rows, self.threads))
        log.info("%s: the most sensitive layers are %s", self.model, ", ".join(ranked[:3]))
        attempts: list[Attempt] = []
        for count in range(1, int(MOST_REVERTED * len(ranked)) + 1):
            attempt, graph = self._attempt(form, calibration, ranked[count:], tuple(ranked[:count]))
            attempts.append(attempt)
            if graph is not None:
                return Found(tuple(attempts), graph, attempt)
            if attempt.drop is None:
                break
        return Found(tuple(attempts))

    def _attempt(
        self, form: Form, calibration: str, layers: Collection[str], reverted: tuple[str, ...] = ()
    ) -> tuple[Attempt, bytes | None]:
        """Makes, opens, times and judges one candidate, and stops at the first no."""
        attempt = Attempt(self.model, form.name, calibration, len(layers), reverted)
        # onnxruntime.quantization raises what it likes; a graph that it cannot rewrite is one that is not taken.
        try:
            graph = self.candidates.build(form, calibration, layers)
        except Exception as error:  # noqa: BLE001
            return self._told(replace(attempt, verdict=f"cannot be made: {_first_line(error)}")), None
        attempt = replace(attempt, bytes=len(graph))
        problem = refusal(graph, self.rows[0])
        if problem is not None:
            return self._told(replace(attempt, verdict=f"cannot be opened: {problem}")), None
        with (
            Engine(self.candidates.graph, threads=self.threads, name=self.model) as exact,
            Engine(graph, threads=self.threads, name=self.model) as candidate,
        ):
            speed = compare_speed(exact, candidate, self.rows, self.threads)
        attempt = replace(attempt, speed=speed)
        if not is_gain(speed):
            return self._told(replace(attempt, verdict="not faster here")), None
        try:
            value, drop = self.measure(graph)
        except EdgedlError as error:
            return self._told(replace(attempt, verdict=f"no answer: {_first_line(error)}")), None
        within = drop <= self.allowed
        verdict = "taken" if within else "misses the budget"
        return self._told(replace(attempt, value=value, drop=drop, verdict=verdict)), graph if within else None

    def _told(self, attempt: Attempt) -> Attempt:
        measured = f", {attempt.speed} times as fast" if attempt.speed else ""
        back = f", {len(attempt.reverted)} layers back in float32" if attempt.reverted else ""
        log.info(
            "%s, %s, %s%s%s: %s", self.model, attempt.form, attempt.calibration or "-", back, measured, attempt.verdict
        )
        return attempt


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
