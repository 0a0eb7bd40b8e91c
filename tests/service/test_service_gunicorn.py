"""The real server, in a process of its own, on this machine's loopback."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from runtime.errors import InputError
from service.server.listening import address, listen
from tests.bundles import write_scale_bundle
from tests.service.fake_pipeline import encoded
from tests.service.processes import ended

ROOT = Path(__file__).resolve().parents[2]
START = """
import os, sys, time
from tests.service.fake_pipeline import FakePipeline
from service.gunicorn import serve
from runtime.errors import EdgedlError

class Slow(FakePipeline):
    def predict(self, source, *, distribution: bool = False, limit: int = 8):
        if source.shape[0] == 61:
            print("at work", flush=True)
            time.sleep(1.0)
        return super().predict(source, distribution=distribution, limit=limit)

class Crashing(FakePipeline):
    def __init__(self):
        pass

    @property
    def bundle(self):
        os.abort()

{before}
try:
    status = serve({bundles}, port={port}, **{settings})
except EdgedlError as error:
    print(f"edgedl: {{error}}", file=sys.stderr)
    status = error.exit_status
sys.exit(status)
"""


class Server:
    """A running server and what it says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.line = process.stdout.readline()
        self.url = self.line.rpartition(" ")[2].strip()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=10)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Message, bytes]:
        connection = self.connect()
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=15)
        return self.process.returncode, errors


def start(bundles: str = "[Slow()]", port: int = 0, before: str = "", **settings: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", START.format(bundles=bundles, port=port, before=before, settings=settings)],
        cwd=ROOT,
        # gunicorn closes some of its files by letting go of them.
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error,ignore::ResourceWarning"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def running(bundles: str = "[Slow()]", **settings: object) -> Iterator[Server]:
    with ended(start(bundles, **settings)) as process:
        yield Server(process)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(max_bytes=100_000, body_seconds=1.0) as running_server:
        yield running_server


def test_one_line_says_where_and_the_server_answers_at_once(server: Server) -> None:
    assert server.line.startswith("Serving /v1/age at http://127.0.0.1:")
    status, headers, body = server.ask("POST", "/v1/age", encoded(), Content_Type="image/png")
    assert status == 200
    assert json.loads(body)["results"][0]["faces"][0]["age"] == 25
    assert headers["Server"] == "edgedl"


def test_two_requests_on_one_connection(server: Server) -> None:
    connection = server.connect()
    for _ in range(2):
        connection.request("POST", "/v1/age", encoded(), {"Content-Type": "image/png"})
        response = connection.getresponse()
        assert response.status == 200
        response.read()
    connection.close()


def test_requests_at_the_same_time_get_their_own_answers(server: Server) -> None:
    answers: dict[int, float] = {}

    def ask(red: int) -> None:
        _, _, body = server.ask("POST", "/v1/age", encoded(red=red), Content_Type="image/png")
        answers[red] = json.loads(body)["results"][0]["faces"][0]["age"]

    threads = [threading.Thread(target=ask, args=(4 * index,)) for index in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {4 * index: index for index in range(24)}


def test_chunked_bodies(server: Server) -> None:
    connection = server.connect()
    data = encoded()
    connection.request("POST", "/v1/age", iter([data[:10], data[10:]]), {"Content-Type": "image/png"})
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize("chunked", [False, True], ids=["by Content-Length", "chunked"])
def test_a_body_over_the_limit_is_refused_with_words(server: Server, chunked: bool) -> None:
    body = b"\xff\xd8\xff" + bytes(150_000)
    parts = iter([body]) if chunked else body
    status, headers, answer = server.ask("POST", "/v1/age", parts, Content_Type="image/jpeg")
    assert status == 413
    assert headers["Content-Type"] == "application/problem+json"
    assert "100,000" in json.loads(answer)["expected"]


def raw(server: Server, data: bytes, *, seconds: float = 10) -> bytes:
    host, port = urlsplit(server.url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(data)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
        return answer


POST = b"POST /v1/age HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nConnection: close\r\n"


def test_chunks_that_are_none_are_the_senders_fault(server: Server) -> None:
    answer = raw(server, POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"problem+json" in answer


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n", 400),
        (POST + b"Content-Length: 1,2\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n", 400),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
    ],
)  # fmt: skip
def test_what_is_no_request_is_told_as_a_problem(server: Server, sent: bytes, status: int) -> None:
    head, _, body = raw(server, sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Type: application/problem+json" in head
    problem = json.loads(body)
    assert problem["status"] == status
    assert problem["request_id"].encode() in head
    assert len(problem["detail"]) < 250


@pytest.mark.parametrize(
    "header", ["SCRIPT_NAME", "Script-Name", "PATH_INFO", "X-Forwarded-Prefix", "X-Forwarded-Proto"]
)
def test_a_stranger_is_no_proxy(server: Server, header: str) -> None:
    with closing(server.connect()) as connection:
        connection.request("GET", "/v1", headers={header: "/x"})
        response = connection.getresponse()
        assert (response.status, json.load(response)["bundles"][0]["name"]) == (200, "age")


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 5000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n1388\r\n"],
    ids=["length", "chunks"],
)
def test_a_sender_that_trickles_is_cut_off(server: Server, framing: bytes) -> None:
    """A byte now and then keeps every single read alive; the whole body still has its deadline of one second."""
    host, port = urlsplit(server.url).netloc.split(":")
    begin = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(POST + framing + encoded()[:50])
        connection.settimeout(0.2)
        answer = b""
        while not answer and time.monotonic() < begin + 8:
            try:
                answer = connection.recv(4096)
            except TimeoutError:
                connection.sendall(b"x")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert 0.9 < time.monotonic() - begin < 4


def test_sigterm_lets_a_running_request_finish() -> None:
    with running() as server:
        connection = server.connect()
        connection.request("POST", "/v1/age", encoded(height=61), {"Content-Type": "image/png"})
        assert server.process.stdout.readline() == "at work\n", "the request is in the pipeline, for another second"
        server.process.terminate()
        response = connection.getresponse()
        assert response.status == 200
        assert json.loads(response.read())["results"]
        connection.close()
        _, errors = server.process.communicate(timeout=15)
        assert server.process.returncode == 0
        assert errors == ""


def test_ctrl_c_ends_with_130() -> None:
    with running() as server:
        status, errors = server.stop(signal.SIGINT)
    assert status == 130
    assert "Traceback" not in errors


def test_a_real_bundle_leaves_no_file_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither gunicorn's control socket nor ONNX Runtime's telemetry; CI is unset because it hides the latter."""
    bundle, home = tmp_path / "scale.edge", tmp_path / "home"
    write_scale_bundle(bundle, proven=False)
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("CI", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    with running(f"[{str(bundle)!r}]") as server:
        status, _, body = server.ask("GET", "/readyz")
        assert (status, json.loads(body)["status"]) == (200, "ready")
        status, errors = server.stop()
    assert (status, errors) == (0, "")
    assert list(home.rglob("*")) == []


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    return process.returncode, out, errors


def test_a_taken_port_is_one_sentence_and_status_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        begin = time.monotonic()
        status, out, errors = finish(start(port=port))
    assert (status, out) == (2, "")
    assert errors == (
        f"edgedl: cannot listen on 127.0.0.1 port {port}: Address already in use; "
        "choose another with --port (0 takes any free one)\n"
    )
    assert time.monotonic() - begin < 10


def test_a_bundle_that_cannot_be_opened_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    status, out, errors = finish(start(f"[{str(tmp_path / 'no.edge')!r}]"))
    assert (status, out) == (2, "")
    assert errors.startswith("edgedl serve: ")
    assert "no.edge" in errors
    assert errors.count("\n") == 1


def test_a_worker_that_crashes_while_loading_ends_the_server() -> None:
    status, out, errors = finish(start("[Crashing()]"))
    assert (status, out) == (70, "")
    assert "died while it loaded the bundles" in errors


def test_ports_and_hosts_that_do_not_exist() -> None:
    with pytest.raises(InputError, match="from 0 to 65535"):
        listen("127.0.0.1", 70_000)
    with pytest.raises(InputError, match="cannot listen on 192\\.0\\.2\\.1"):
        listen("192.0.2.1", 0)  # RFC 5737: no machine has it


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://127.0.0.1:")])
def test_the_address_can_be_opened(host: str, shown: str) -> None:
    with listen(host, 0) as listener:
        url = address(listener)
        assert url.startswith(shown)
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5):
            pass


def edgedl_serve(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgedl", "serve", "--json", "--port", "0", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_the_command_gives_one_document_and_renames_bundles(tmp_path: Path) -> None:
    bundle = write_scale_bundle(tmp_path / "a=b.edge").path
    process = edgedl_serve(bundle, f"other={bundle}", "--threads", "1")
    lines: list[str] = []
    while not lines or lines[-1] not in ("}\n", ""):  # the end of the document, or of the program
        lines.append(process.stdout.readline())
    process.terminate()
    rest, err = process.communicate(timeout=20)
    assert (process.returncode, rest) == (0, ""), err
    document = json.loads("".join(lines))
    url = document["url"]
    assert document == {
        "schema_version": 1, "ok": True, "url": url,
        "bundles": [{"name": name, "url": f"{url}/v1/{name}"} for name in ("scale", "other")],
    }  # fmt: skip


@pytest.mark.parametrize("words", [("nothing.edge",), ("a/b=nothing.edge",), ("x=nothing.edge", "--device", "gpu")])
def test_a_service_that_does_not_start_is_one_document_too(words: tuple[str, ...]) -> None:
    out, err = edgedl_serve(*words).communicate(timeout=20)
    document = json.loads(out)
    assert (document["ok"], document["error"]["exit_status"]) == (False, 2)
    assert len(err.strip().splitlines()) == 1
