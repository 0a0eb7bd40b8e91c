"""Where the service stands: below a prefix, behind a proxy that was named, and not behind one that was not."""

from __future__ import annotations

import asyncio
import json

import pytest
from flask import Flask

from runtime.errors import InputError
from service.server.front import Front
from service.server.places import Places
from tests.service.asgi import Answered, ask
from tests.service.fake_pipeline import encoded

HERE, ELSEWHERE = ("127.0.0.1", 9), ("192.0.2.7", 9)


@pytest.mark.parametrize(
    ("prefix", "proxies", "path", "headers", "client", "found"),
    [
        ("", [], "/v1", {}, HERE, ("", "/v1")),
        ("/a", [], "/a/v1", {}, HERE, ("/a", "/v1")),
        ("/a/", [], "/a/v1", {}, HERE, ("/a", "/v1")),
        ("/a/b", [], "/a/b", {}, HERE, ("/a/b", "")),
        ("/a", [], "/ab/v1", {}, HERE, ("/a", None)),
        ("/a", [], "/v1", {}, HERE, ("/a", None)),
        ("", ["127.0.0.1"], "/v1", {"x-forwarded-prefix": "/p/"}, HERE, ("/p", "/v1")),
        ("", ["127.0.0.0/8"], "/v1", {"x-forwarded-prefix": "/p"}, HERE, ("/p", "/v1")),
        ("", ["127.0.0.1"], "/v1", {"x-forwarded-prefix": "/p"}, ELSEWHERE, ("", "/v1")),
        ("", ["*"], "/v1", {"x-forwarded-prefix": "/p"}, ELSEWHERE, ("/p", "/v1")),
        ("", ["unix"], "/v1", {"x-forwarded-prefix": "/p"}, HERE, ("", "/v1")),
        ("", ["unix"], "/v1", {"x-forwarded-prefix": "/p"}, None, ("/p", "/v1")),
        ("", ["127.0.0.1"], "/v1", {"x-forwarded-prefix": "/p"}, None, ("", "/v1")),
        ("", [], "/v1", {"x-forwarded-prefix": "/p", "script_name": "/p"}, HERE, ("", "/v1")),
        ("", ["127.0.0.1"], "/p/v1", {"script_name": "/p"}, HERE, ("/p", "/v1")),
        ("", ["127.0.0.1"], "/q/v1", {"script_name": "/p"}, HERE, ("", "/q/v1")),
        ("/a", ["127.0.0.1"], "/a/v1", {"x-forwarded-prefix": "/p"}, HERE, ("/p/a", "/v1")),
        ("", ["127.0.0.1"], "/v1", {"x-forwarded-prefix": "//evil.example"}, HERE, ("", "/v1")),
        ("", ["127.0.0.1"], "/v1", {"x-forwarded-prefix": "/../x"}, HERE, ("", "/v1")),
        ("", ["127.0.0.1"], "/v1", {"x-forwarded-prefix": "/a\r\nb"}, HERE, ("", "/v1")),
        ("", ["127.0.0.1"], "/v1", {"x-forwarded-prefix": "p"}, HERE, ("", "/v1")),
    ],
)
def test_a_path_is_split_where_it_is_said_by_whom_it_may(
    prefix: str, proxies: list[str], path: str, headers: dict[str, str], client: object, found: tuple[str, str | None]
) -> None:
    sent = {name.encode(): value.encode() for name, value in headers.items()}
    assert Places.of(prefix, proxies).find({"path": path, "client": client}, sent) == found


@pytest.mark.parametrize("prefix", ["a", "/a b", "/é", "/../x", "//a", "/a?b", "https://x"])
def test_what_is_no_prefix(prefix: str) -> None:
    with pytest.raises(InputError, match="is no prefix"):
        Places.of(prefix, [])


@pytest.mark.parametrize("proxy", ["localhost", "10.0.0.1/8", "1.2.3", "", "10.0.0.1:80"])
def test_what_is_no_proxy(proxy: str) -> None:
    with pytest.raises(InputError, match="is no address of a proxy"):
        Places.of("", [proxy])


def get(app: Flask, path: str, method: str = "GET", **headers: str) -> Answered:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    front = Front(app, places=Places.of("/edgedl", ["127.0.0.1"]))
    return asyncio.run(ask(front, method, path, encoded() if method == "POST" else b"", names))


def test_everything_works_below_a_prefix(app: Flask) -> None:
    (bundle,) = json.loads(get(app, "/edgedl/v1").body)["bundles"]
    assert bundle["url"] == "/edgedl/v1/age"
    assert bundle["versions"] == [{"version": "1.2.3", "url": "/edgedl/v1/age/versions/1.2.3"}]
    assert get(app, bundle["url"], "POST", Content_Type="image/png").status == 200
    assert json.loads(get(app, "/edgedl/openapi.json").body)["servers"] == [{"url": "."}]
    page = get(app, "/edgedl/").body
    assert b'src="static/page.js"' in page
    assert get(app, "/edgedl/static/page.js").status == 200
    moved = get(app, "/edgedl")
    assert (moved.status, moved.headers["location"]) == (308, "/edgedl/")
    missing = json.loads(get(app, "/edgedl/nowhere").body)
    assert "GET /edgedl/openapi.json lists" in missing["detail"]


def test_a_proxy_that_takes_its_prefix_off_is_answered_with_it(app: Flask) -> None:
    (bundle,) = json.loads(get(app, "/edgedl/v1", X_Forwarded_Prefix="/out").body)["bundles"]
    assert bundle["url"] == "/out/edgedl/v1/age"


def test_outside_of_the_prefix_there_are_the_probes_alone(app: Flask) -> None:
    for path in ("/livez", "/readyz", "/edgedl/livez", "/edgedl/readyz"):
        assert get(app, path).status == 200
    for path in ("/", "/v1", "/edgedlx/v1"):
        answered = get(app, path)
        assert answered.status == 404
        assert "this service answers below /edgedl/" in json.loads(answered.body)["detail"]


def test_flask_alone_takes_the_prefix_of_its_server(app: Flask) -> None:
    (bundle,) = app.test_client().get("/v1", environ_overrides={"SCRIPT_NAME": "/a"}).json["bundles"]
    assert bundle["url"] == "/a/v1/age"
