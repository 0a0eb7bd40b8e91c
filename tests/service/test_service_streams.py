"""Streams over HTTP: the state stays with the server, steps come and go, and nobody can open too many."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from runtime.lines import LineStream
from runtime.pipelines import load
from service.app import create_app
from service.bundles.streams import StreamLimits, Streams
from service.problems import Problem
from tests.bundles import write_scale_bundle, write_sums_bundle

LIMITS = StreamLimits(number=3, idle_seconds=60, age_seconds=600, steps=5)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    folder = tmp_path_factory.mktemp("bundles")
    sums, scale = write_sums_bundle(folder / "sums.edge"), write_scale_bundle(folder / "scale.edge")
    return create_app([sums, scale], streams=StreamLimits(number=100, steps=5)).test_client()


def opened(client: FlaskClient) -> str:
    response = client.post("/v1/sums/streams")
    assert response.status_code == 201, response.text
    assert response.headers["Location"] == response.json["url"] == f"/v1/sums/streams/{response.json['stream']}"
    return response.json["url"]


def fed(client: FlaskClient, url: str, *steps: Any) -> list[Any]:
    response = client.post(url, json={"steps": list(steps)})
    assert response.status_code == 200, response.text
    return [result["y"] for result in response.json["results"]]


def test_the_list_says_which_bundles_have_streams(client: FlaskClient) -> None:
    urls = {one["name"]: one["streams"] for one in client.get("/v1").json["bundles"]}
    assert urls == {"sums": "/v1/sums/streams", "scale": None}


def test_steps_go_on_from_request_to_request(client: FlaskClient) -> None:
    url = opened(client)
    assert fed(client, url, [1, 2], {"x": [10, 20]}) == [[1, 2], [11, 22]]
    assert fed(client, url, [0, 0]) == [[11, 22]]
    response = client.post(url, data="1 1\n\n2, 2\n", content_type="text/plain")
    assert [result["y"] for result in response.json["results"]] == [[12, 23], [14, 25]]
    assert response.json["steps"] == 5


def test_streams_know_nothing_of_each_other(client: FlaskClient) -> None:
    one, other = opened(client), opened(client)
    assert one != other
    fed(client, one, [5, 5])
    assert fed(client, other, [1, 1]) == [[1, 1]]


def test_a_closed_stream_is_gone(client: FlaskClient) -> None:
    url = opened(client)
    assert client.delete(url).status_code == 204
    for response in (client.post(url, json={"steps": [[1, 2]]}), client.delete(url)):
        assert response.status_code == 410
        assert response.mimetype == "application/problem+json"
        assert "Open a new one" in response.json["detail"]


BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "no type": ({"data": b"1 2"}, 415, "Found no Content-Type"),
    "picture": ({"data": b"1 2", "content_type": "image/png"}, 415, "image/png"),
    "empty": ({"data": b"", "content_type": "text/plain"}, 400, "no steps"),
    "no JSON": ({"data": b"{", "content_type": "application/json"}, 400, "not JSON"),
    "a list": ({"json": [[1, 2]]}, 400, "other JSON"),
    "another key": ({"json": {"step": [1, 2]}}, 400, "an object with step"),
    "no steps": ({"json": {"steps": []}}, 400, "no steps"),
    "too many": ({"json": {"steps": [[1, 2]] * 6}}, 413, "at most 5"),
    "narrow": ({"json": {"steps": [[1, 2], [1]]}}, 422, "Step 2 of 2: x: a step has 2 numbers, the line has 1"),
    "text": ({"json": {"steps": [["a", "b"]]}}, 422, "Step 1 of 1"),
    "null": ({"json": {"steps": [None]}}, 422, "Step 1 of 1"),
    "stranger": ({"json": {"steps": [{"z": [1, 2]}]}}, 422, "a step has the inputs x, found"),
    "words": ({"data": b"1 2\none two", "content_type": "text/plain"}, 422, "Step 2 of 2"),
    "not finite": ({"data": b"1 nan", "content_type": "text/plain"}, 422, "Step 1 of 1: x[1] is the number nan"),
    "bytes": ({"data": b"\xff\xfe", "content_type": "text/plain"}, 400, "not UTF-8"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused_moves_nothing(client: FlaskClient, name: str) -> None:
    arguments, status, words = BAD[name]
    url = opened(client)
    fed(client, url, [3, 4])
    response = client.post(url, **arguments)
    assert (response.status_code, response.mimetype) == (status, "application/problem+json"), response.text
    assert words in response.json["detail"]
    assert fed(client, url, [0, 0]) == [[3, 4]]


def test_what_is_not_there(client: FlaskClient) -> None:
    assert client.post("/v1/nobody/streams").status_code == 404
    assert "carries no state" in client.post("/v1/scale/streams").json["detail"]
    assert client.post("/v1/sums/streams/guess", json={"steps": [[1, 2]]}).status_code == 404
    assert client.post("/v1/sums/streams/" + "A" * 24, json={"steps": [[1, 2]]}).status_code == 410
    assert client.get("/v1/sums/streams").status_code == 405


def test_the_document_has_the_routes(client: FlaskClient) -> None:
    paths = client.get("/openapi.json").json["paths"]
    assert set(paths["/v1/sums/streams"]) == {"post"}
    assert set(paths["/v1/sums/streams/{stream}"]) == {"post", "delete"}
    assert [path for path in paths if path.startswith("/v1/scale/")] == [
        "/v1/scale/versions/2.0.1",
        "/v1/scale/versions/2.0.1/example",
        "/v1/scale/example",
    ]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def streams(tmp_path: Path, clock: Clock) -> Streams:
    pipeline = load(write_sums_bundle(tmp_path / "sums.edge"), threads=1)
    return Streams(lambda: LineStream(pipeline.engine), LIMITS, clock)


STEP = b'{"steps": [[1, 2]]}'


def refused(call: Any, *arguments: Any, **more: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        call(*arguments, **more)
    return caught.value


def test_a_stream_expires_when_it_is_idle(streams: Streams, clock: Clock) -> None:
    name = streams.open()
    for _ in range(3):
        clock.now += 59
        streams.feed(name, STEP, as_json=True)
    clock.now += 61
    assert refused(streams.feed, name, STEP, as_json=True).status == 410
    assert len(streams) == 0


def test_a_stream_expires_when_it_is_old(streams: Streams, clock: Clock) -> None:
    name = streams.open()
    while clock.now < 590:
        clock.now += 10
        streams.feed(name, STEP, as_json=True)
    clock.now = 601
    assert refused(streams.feed, name, STEP, as_json=True).status == 410


def test_their_number_is_bounded(streams: Streams, clock: Clock) -> None:
    names = [streams.open() for _ in range(3)]
    problem = refused(streams.open)
    assert (problem.status, problem.headers) == (503, {"Retry-After": "10"})
    streams.close(names[0])
    streams.open()
    clock.now += 61  # all are idle now, and none is in the way
    assert len([streams.open() for _ in range(3)]) == 3


class SlowLines:
    """Stands in for a `LineStream`; leaves other threads time between two steps."""

    def __init__(self) -> None:
        self.taken: list[Any] = []

    def inputs(self, step: Any) -> Any:
        return step

    def run_all(self, steps: Any) -> list[dict[str, Any]]:
        for step in steps:
            self.taken.append(step)
            time.sleep(0.005)
        return [{} for _ in steps]


def test_steps_of_one_request_stay_together() -> None:
    lines = SlowLines()
    streams = Streams(lambda: lines, LIMITS)  # type: ignore[arg-type, return-value]
    name = streams.open()
    bodies = [f'{{"steps": [{row}, {row}, {row}]}}'.encode() for row in range(6)]
    threads = [threading.Thread(target=streams.feed, args=(name, body), kwargs={"as_json": True}) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lines.taken[::3]) == list(range(6))
    assert lines.taken[::3] == lines.taken[1::3] == lines.taken[2::3]
