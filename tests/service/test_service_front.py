"""The front: what it answers is what Flask answers, and what is slow costs a connection only."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from flask import Flask

from service.app import create_app
from service.server.front import Front
from service.server.worker import Connection
from tests.bundles import write_scale_bundle
from tests.service.asgi import Answered, ask
from tests.service.fake_pipeline import FakePipeline, encoded
from tests.service.test_service_gunicorn import Server, raw, running

PNG = {"Content-Type": "image/png"}
NPY = {"Content-Type": "application/x-npy"}


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    scale = write_scale_bundle(tmp_path_factory.mktemp("bundle") / "scale.edge")
    return create_app([FakePipeline(), scale.path], max_bytes=200_000, max_pixels=1_000_000, max_images=4)


ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "query"),
    [
        ("POST", "/v1/age", encoded(), PNG, ""),
        ("POST", "/v1/age", encoded(), PNG, "distribution=1&limit=1"),
        ("POST", "/v1/age", encoded(), PNG, "distribution=perhaps"),
        ("POST", "/v1/age", encoded(), PNG, "distribution=1&distribution=2"),
        ("POST", "/v1/age", encoded(), PNG, "unknown=\xff"),
        ("POST", "/v1/age", encoded(), {"Content-Type": "IMAGE/PNG; x=y"}, ""),
        ("POST", "/v1/age", b"", PNG, ""),
        ("POST", "/v1/age", b"no picture", PNG, ""),
        ("POST", "/v1/age", encoded()[:60], PNG, ""),
        ("POST", "/v1/age", encoded(width=2), PNG, ""),
        ("POST", "/v1/age", encoded(width=3000, height=3000), PNG, ""),
        ("POST", "/v1/age", b"{}", JSON, ""),
        ("POST", "/v1/age", encoded(), {"Content-Type": "text/html"}, ""),
        ("POST", "/v1/age", encoded(), {}, ""),
        ("POST", "/v1/age", bytes(200_001), PNG, ""),
        ("POST", "/v1/scale", npy(ROWS), NPY, ""),
        ("POST", "/v1/scale", npy(ROWS[:0]), NPY, ""),
        ("POST", "/v1/scale", npy(ROWS[:, :2]), NPY, ""),
        ("POST", "/v1/scale", npy(ROWS.astype(np.int8)), NPY, ""),
        ("POST", "/v1/scale", npy(ROWS * np.nan), NPY, ""),
        ("POST", "/v1/scale", npy(ROWS)[:-1], NPY, ""),
        ("POST", "/v1/scale", b"\x93NUMPY", NPY, ""),
        ("POST", "/v1/scale", npy(ROWS), NPY, "x=1"),
        ("POST", "/v1/scale", json.dumps({"inputs": {"x": ROWS.tolist()}}).encode(), JSON, ""),
        ("POST", "/v1/nobody", encoded(), PNG, ""),
        ("POST", "/v1/age/", encoded(), PNG, ""),
        ("POST", "/v1/\xe4", encoded(), PNG, ""),
        ("PUT", "/v1/age", encoded(), PNG, ""),
        ("GET", "/v1", b"", {}, ""),
        ("GET", "/", b"", {}, ""),
        ("GET", "/static/page.js", b"", {}, ""),
        ("GET", "/livez", b"", {}, ""),
        ("HEAD", "/readyz", b"", {}, ""),
        ("POST", "/livez", b"", {}, ""),
        ("OPTIONS", "/v1/age", b"", {"Origin": "https://example.org"}, ""),
        ("GET", "/v1/../etc", b"", {}, ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_the_front_answers_as_flask_does(
    app: Flask, method: str, path: str, body: bytes, headers: dict[str, str], query: str
) -> None:
    headers = {**headers, "X-Request-ID": "same"}
    query = quote(query, "=&", encoding="latin-1")
    with app.test_client().open(path, query_string=query, method=method, data=body, headers=headers) as flask:
        flask_body = flask.data
    front = asyncio.run(ask(Front(app), method, path, body, headers, query=query))
    assert front.status == flask.status_code
    assert (front.body if method != "HEAD" else b"") == flask_body
    ignored = {"server-timing", "date", "server", "connection", "content-length", "allow"}
    expected = {name.lower(): value for name, value in flask.headers.items()}
    assert {k: v for k, v in front.headers.items() if k not in ignored} == {
        k: v for k, v in expected.items() if k not in ignored
    }
    assert front.headers["server"] == "edgedl"


def test_a_body_comes_in_pieces(app: Flask) -> None:
    data = encoded()
    pieces = [data[start : start + 50] for start in range(0, len(data), 50)]
    assert asyncio.run(ask(Front(app), "POST", "/v1/age", pieces, PNG)).status == 200


def test_bodies_that_are_not_answered_yet_share_a_budget(app: Flask) -> None:
    """Whoever sends much and slowly can fill the memory of nobody else; small requests go on."""
    front = Front(app)
    front._most_held = 300_000

    async def many() -> list[Answered]:
        async def slow(pieces: list[bytes]) -> Answered:
            return await ask(front, "POST", "/v1/age", pieces, PNG)

        blocked = asyncio.Event()
        original = front.pools.decode

        async def wait(work: object) -> object:
            await blocked.wait()
            return await original(work)

        front.pools.decode = wait  # type: ignore[method-assign]
        large = encoded()[:8] + bytes(180_000)
        waiting = [asyncio.create_task(slow([large])) for _ in range(3)]
        await asyncio.sleep(0.05)
        small = asyncio.create_task(slow([encoded()]))
        await asyncio.sleep(0.05)
        blocked.set()
        return [await task for task in (*waiting, small)]

    import service.server.front as module

    before, module.SMALL_BODY = module.SMALL_BODY, 1 << 12
    try:
        statuses = [answered.status for answered in asyncio.run(many())]
    finally:
        module.SMALL_BODY = before
    assert statuses == [422, 503, 503, 200]
    assert front._held == 0


def test_who_leaves_while_waiting_is_not_answered() -> None:
    busy, free = threading.Event(), threading.Event()

    class Gated(FakePipeline):
        def predict(self, source: object, **options: object) -> object:
            if source.shape[0] == 61:
                busy.set()
                assert free.wait(30)
            return super().predict(source, **options)

    pipeline = Gated()
    front = Front(create_app([pipeline]))
    before = pipeline.calls

    async def some() -> None:
        first = asyncio.create_task(ask(front, "POST", "/v1/age", encoded(height=61), PNG))
        await asyncio.to_thread(busy.wait, 30)
        left = [asyncio.create_task(ask(front, "POST", "/v1/age", encoded(), PNG, leave_after=0.01)) for _ in range(5)]
        assert [(await task).status for task in left] == [0] * 5
        free.set()
        assert (await first).status == 200
        assert (await ask(front, "POST", "/v1/age", encoded(), PNG)).status == 200

    asyncio.run(some())
    assert pipeline.calls - before == 2


def test_a_websocket_is_declined(app: Flask) -> None:
    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    asyncio.run(Front(app)({"type": "websocket"}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1000}]


PATIENCE = """
import service.server.worker as worker
worker.HEAD_SECONDS, worker.READ_SECONDS = 1.0, 1.0
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("[Slow()]", before=PATIENCE, body_seconds=2.0, connections=60, request_threads=2) as running_server:
        yield running_server


def connect(server: Server) -> socket.socket:
    host, port = urlsplit(server.url).netloc.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


HEAD = b"POST /v1/age HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


def test_slow_senders_cost_nobody_else_anything(server: Server) -> None:
    with ExitStack() as stack:
        for index in range(40):
            slow = stack.enter_context(closing(connect(server)))
            slow.sendall(HEAD if index % 2 else HEAD + b"Content-Length: 9999\r\n\r\nabc")
        for _ in range(5):
            assert server.ask("GET", "/livez")[0] == 200
            assert server.ask("POST", "/v1/age", encoded(), Content_Type="image/png")[0] == 200


def test_probes_answer_while_every_thread_is_taken(server: Server) -> None:
    """A form goes to Flask, one of two threads each; the pipeline takes a second for each of these pictures."""
    form = (
        b'--XX\r\nContent-Disposition: form-data; name="i"; filename="a"\r\n\r\n'
        + encoded(height=61)
        + b"\r\n--XX--\r\n"
    )
    with ExitStack() as stack:
        busy = [stack.enter_context(closing(server.connect())) for _ in range(3)]
        for connection in busy:
            connection.request("POST", "/v1/age", form, {"Content-Type": "multipart/form-data; boundary=XX"})
        for path in ("/livez", "/readyz", "/health", "/metrics"):
            assert server.ask("GET", path)[0] == 200
        assert server.ask("GET", "/metrics")[2].count(b"edgedl_requests_total") >= 1
        busy[0].sock.settimeout(30)
        assert busy[0].getresponse().status == 200
        for connection in busy[1:]:
            connection.sock.settimeout(30)
            assert connection.getresponse().status == 200


def test_a_head_that_does_not_come_is_told_so(server: Server) -> None:
    answer = raw(server, HEAD)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"The head of the request did not arrive within 1 seconds" in answer


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (HEAD + b"Content-Length: %d\r\n\r\n" % len(encoded()) + encoded(), 200),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (HEAD + b"Content-Length: 9999\r\n\r\nabc", 400),
        (HEAD, 400),
    ],
    ids=["a whole request", "a whole probe", "half a body", "half a head"],
)
def test_who_sends_no_more_is_answered(server: Server, sent: bytes, status: int) -> None:
    with closing(connect(server)) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 %d " % status)


def send_for_ever(connection: socket.socket, data: bytes) -> None:
    while True:
        connection.sendall(data)


def test_a_client_that_does_not_read_is_cut_off(server: Server) -> None:
    """It asks for the page again and again on one connection, and reads nothing."""
    with closing(connect(server)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(15)
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            send_for_ever(connection, b"GET /static/page.js HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
    assert server.ask("GET", "/livez")[0] == 200


def test_more_connections_than_there_may_be_are_told_so(server: Server) -> None:
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(closing(connect(server)))
        deadline = time.monotonic() + 10
        answer = b""
        while not answer.startswith(b"HTTP/1.1 503 ") and time.monotonic() < deadline:
            answer = raw(server, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"As many connections are open as this service allows" in answer


def test_a_stop_under_load_loses_nothing() -> None:
    """Whatever was sent before the end is answered; whoever comes after it is refused, not reset."""
    outcomes: list[str] = []
    with running("[FakePipeline()]") as server:
        stopped = threading.Event()

        def client() -> None:
            while not stopped.is_set():
                try:
                    with closing(server.connect()) as connection:
                        connection.connect()
                        for _ in range(4):
                            connection.request("POST", "/v1/age", encoded(), PNG)
                            response = connection.getresponse()
                            response.read()
                            outcomes.append(str(response.status))
                            if response.will_close:
                                break
                except ConnectionRefusedError:
                    return
                except OSError as error:
                    outcomes.append(type(error).__name__)

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        status, errors = server.stop()
        stopped.set()
        for thread in threads:
            thread.join(20)
    assert (status, errors) == (0, "")
    assert set(outcomes) == {"200"}


def test_a_worker_that_is_replaced_leaves_the_socket_to_the_next() -> None:
    """SIGHUP: the master goes on, with a new worker. The old one must not shut the door that they share."""
    with running("[FakePipeline()]") as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        before = children.read_text()
        server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while children.read_text() in ("", before) or len(children.read_text().split()) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(5):
            assert server.ask("POST", "/v1/age", encoded(), Content_Type="image/png")[0] == 200
        assert server.stop()[0] == 0


def test_a_request_that_has_come_is_read_before_a_silent_connection_is_closed() -> None:
    """The time is up while the next request lies in the socket, because the event loop was busy."""
    loop = asyncio.new_event_loop()
    ours, theirs = socket.socketpair()
    closed: list[str] = []

    class Watched(Connection):
        def _close_transport(self) -> None:
            closed.append("closed")

    connection = Watched.__new__(Watched)
    connection.transport = SimpleNamespace(get_extra_info=lambda _name: ours)
    connection.worker = SimpleNamespace(loop=loop)
    connection._keepalive, connection._keepalive_handle, connection._request_ready = 60, None, asyncio.Event()
    with ours, theirs, closing(loop):
        theirs.sendall(b"GET /livez")
        connection._keepalive_timeout()
        assert not closed
        assert connection._keepalive_handle is not None
        ours.recv(100)
        connection._keepalive_timeout()
        assert closed == ["closed"]
