"""The metrics: a valid exposition, labels from closed sets, and the numbers of what was asked."""

from __future__ import annotations

import asyncio
import io
import math
import random
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from threading import Semaphore

import numpy as np
import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from service.app import create_app
from service.bundles.batching import BatchingQueue
from service.problems import Problem
from service.server.front import Front
from service.visits import KINDS, kind_of
from tests.bundles import write_scale_bundle
from tests.chars import write_chars_bundle
from tests.service.asgi import Answered, ask
from tests.service.fake_pipeline import FakePipeline, encoded

PNG, NPY, JSON = ({"Content-Type": kind} for kind in ("image/png", "application/x-npy", "application/json"))


def npy(rows: int = 2) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ones((rows, 3), np.float32))
    return stream.getvalue()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return [write_scale_bundle(folder / "scale.edge").path, write_chars_bundle(folder / "chars.edge").path]


@pytest.fixture
def service(bundles: list[Path]) -> Flask:
    return create_app([FakePipeline(), *bundles], max_bytes=200_000, max_pixels=1_000_000)


def samples(app: Flask) -> list[Sample]:
    text = asyncio.run(ask(Front(app), "GET", "/metrics")).body.decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(app: Flask, name: str, **labels: str) -> float:
    """The sum over all series of a name that have these labels."""
    found = [one.value for one in samples(app) if one.name == name and labels.items() <= one.labels.items()]
    return sum(found) if found else math.nan


def asked(app: Flask, *requests: tuple[str, str, bytes, dict[str, str]]) -> list[Answered]:
    async def all_of_them() -> list[Answered]:
        front = Front(app)
        return [await ask(front, method, path, body, headers) for method, path, body, headers in requests]

    return asyncio.run(all_of_them())


def test_the_exposition_is_valid(service: Flask) -> None:
    """What promtool checks: types and help, names, counters, histograms that add up, no series twice."""
    asked(service, ("POST", "/v1/age", encoded(), PNG), ("POST", "/v1/scale", npy(), NPY), ("GET", "/nowhere", b"", {}))
    text = asyncio.run(ask(Front(service), "GET", "/metrics")).body.decode()
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    seen = set()
    for family in families:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram"), family.name
        buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        counts: dict[tuple[tuple[str, str], ...], float] = {}
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in seen
            seen.add(key)
            rest = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
            if family.type == "counter":
                assert sample.name.endswith(("_total", "_created"))
            if sample.name.endswith("_bucket"):
                buckets.setdefault(rest, []).append((float(sample.labels["le"]), sample.value))
            if family.type == "histogram" and sample.name.endswith("_count"):
                counts[rest] = sample.value
        for series, bounds in buckets.items():
            assert [bound for bound, _ in bounds] == sorted(bound for bound, _ in bounds)
            numbers = [number for _, number in bounds]
            assert numbers == sorted(numbers)
            assert bounds[-1] == (math.inf, counts[series])


def random_requests(chance: random.Random) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Requests of every kind, with names, types and values that nobody has sent before."""
    for _ in range(20):
        word = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz0123456789-_%é", k=chance.randint(1, 30)))
        headers = {"Content-Type": f"image/{word}", "X-Request-ID": word[:20], "User-Agent": word, "X-" + "a" * 5: word}
        headers = {name: text.encode("ascii", "replace").decode() for name, text in headers.items()}
        yield chance.choice(["GET", "POST", "DELETE"]), f"/{word}", b"", headers
        yield "POST", f"/v1/{word}", encoded(), PNG
        yield "POST", f"/v2/models/{word}/infer", word.encode(), JSON
        yield "POST", f"/v1/age/streams/{word}", word.encode(), JSON
        yield word.upper()[:8] or "X", "/v1/age", b"", headers
        yield "POST", "/v1/age", word.encode(), headers
        yield "POST", "/v1/scale", word.encode(), JSON
        yield "GET", f"/static/{word}", b"", headers


def test_no_request_adds_a_series_of_its_own(service: Flask) -> None:
    """Many requests with other names than before add no series. Each label has one of a few values."""
    asked(service, *random_requests(random.Random(1)))
    samples(service)  # a scrape is a request as well
    before = {(one.name, *sorted(one.labels.items())) for one in samples(service)}
    asked(service, *random_requests(random.Random(2)))
    after = samples(service)
    assert {(one.name, *sorted(one.labels.items())) for one in after} - before == set()
    routes = {rule.rule for rule in service.url_map.iter_rules()} | {"unmatched", "unreadable"}
    for one in after:
        assert one.labels.get("route", "unmatched") in routes
        assert one.labels.get("bundle", "") in ("", "age", "scale", "chars")
        assert one.labels.get("method", "other") in ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "other")
        assert "kind" not in one.labels or one.name.startswith("edgedl_results") or one.labels["kind"] in KINDS


def test_the_numbers_are_those_of_what_was_asked(service: Flask) -> None:
    photo, array = encoded(), npy()
    answers = asked(service, *[("POST", "/v1/age", photo, PNG)] * 3, *[("POST", "/v1/scale", array, NPY)] * 2)
    assert [one.status for one in answers] == [200] * 5
    for bundle, calls, body, answer in (("age", 3, photo, answers[0]), ("scale", 2, array, answers[-1])):
        assert value(service, "edgedl_requests_total", bundle=bundle, status="200", route="/v1/<name>") == calls
        assert value(service, "edgedl_request_seconds_count", bundle=bundle) == calls
        assert value(service, "edgedl_received_bytes_total", bundle=bundle) == calls * len(body)
        assert value(service, "edgedl_sent_bytes_total", bundle=bundle) == calls * len(answer.body)
        for name in ("queue_seconds", "decode_seconds", "predict_seconds", "batch_calls"):
            assert value(service, f"edgedl_{name}_count", bundle=bundle) == calls
        assert value(service, "edgedl_batch_calls_sum", bundle=bundle) == calls
        assert value(service, "edgedl_queue_depth", bundle=bundle) == 0
    assert value(service, "edgedl_results_total", bundle="age", kind="faces") == 6
    assert value(service, "edgedl_requests_in_flight") == 1, "the scrape itself"


def one_lane(queue: BatchingQueue) -> Semaphore:
    """Whoever holds this keeps the bundle from running."""
    queue._lanes, queue._turns = 1, Semaphore(1)
    return queue._turns


def test_a_batch_is_one_run(service: Flask) -> None:
    """Eight arrays gather while the bundle is busy; then they are answered by one run."""
    one = service.extensions["edgedl"]["scale"]
    turn = one_lane(one.queue)

    async def together() -> None:
        front = Front(service)
        with turn:  # somebody else runs the bundle
            waiting = [asyncio.create_task(ask(front, "POST", "/v1/scale", npy(), NPY)) for _ in range(9)]
            while len(one.queue) < 8:  # its thread holds the ninth
                await asyncio.sleep(0.01)
            text = (await ask(front, "GET", "/metrics")).body.decode()
            assert 'edgedl_queue_depth{bundle="scale"} 8.0' in text
        for answer in await asyncio.gather(*waiting):
            assert answer.status == 200

    asyncio.run(together())
    assert value(service, "edgedl_batch_calls_sum", bundle="scale") == 9
    assert value(service, "edgedl_batch_calls_count", bundle="scale") == 1
    assert value(service, "edgedl_queue_seconds_count", bundle="scale") == 9


@pytest.mark.parametrize("behind", ["front", "flask"])
def test_a_text_is_measured_to_its_end(service: Flask, behind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body, headers = b'{"prompt": "a", "length": 40}', {**JSON, "Accept": "text/event-stream"}
    during: dict[str, float] = {}
    looked = threading.Event()
    pipeline = service.extensions["edgedl"]["chars"].pipeline
    generate = pipeline.generate

    def slowly(*words: object, **options: object) -> Iterator[str]:
        for index, character in enumerate(generate(*words, **options)):
            if index == 20:
                assert looked.wait(30)
            yield character

    monkeypatch.setattr(pipeline, "generate", slowly)

    def look() -> None:
        text = service.extensions["edgedl.parts"].probes.exposition().body.decode()
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                if one.labels.get("bundle", "chars") == "chars":
                    during[one.name] = one.value
        looked.set()

    if behind == "flask":
        response = service.test_client().post("/v1/chars", data=body, headers=headers, buffered=False)
        chunks = iter(response.response)
        first = next(chunks)
        look()
        size = len(first) + sum(map(len, chunks))
        response.close()
    else:
        front, sizes = Front(service), []

        async def read() -> None:
            async def send(message: dict[str, object]) -> None:
                if message["type"] == "http.response.body":
                    sizes.append(len(message["body"]))
                    if len(sizes) == 1:
                        look()

            messages = [{"type": "http.request", "body": body, "more_body": False}]

            async def receive() -> dict[str, object]:
                if not messages:
                    await asyncio.sleep(60)
                return messages.pop()

            fields = [(name.lower().encode(), text.encode()) for name, text in headers.items()]
            scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/chars", "headers": fields}
            await front({**scope, "query_string": b"", "server": None, "client": None}, receive, send)

        asyncio.run(read())
        size = sum(sizes)
    assert (during["edgedl_open_texts"], during["edgedl_requests_in_flight"]) == (1, 1)
    assert "edgedl_request_seconds_count" not in during
    assert value(service, "edgedl_open_texts", bundle="chars") == 0
    assert value(service, "edgedl_request_seconds_count", bundle="chars") == 1
    assert value(service, "edgedl_sent_bytes_total", bundle="chars") == size


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        ("bad_request", ("POST", "/v1/age", b"", PNG)),
        ("not_found", ("GET", "/nowhere", b"", {})),
        ("not_found", ("PUT", "/v1/age", b"", {})),
        ("too_large", ("POST", "/v1/age", bytes(200_001), PNG)),
        ("unreadable", ("POST", "/v1/age", b"no picture", PNG)),
        ("unreadable", ("POST", "/v1/age", b"x", {"Content-Type": "text/x"})),
        ("unreadable", ("POST", "/v1/scale", b'{"inputs": {"x": [[1]]}}', JSON)),
    ],
)
def test_failures_are_counted_by_kind(
    service: Flask, kind: str, request_: tuple[str, str, bytes, dict[str, str]]
) -> None:
    asked(service, request_)
    method, path, body, headers = request_
    service.test_client().open(path, method=method, data=body, headers=headers).close()
    assert value(service, "edgedl_errors_total", kind=kind) == 2
    assert value(service, "edgedl_errors_total") == 2


def test_a_bundle_that_is_broken_a_full_queue_and_who_leaves_are_kinds_of_their_own(service: Flask) -> None:
    one = service.extensions["edgedl"]["age"]
    one.pipeline.fault = RuntimeError("broken")
    asked(service, ("POST", "/v1/age", encoded(), PNG))
    assert value(service, "edgedl_errors_total", kind="broken") == 1
    one.pipeline.fault, one.health.failure, one.queue.capacity = None, None, 0
    asked(service, ("POST", "/v1/age", encoded(), PNG))
    assert value(service, "edgedl_errors_total", kind="overload") == 1
    one.queue.capacity = 2
    turn = one_lane(one.queue)

    async def leave() -> None:
        front = Front(service)
        with turn:  # somebody else runs the bundle
            await ask(front, "POST", "/v1/age", encoded(), PNG, leave_after=0.05)
        await ask(front, "POST", "/v1/age", encoded(), PNG)

    asyncio.run(leave())
    assert value(service, "edgedl_errors_total", kind="left") == 1
    assert value(service, "edgedl_requests_total", status="499", bundle="age") == 1
    assert value(service, "edgedl_requests_in_flight") == 1


def test_every_status_has_a_kind() -> None:
    assert {kind_of(status) for status in range(400, 600)} <= KINDS
    assert {Problem(status, "").kind for status in (200, 204, 304)} == {""}


def test_a_scrape_says_what_is_served_on_what(service: Flask, bundles: list[Path]) -> None:
    import onnxruntime

    from runtime.bundle import Bundle

    found = {one.labels["bundle"]: one.labels for one in samples(service) if one.name == "edgedl_bundle_info"}
    assert found.keys() == {"age", "scale", "chars"}
    bundle = Bundle.open(bundles[0])
    assert found["scale"] == {
        "bundle": "scale", "version": bundle.manifest.version, "digest": bundle.digest, "task": bundle.manifest.task,
        "variant": "fp32", "device": "cpu", "provider": "CPUExecutionProvider", "onnxruntime": onnxruntime.__version__,
    }  # fmt: skip
    assert value(service, "process_resident_memory_bytes") > 1e6


def test_one_of_several_workers_says_which_it_is(service: Flask) -> None:
    service.extensions["edgedl.parts"].metrics.worker = "2"
    assert {one.labels["worker"] for one in samples(service)} == {"2"}
