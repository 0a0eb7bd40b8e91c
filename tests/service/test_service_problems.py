"""Every failure is a problem document that says what was found and what was expected, and never a stack trace."""

from __future__ import annotations

import base64
import io
import json
import logging
import struct
import zlib

import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from service.app import create_app
from tests.service.fake_pipeline import FakePipeline, encoded, picture
from tests.waiting import until

PNG = encoded()


def check(response: TestResponse, status: int) -> dict:
    """The document of a problem, after what holds for every one of them."""
    assert response.status_code == status, response.text
    assert response.mimetype == "application/problem+json"
    document = response.json
    assert document["status"] == status
    assert document["type"] == "about:blank"
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == response.headers["X-Request-ID"]
    assert "Traceback" not in response.text
    return document


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


class Stream(io.RawIOBase):
    """A body without end, as a sender without Content-Length can give; counts what was taken of it."""

    def __init__(self, total: int) -> None:
        self.left, self.taken = total, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        size = min(len(buffer), self.left)
        buffer[:size] = b"\xff\xd8\xff" * (size // 3) + b"\0" * (size % 3)
        self.left -= size
        self.taken += size
        return size


def streamed(client: FlaskClient, stream: io.RawIOBase, length: int | None) -> TestResponse:
    """A request as gunicorn hands it over; without a length, as chunks."""
    environ = {"wsgi.input": stream, "wsgi.input_terminated": True}
    if length is not None:
        environ["CONTENT_LENGTH"] = str(length)
    return client.post("/v1/age", content_type="image/jpeg", environ_overrides=environ)


BAD = {
    "empty body": (b"", "image/png", "empty body"),
    "json that is none": (b"{", "application/json", "not JSON"),
    "json of another type": (b"[1]", "application/json", "type array"),
    "json without the key": (b'{"picture": "x"}', "application/json", "keys ['picture']"),
    "json with both keys": (b'{"image": "", "images": []}', "application/json", "keys"),
    "json with no images": (b'{"images": []}', "application/json", "without entries"),
    "json with a number": (b'{"image": 7}', "application/json", "type number"),
    "json with null inside": (b'{"images": [null]}', "application/json", "type null"),
    "base64 that is none": (b'{"image": "a*b"}', "application/json", "not base64"),
    "base64 beyond ASCII": ('{"image": "äöü"}'.encode(), "application/json", "not base64"),
    "multipart without boundary": (b"abc", "multipart/form-data", "cannot be parsed"),
    "multipart that is none": (b"abc", "multipart/form-data; boundary=x", "cannot be parsed"),
    "multipart with text": (
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n',
        "multipart/form-data; boundary=x",
        "text field 'a'",
    ),
    "multipart with an unknown charset": (
        b'--x\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: text/plain; charset=nope\r\n\r\nb\r\n'
        b"--x--\r\n",
        "multipart/form-data; boundary=x",
        "",
    ),
}


@pytest.mark.parametrize(("body", "content_type", "words"), BAD.values(), ids=BAD.keys())
def test_400(client: FlaskClient, body: bytes, content_type: str, words: str) -> None:
    document = check(client.post("/v1/age", data=body, content_type=content_type), 400)
    assert words in document["detail"]
    assert document["found"]
    assert document["expected"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("size=3", "the option 'size'"),
        ("distribution=perhaps", "expected 1 or 0"),
        ("limit=1.5", "expected a whole number"),
        ("limit=" + "9" * 5000, "expected a whole number"),
        ("limit=1&limit=2", "2 times"),
        ("%FF=1", "the option"),
    ],
)
def test_400_for_options(client: FlaskClient, query: str, words: str) -> None:
    response = client.post(f"/v1/age?{query}", data=PNG, content_type="image/png")
    assert words in check(response, 400)["detail"]


def test_400_for_a_body_that_breaks_off(client: FlaskClient) -> None:
    assert "50 of the 90" in check(streamed(client, Stream(50), 90), 400)["detail"]


def test_400_for_a_body_that_the_server_cannot_parse(client: FlaskClient) -> None:
    class Torn(Stream):
        def readinto(self, buffer: bytearray) -> int:
            raise ValueError("Invalid chunk size: zz")

    assert "breaks off" in check(streamed(client, Torn(1), None), 400)["detail"]


def test_404(client: FlaskClient) -> None:
    assert "'nobody'" in check(client.post("/v1/nobody", data=PNG, content_type="image/png"), 404)["detail"]
    assert "/nowhere" in check(client.get("/nowhere"), 404)["detail"]
    check(client.get("/static/../served.py"), 404)


@pytest.mark.parametrize(("method", "path", "allowed"), [("GET", "/v1/age", "POST"), ("POST", "/livez", "GET")])
def test_405(client: FlaskClient, method: str, path: str, allowed: str) -> None:
    response = client.open(path, method=method)
    assert allowed in check(response, 405)["expected"]
    assert allowed in response.headers["Allow"]


def test_413_by_content_length_before_a_byte_is_read(client: FlaskClient) -> None:
    stream = Stream(10**9)
    response = streamed(client, stream, 10**9)
    document = check(response, 413)
    assert "1,000,000,000" in document["found"]
    assert "200,000" in document["expected"]
    assert stream.taken == 0


def test_413_without_content_length_after_the_limit(client: FlaskClient) -> None:
    stream = Stream(10**9)
    assert check(streamed(client, stream, None), 413)["expected"] == "at most 200,000 bytes"
    assert stream.taken <= 200_000 + 1


def test_a_chunked_body_of_just_the_limit_is_read(client: FlaskClient) -> None:
    check(streamed(client, Stream(200_000), None), 422)  # read whole, and found to be no JPEG
    check(streamed(client, Stream(200_001), None), 413)


@pytest.mark.parametrize("make", [lambda: bomb(60_000, 60_000), lambda: bomb(1001, 1000)], ids=["huge", "just over"])
def test_413_for_a_decompression_bomb(client: FlaskClient, pipeline: FakePipeline, make: object) -> None:
    calls = pipeline.calls
    check(client.post("/v1/age", data=make(), content_type="image/png"), 413)
    assert pipeline.calls == calls


def test_413_for_too_many_images(client: FlaskClient) -> None:
    text = base64.b64encode(PNG).decode()
    assert "5 images" in check(client.post("/v1/age", json={"images": [text] * 5}), 413)["found"]
    files = [(io.BytesIO(PNG), "a.png") for _ in range(20)]
    check(client.post("/v1/age", data={"image": files}), 413)


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "image/tiff", "nonsense"]
)
def test_415_lists_what_is_taken(client: FlaskClient, content_type: str) -> None:
    response = client.post("/v1/age", data=PNG, content_type=content_type)
    document = check(response, 415)
    assert "image/webp" in response.headers["Accept"]
    assert "multipart/form-data" in document["expected"]
    if "urlencoded" in content_type:
        assert "curl" in document["detail"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GIF89a" + bytes(20), "the GIF holds no picture"),
        (b"\0\0\0\x18ftypheic", "a HEIC picture, which is not read; save it as JPEG first"),
        (b"just text", "not a JPEG"),
        (PNG[: len(PNG) // 2], ""),
        (b"\xff\xd8\xff" + bytes(100), ""),
        (b"\x93NUMPY" + bytes(50), "npy"),
        (encoded(width=2, height=2), "2 x 2"),
    ],
    ids=["gif", "heic", "text", "half a PNG", "a JPEG's first bytes", "npy of nothing", "too small for the pipeline"],
)
def test_422(client: FlaskClient, data: bytes, words: str) -> None:
    assert words in check(client.post("/v1/age", data=data, content_type="image/jpeg"), 422)["detail"]


def test_422_names_the_image_of_several(client: FlaskClient) -> None:
    good, bad = base64.b64encode(PNG).decode(), base64.b64encode(PNG[:-20]).decode()
    document = check(client.post("/v1/age", json={"images": [good, bad]}), 422)
    assert document["detail"].startswith("Image 2 of 2")


def test_npy_with_a_pickle_is_not_run(client: FlaskClient, tmp_path: object) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    check(client.post("/v1/age", data=stream.getvalue(), content_type="application/x-npy"), 422)


def test_500_shows_an_id_and_logs_the_rest(
    client: FlaskClient, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A picture that the pipeline chokes on, while its warm-up still works: our fault, but the worker is well."""
    answer = pipeline.predict

    def choke(source: np.ndarray, **options: object) -> dict:
        if source.shape[:2] == (60, 80):
            raise RuntimeError("secret /home/somebody")
        return answer(source)

    monkeypatch.setattr(pipeline, "predict", choke)
    with caplog.at_level(logging.ERROR, "edgedl.service"):
        response = client.post("/v1/age", data=PNG, content_type="image/png")
    document = check(response, 500)
    assert "secret" not in response.text
    assert document["request_id"] in caplog.text
    assert "secret /home/somebody" in caplog.text
    assert client.get("/readyz").status_code == 200


def test_a_broken_engine_is_unready(
    client: FlaskClient, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.bundles.health.RETRY_SECONDS", 600.0)
    pipeline.fault = RuntimeError("CUDA error: out of memory")
    response = client.post("/v1/age", data=PNG, content_type="image/png")
    check(response, 503)
    assert int(response.headers["Retry-After"]) > 0
    assert client.get("/livez").status_code == 200
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json["unready"]) == (503, ["age"])
    health = client.get("/health")
    assert health.status_code == 503
    assert health.json["bundles"]["age"] == {"ready": False, "failure": "RuntimeError"} | {
        "warm_up_ms": health.json["bundles"]["age"]["warm_up_ms"]
    }
    assert "CUDA" not in health.text
    assert 'edgedl_ready{bundle="age"} 0.0' in client.get("/metrics").text

    calls = pipeline.calls
    check(client.post("/v1/age", data=PNG, content_type="image/png"), 503)
    assert pipeline.calls == calls, "a broken engine is not tried for every request"


def test_an_engine_that_works_again_comes_back_without_being_asked(
    client: FlaskClient, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.bundles.health.RETRY_SECONDS", 0.05)
    pipeline.fault = RuntimeError("CUDA error: out of memory")
    check(client.post("/v1/age", data=PNG, content_type="image/png"), 503)
    calls = pipeline.calls
    until(lambda: pipeline.calls > calls)
    assert client.get("/readyz").status_code == 503
    pipeline.fault = None
    until(lambda: client.get("/readyz").status_code == 200)
    assert client.post("/v1/age", data=PNG, content_type="image/png").status_code == 200


def test_an_engine_that_never_answers_leaves_the_service_unready() -> None:
    pipeline = FakePipeline()
    pipeline.fault = RuntimeError("broken from the start")
    client = create_app([pipeline]).test_client()
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 503


def test_paths_in_undecodable_bytes(client: FlaskClient) -> None:
    check(client.open("/%ff%fe", method="GET"), 404)
    check(client.post("/v1/%ff", data=PNG, content_type="image/png"), 404)


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CONTENT_TYPES = st.sampled_from(
    [
        "image/jpeg",
        "image/png",
        "image/webp",
        "application/x-npy",
        "application/json",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
        "text/html",
        "",
    ]
) | st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(base64.b64encode(PNG).decode()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["image", "images", "x"]), inner),
    max_leaves=6,
)


def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """A valid file with a few bytes changed, or cut, or repeated."""
    edited = bytearray(data)
    for _ in range(draw(st.integers(0, 6))):
        edited[draw(st.integers(0, len(edited) - 1))] = draw(st.integers(0, 255))
    return bytes(edited[: draw(st.integers(0, len(edited)))]) * draw(st.integers(1, 2))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    stream = io.BytesIO()
    np.save(stream, picture(8, 8))
    form = b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n' + PNG + b"\r\n--x--\r\n"
    valid = draw(st.sampled_from([PNG, encoded(".jpg"), encoded(".webp"), stream.getvalue(), form, b'{"image": ""}']))
    return draw(st.binary(max_size=64)) if draw(st.integers(0, 3)) == 0 else mutated(draw, valid)


@FUZZ
@given(body=bodies(), content_type=CONTENT_TYPES, query=st.text(st.characters(codec="ascii"), max_size=20))
def test_no_body_type_or_query_makes_a_500(client: FlaskClient, body: bytes, content_type: str, query: str) -> None:
    response = client.post("/v1/age", data=body, content_type=content_type, query_string=query)
    assert response.status_code in {200, 400, 413, 415, 422}, response.text
    if response.status_code != 200:
        check(response, response.status_code)


@FUZZ
@given(document=JSON)
def test_no_json_makes_a_500(client: FlaskClient, document: object) -> None:
    body = json.dumps(document)
    response = client.post("/v1/age", data=body, content_type="application/json")
    assert response.status_code in {200, 400, 413, 422}, response.text


@FUZZ
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "BREW"]),
    path=st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    | st.sampled_from(["v1", "v1/age", "v1/", "/v1", "static", "static/..", "metrics/", "livez", "\0", "v1/age/x"]),
)
def test_no_path_or_method_makes_a_500(client: FlaskClient, method: str, path: str) -> None:
    # As a server hands it over: the client would take a host out of a path that begins with two slashes.
    asked = {"PATH_INFO": f"/{path}".encode().decode("latin-1")}
    response = client.open("/", environ_overrides=asked, method=method, buffered=True)
    assert response.status_code < 500, response.text


def test_the_nesting_of_json_does_not_matter(client: FlaskClient) -> None:
    check(client.post("/v1/age", data=b"[" * 100_000, content_type="application/json"), 400)
