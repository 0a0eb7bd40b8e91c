"""What ``GET /metrics`` tells Prometheus. The registry belongs to one application, so tests and apps never mix.

What one request adds is some ten additions to numbers: the series of a label are looked up once and kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from runtime.devices import onnxruntime
from service.bundles.repository import Repository
from service.bundles.served import Served
from service.bundles.watch import Watch
from service.operations.recording import Recorder
from service.replies import Reply
from service.visits import KINDS, Visit

# Seconds; from a tiny network on a fast core to a caption on a slow board.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_TOGETHER = (1, 2, 4, 8, 16, 32, 64)
_METHODS = frozenset(("GET", "HEAD", "POST", "DELETE", "OPTIONS"))


@dataclass(frozen=True, slots=True)
class _Route:
    """The series of one route and bundle."""

    seconds: Histogram
    received: Counter
    sent: Counter


class Metrics:
    """Counters of one application; labels come from fixed sets, so no request can add a time series of its own.

    Args:
        served: The bundles; what is true of them at the moment is read when it is asked for.
        recorder: What keeps a sample of inputs; None where nothing is kept.

    Attributes:
        worker: The number of this process among several, which becomes a label; empty where there is only one.
        connections: How many connections are open; a server that knows sets it.
    """

    def __init__(self, served: Repository, recorder: Recorder | None = None) -> None:
        self.registry = registry = CollectorRegistry()
        self.worker = ""
        self.connections: Callable[[], int] = lambda: 0
        ProcessCollector(registry=registry)
        registry.register(_Now(served, self))
        if recorder is not None:
            registry.register(_Kept(recorder))
        by_request, by_route, by_bundle = ["route", "bundle", "method", "status"], ["route", "bundle"], ["bundle"]
        self.requests = Counter("edgedl_requests", "Requests answered.", by_request, registry=registry)
        self.seconds = Histogram(
            "edgedl_request_seconds",
            "Seconds from the head of a request to the last byte of its answer.",
            by_route,
            buckets=_BUCKETS,
            registry=registry,
        )
        self.received = Counter(
            "edgedl_received_bytes", "Bytes of the bodies of requests.", by_route, registry=registry
        )
        self.sent = Counter("edgedl_sent_bytes", "Bytes of the bodies of answers.", by_route, registry=registry)
        self.errors = Counter(
            "edgedl_errors", "Requests that failed, by the kind of failure.", ["kind"], registry=registry
        )
        self.in_flight = Gauge("edgedl_requests_in_flight", "Requests being answered now.", registry=registry)
        self.texts = Gauge(
            "edgedl_open_texts", "Texts that are sent while they are written.", by_bundle, registry=registry
        )
        self.images = Counter("edgedl_images", "Images and clips answered.", by_bundle, registry=registry)
        self.results = Counter(
            "edgedl_results", "Things found in them, such as faces.", ["bundle", "kind"], registry=registry
        )
        self._decoding = Histogram(
            "edgedl_decode_seconds", "Seconds to decode a file.", by_bundle, buckets=_BUCKETS, registry=registry
        )
        self._waiting = Histogram(
            "edgedl_queue_seconds",
            "Seconds that a call waited for its turn.",
            by_bundle,
            buckets=_BUCKETS,
            registry=registry,
        )
        self._predicting = Histogram(
            "edgedl_predict_seconds", "Seconds of a run, of one call or several.", by_bundle, buckets=_BUCKETS,
            registry=registry,
        )  # fmt: skip
        self._together = Histogram(
            "edgedl_batch_calls", "Calls that one run answered.", by_bundle, buckets=_TOGETHER, registry=registry
        )
        self._failures = {kind: self.errors.labels(kind) for kind in sorted(KINDS)}
        self._requests: dict[tuple[str, str, str, int], Counter] = {}
        self._routes: dict[tuple[str, str], _Route] = {}
        self._results: dict[tuple[str, str], Counter] = {}
        self._images: dict[str, Counter] = {}

    def watch(self, one: Served) -> None:
        """Measures the queue and the runs of a bundle from now on."""
        waiting, predicting = self._waiting.labels(one.name), self._predicting.labels(one.name)
        together, decoding = self._together.labels(one.name), self._decoding.labels(one.name)
        one.watch = Watch(waiting.observe, decoding.observe, predicting.observe, together.observe)

    def count_result(self, bundle: str, result: Mapping[str, Any]) -> None:
        """Counts an image and the members of each list in its result."""
        images = self._images.get(bundle)
        if images is None:
            images = self._images[bundle] = self.images.labels(bundle)
        images.inc()
        for kind, value in result.items():
            if isinstance(value, list):
                results = self._results.get((bundle, kind))
                if results is None:
                    results = self._results[bundle, kind] = self.results.labels(bundle, kind)
                results.inc(len(value))

    def begin(self) -> None:
        """Notes that a request has come; `end` has to follow."""
        self.in_flight.inc()

    def end(self, visit: Visit) -> None:
        """Counts a request that has been answered, and writes its line of the access log."""
        self.in_flight.dec()
        self.count(visit, time.perf_counter() - visit.began)
        visit.log()

    def count(self, visit: Visit, seconds: float) -> None:
        """Counts a request that has been answered."""
        method = visit.method if visit.method in _METHODS else "other"
        request = (visit.route, visit.bundle, method, visit.status)
        requests = self._requests.get(request)
        if requests is None:
            requests = self._requests[request] = self.requests.labels(*request)
        requests.inc()
        route = self._routes.get(request[:2])
        if route is None:
            labels = request[:2]
            route = self._routes[labels] = _Route(
                self.seconds.labels(*labels), self.received.labels(*labels), self.sent.labels(*labels)
            )
        route.seconds.observe(seconds)
        if visit.received:
            route.received.inc(visit.received)
        if visit.sent:
            route.sent.inc(visit.sent)
        if visit.kind:
            self._failures[visit.kind].inc()

    def exposition(self) -> Reply:
        """The text that Prometheus reads."""
        source = _Labelled(self.registry, self.worker) if self.worker else self.registry
        return Reply(200, generate_latest(source), CONTENT_TYPE_LATEST)


class _Now(Collector):
    """What is true at the moment: it is read when it is asked for, so a bundle that has gone leaves nothing behind."""

    def __init__(self, served: Repository, metrics: Metrics) -> None:
        self._served, self._metrics = served, metrics

    def collect(self) -> Iterable[Metric]:
        """The metrics."""
        by_bundle = ("bundle",)
        about = InfoMetricFamily("edgedl_bundle", "What is served, on what.", labels=())
        ready = GaugeMetricFamily("edgedl_ready", "1 where the bundle answers its warm-up run.", labels=by_bundle)
        depth = GaugeMetricFamily("edgedl_queue_depth", "Calls that wait for their turn.", labels=by_bundle)
        streams = GaugeMetricFamily("edgedl_open_streams", "Streams of steps that are open.", labels=by_bundle)
        for name, highest in self._served.items():
            versions = [self._served.find(name, version) for version in self._served.versions(name)]
            ready.add_metric([name], float(highest.failure is None))
            depth.add_metric([name], sum(len(one.queue) for one in versions))
            streamed = [one.streams for one in versions if one.streams is not None]
            if streamed:
                streams.add_metric([name], sum(map(len, streamed)))
            for one in versions:
                about.add_metric((), _about(one))
        connections = GaugeMetricFamily("edgedl_connections", "Connections that are open.")
        connections.add_metric((), self._metrics.connections())
        return about, ready, depth, streams, connections


class _Kept(Collector):
    """What is kept of the inputs, and how far the last answers are from the kept ones."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def collect(self) -> Iterable[Metric]:
        """The metrics."""
        by_bundle = ("bundle",)
        inputs = GaugeMetricFamily("edgedl_recorded_inputs", "Inputs that are kept.", labels=by_bundle)
        size = GaugeMetricFamily(
            "edgedl_recorded_bytes", "Bytes of inputs and answers that are kept.", labels=by_bundle
        )
        drift = GaugeMetricFamily(
            "edgedl_drift", "Distance of the last answers from the kept ones, 0 to 1.", labels=("bundle", "of")
        )
        for name, shelf in sorted(self._recorder.shelves.items()):
            inputs.add_metric([name], len(shelf.kept))
            size.add_metric([name], shelf.bytes)
            for of, value in self._recorder.drift(shelf).items():
                drift.add_metric([name, of], value)
        return inputs, size, drift


class _Labelled(CollectorRegistry):
    """The metrics of one process among several: a scrape reaches any of them, so each says whose they are."""

    def __init__(self, registry: CollectorRegistry, worker: str) -> None:
        super().__init__()
        self._source, self._worker = registry, worker

    def collect(self) -> Iterable[Metric]:
        """All metrics, with one more label."""
        for metric in self._source.collect():
            metric.samples = [
                sample._replace(labels={**sample.labels, "worker": self._worker}) for sample in metric.samples
            ]
            yield metric


def _about(one: Served) -> dict[str, str]:
    """The labels of ``edgedl_bundle_info``."""
    engines = [one.pipeline.engines[model] for model in sorted(one.pipeline.engines)]
    bundle = one.pipeline.bundle
    return {
        "bundle": one.name,
        "version": one.version,
        "digest": bundle.digest,
        "task": bundle.manifest.task,
        "variant": one.pipeline.variant or "fp32",
        "device": ",".join(dict.fromkeys(engine.device for engine in engines)),
        "provider": ",".join(dict.fromkeys(engine.provider for engine in engines)),
        "onnxruntime": str(onnxruntime().__version__),
    }
