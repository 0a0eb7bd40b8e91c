"""What a variant that gives other answers is held to: the metric of its task, and the decisions that change.

Tolerances say that a graph gives the same answers. A graph in int8 does not, so it carries a budget instead: by how
much the task's metric may get worse, and by how much it did on data that nothing else was chosen with. Decisions that
change are counted for each class of processor, because integer arithmetic is not the same on all of them, see
`runtime.processor`. A class that is not listed was not measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.errors import BundleError
from runtime.fields import Fields, integer, kind_of, mapping_of, number, text


@dataclass(frozen=True, slots=True)
class Counted:
    """Decisions that differ from the reference's, out of all that were looked at."""

    changed: int
    of: int

    @property
    def allowed(self) -> int:
        """How many may change when the same cases are replayed.

        Another release of ONNX Runtime may round a value the other way, and each such value moves some decision by
        chance. A count of k then varies by the square root of k, and that many more are allowed.
        """
        return min(self.of, self.changed + math.isqrt(self.changed + 1))


@dataclass(frozen=True, slots=True)
class Budget:
    """How a variant was judged.

    Attributes:
        metric: The task's, e.g. ``MAE``.
        fp32: Its value for the first variant on the data that judged.
        value: Its value for this variant there; the key in the manifest is the variant's name.
        allowed: By how much the metric may be worse, in its own unit.
        decisions_changed: For each class of processor the share of the model's decisions on that data that differ from
            those of the first variant.
        recorded_changed: For each class how many decisions on the recorded cases differ from the recorded ones.
        n: How many samples judged on this machine.
        dataset: Where they are from.
        unit: Of the metric.
    """

    metric: str
    fp32: float
    value: float
    allowed: float
    decisions_changed: Mapping[str, float] = field(default_factory=dict)
    recorded_changed: Mapping[str, Counted] = field(default_factory=dict)
    n: int | None = None
    dataset: str | None = None
    unit: str | None = None

    def to_json(self, variant: str) -> dict[str, Any]:
        """The JSON form for a variant of this name; `parse_budget` reads it."""
        entries = {
            "metric": self.metric,
            "fp32": self.fp32,
            variant: self.value,
            "allowed": self.allowed,
            "decisions_changed": dict(self.decisions_changed),
            "recorded_changed": {key: {"changed": c.changed, "of": c.of} for key, c in self.recorded_changed.items()},
            "n": self.n,
            "dataset": self.dataset,
            "unit": self.unit,
        }
        return {key: value for key, value in entries.items() if value is not None}


def parse_budget(variant: str) -> Callable[[Any, str], Budget]:
    """The parser of the budget of a variant of this name."""

    def parse(value: Any, where: str) -> Budget:
        part = Fields(value, where)
        budget = Budget(
            metric=part.take("metric", text),
            fp32=part.take("fp32", _any_number),
            value=part.take(variant, _any_number),
            allowed=part.take("allowed", number),
            decisions_changed=part.take("decisions_changed", mapping_of(number), default={}),
            recorded_changed=part.take("recorded_changed", mapping_of(_counted), default={}),
            n=part.take("n", integer, default=None),
            dataset=part.take("dataset", text, default=None),
            unit=part.take("unit", text, default=None),
        )
        part.finish()
        return budget

    return parse


def _counted(value: Any, where: str) -> Counted:
    part = Fields(value, where)
    counted = Counted(part.take("changed", integer), part.take("of", integer))
    part.finish()
    if counted.changed > counted.of:
        raise BundleError(f"manifest.json: {where} says that {counted.changed} of {counted.of} decisions changed")
    return counted


def _any_number(value: Any, where: str) -> float:
    """A finite number of either sign: some metrics are negative."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BundleError(f"manifest.json: {where} is {kind_of(value)}, expected a finite number")
    return float(value)
