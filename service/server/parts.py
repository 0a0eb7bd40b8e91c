"""What one service is made of; Flask and the front in front of it share it."""

from __future__ import annotations

from dataclasses import dataclass

from service.bundles.loading import Loading
from service.bundles.repository import Repository
from service.bundles.swaps import Swaps
from service.operations.metrics import Metrics
from service.operations.probes import Probes
from service.operations.recording import Recorder
from service.routes.v2.statistics import Statistics
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a service.

    Attributes:
        served: The bundles.
        settings: The limits.
        metrics: The counters.
        probes: The answers that need no thread.
        statistics: What ``/v2`` tells of its models.
        swaps: What brings bundles in and takes them out.
        loading: What loads and unloads by name; None where that is off.
        recorder: What keeps a sample of inputs; None where that is off.
    """

    served: Repository
    settings: Settings
    metrics: Metrics
    probes: Probes
    statistics: Statistics
    swaps: Swaps
    loading: Loading | None
    recorder: Recorder | None = None
