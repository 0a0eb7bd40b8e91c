"""API keys: who has none learns nothing but that one is needed, and no log learns a key."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import pytest
from flask import Flask

from runtime.errors import InputError
from service.app import create_app
from service.keys import Keys, new_key, parse_keys, read_keys
from service.server.front import Front
from tests.service.asgi import Answered, ask
from tests.service.fake_pipeline import FakePipeline, encoded

PNG = {"Content-Type": "image/png"}
KEY = "edgedl_example"
KEYS = Keys((("phone", hashlib.sha256(KEY.encode()).digest()), ("other", hashlib.sha256(b"x").digest())))


@pytest.fixture
def guarded() -> Flask:
    return create_app([FakePipeline()], keys=KEYS, max_bytes=10_000, cors_origins=["https://a.example"])


def both(app: Flask, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[Answered, Answered]:
    front = asyncio.run(ask(Front(app), method, path, body, headers))
    with app.test_client().open(path, method=method, data=body, headers=headers) as response:
        names = {name.lower(): value for name, value in response.headers.items()}
        return front, Answered(response.status_code, names, [response.data])


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (None, ""),
        ("", ""),
        ("Bearer", ', error="invalid_token"'),
        ("Bearer wrong", ', error="invalid_token"'),
        (f"Basic {KEY}", ', error="invalid_token"'),
        (KEY, ', error="invalid_token"'),
        (f"Bearer {KEY} {KEY}", ', error="invalid_token"'),
        ("Bearer \xff\x00", ', error="invalid_token"'),
        (f"Bearer {hashlib.sha256(KEY.encode()).hexdigest()}", ', error="invalid_token"'),
    ],
)
def test_who_has_no_key_gets_401_before_the_body_is_looked_at(guarded: Flask, sent: str | None, error: str) -> None:
    headers = PNG | ({} if sent is None else {"Authorization": sent})
    for answered in both(guarded, "POST", "/v1/age", headers, bytes(20_000)):  # 413, for who has a key
        assert answered.status == 401
        assert answered.headers["www-authenticate"] == f'Bearer realm="edgedl"{error}'
        document = json.loads(answered.body)
        assert (document["status"], document["title"]) == (401, "Unauthorized")
        assert "Authorization: Bearer KEY" in document["detail"]
        assert document["request_id"] == answered.headers["x-request-id"]
        assert KEY not in answered.body.decode()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
@pytest.mark.parametrize("key", [KEY, "x"])
def test_who_has_one_is_answered(guarded: Flask, scheme: str, key: str) -> None:
    for answered in both(guarded, "POST", "/v1/age", {**PNG, "Authorization": f"{scheme} {key}"}, encoded()):
        assert answered.status == 200


@pytest.mark.parametrize(
    ("path", "method", "open_"),
    [
        ("/livez", "GET", True), ("/readyz", "GET", True), ("/readyz", "HEAD", True), ("/", "GET", True),
        ("/static/page.js", "GET", True), ("/v2/health/ready", "GET", True), ("/v1/age", "OPTIONS", True),
        ("/health", "GET", False), ("/metrics", "GET", False), ("/openapi.json", "GET", False), ("/v1", "GET", False),
        ("/v2", "GET", False), ("/v2/models", "GET", False), ("/nowhere", "GET", False),
    ],
)  # fmt: skip
def test_probes_and_the_page_are_open(guarded: Flask, path: str, method: str, open_: bool) -> None:
    for answered in both(guarded, method, path, {"Origin": "https://a.example"}):
        assert (answered.status != 401) is open_
        assert answered.headers["access-control-allow-origin"] == "https://a.example", "or a page could not read why"
    if method == "OPTIONS":
        assert "Authorization" in answered.headers["access-control-allow-headers"]


def test_every_key_is_compared_whichever_was_sent(monkeypatch: pytest.MonkeyPatch, guarded: Flask) -> None:
    """A wrong key, the first and the last one take the same comparisons."""
    import service.keys as module

    compared: list[bytes] = []

    def count(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr(module.hmac, "compare_digest", count)
    numbers = []
    for key in (KEY, "x", "wrong", ""):
        compared.clear()
        asyncio.run(ask(Front(guarded), "GET", "/v1", headers={"Authorization": f"Bearer {key}"}))
        numbers.append(len(compared))
    assert numbers == [2, 2, 2, 2]


def test_openapi_says_what_needs_a_key(guarded: Flask, app: Flask) -> None:
    document = guarded.test_client().get("/openapi.json", headers={"Authorization": f"Bearer {KEY}"}).json
    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            needs = path not in ("/", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready")
            assert ("security" in operation) is needs, path
            assert ("401" in operation["responses"]) is needs
    assert "securitySchemes" not in app.test_client().get("/openapi.json").json["components"]


def test_a_new_key_is_known_by_its_line(tmp_path: Path) -> None:
    key, line = new_key("phone")
    assert len(key) > 43, "32 random bytes"
    assert new_key("phone")[0] != key
    assert line == f"phone:{hashlib.sha256(key.encode()).hexdigest()}"
    path = tmp_path / "keys"
    path.write_text(f"# a comment\n\n  {line}\n")
    assert read_keys(path).digests == (("phone", hashlib.sha256(key.encode()).digest()),)


HASH = "ab" * 32


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no key"),
        ("# nothing", "there is no key"),
        (f"a:{HASH}\na:{HASH}", "line 2 has the name 'a' a second time"),
        (f"a:{HASH[:-1]}", "line 1 is not of the form NAME:SHA256"),
        (f"\n{HASH}", "line 2 is not of the form"),
        (f"a b:{HASH}", "line 1 is not of the form"),
        ("edgedl_secret", "line 1 is not of the form"),
    ],
)
def test_lines_that_are_none_are_refused_and_not_shown(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        parse_keys(text.splitlines(), "keys")
    assert str(caught.value).startswith("keys: ")
    assert "edgedl_secret" not in str(caught.value)


def test_files_and_names_that_do_not_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_keys(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="this is no text"):
        read_keys(tmp_path / "binary")
    for name in ("", "a b", "a:b", "é", "x" * 65):
        with pytest.raises(InputError, match="is no name for a key"):
            new_key(name)
