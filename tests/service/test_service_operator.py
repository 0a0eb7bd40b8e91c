"""The options of ``edgedl serve``: the manual lists them all, and a real server does what they say."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import inspect
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from edgedl.cli import build_parser, main
from runtime.errors import InputError
from service.app import create_app
from service.gunicorn import serve
from service.server.listening import Tls, listen_at, remove_socket
from tests.bundles import write_scale_bundle, write_sums_bundle
from tests.service.processes import ended
from tests.service.test_service_gunicorn import ROOT, running

TABLE = re.findall(
    r"^\| (`[^|]*`)? ?\| (`\w+`)? ?\| (.*?) \| .* \|$",
    (ROOT / "docs" / "service.md").read_text("utf-8").partition("\n## Options\n")[2].partition("\n### ")[0],
    re.MULTILINE,
)
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


def parser_options() -> dict[str, argparse.Action]:
    """Each option of the verb as the manual writes it, but those that every verb has."""
    everywhere = {"--help", "--json", "--verbose", "--traceback"}
    found = {}
    for action in build_parser().verbs["serve"]._actions:
        if action.option_strings and action.option_strings[-1] not in everywhere:
            word = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
            found[action.option_strings[-1] + (" FORMAT" if action.choices else word)] = action
    return found


def test_the_table_of_the_manual_is_the_parser() -> None:
    options = parser_options()
    listed = {option.strip("`"): default for option, _, default in TABLE if option}
    assert listed.keys() == options.keys()
    for option, default in listed.items():
        said = re.search(r"\(default: ([^)]*)\)", options[option].help or "")
        switch = "off" if options[option].nargs == 0 else "none"
        assert default == (said[1] if said else switch), option


def test_every_setting_is_in_the_table() -> None:
    settings = {*inspect.signature(create_app).parameters, *inspect.signature(serve).parameters}
    assert {setting.strip("`") for _, setting, _ in TABLE if setting} == settings - {"bundles", "settings"}


@pytest.mark.parametrize("option", [name for name, action in parser_options().items() if action.type is not None])
@pytest.mark.parametrize("value", ["x", "-1", "1e99", ""])
def test_what_is_out_of_range_is_one_sentence(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "b.edge", f"{option.split()[0]}={value}"]) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in errors.splitlines() if line.startswith("edgedl: ")]
    assert option.split()[0] in line
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "no bundle to serve"),
        (("b.edge", "--tls-cert", "c.pem"), "--tls-cert and --tls-key belong together"),
        (("b.edge", "--prefix", "x y"), "'x y' is no prefix"),
        (("b.edge", "--proxy", "localhost"), "'localhost' is no address of a proxy"),
        (("b.edge", "--cors", "https://a.example/path"), "is not an origin"),
        (("b.edge", "--log-format", "xml"), "--log-format"),
        (("b.edge", "--api-keys", "/nonexistent"), "/nonexistent: No such file"),
        (("b.edge", "--socket", "/nonexistent/s"), "cannot make the socket /nonexistent/s"),
        (("b.edge", "--socket", "/tmp/" + "x" * 200), "cannot make the socket"),
        (("b.edge", "--tls-cert", "/nonexistent", "--tls-key", "/nonexistent"), "/nonexistent: No such file"),
        (("--new-api-key", "a b"), "is no name for a key"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_status_2(
    words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import service.gunicorn as module

    monkeypatch.setattr(module, "configure", lambda *_, **__: None)  # this process has a log of its own
    assert main(["serve", *words]) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in errors.splitlines() if line.startswith("edgedl: ")]
    assert says in line


def test_a_key_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--new-api-key", "phone", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["line"] == f"phone:{hashlib.sha256(made['key'].encode()).hexdigest()}"
    assert main(["serve", "--new-api-key", "phone"]) == 0
    assert re.fullmatch(r"key   edgedl_\S{43}\nline  phone:[0-9a-f]{64}\n", capsys.readouterr().out)


def test_a_socket_that_is_left_over_is_replaced_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listen_at(str(path)) as first:
        made = path.lstat()
        assert made.st_mode & 0o777 == 0o660
        with pytest.raises(InputError, match="somebody listens"):
            listen_at(str(path))
        first.close()
    with listen_at(str(path)):  # the first one is left over
        remove_socket(str(path), made)
        assert path.exists(), "another one's socket stays"
        remove_socket(str(path), path.lstat())
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(InputError, match="is no socket"):
        listen_at(str(path))
    assert path.read_text() == "mine"


def openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cert.pem and key.pem of 127.0.0.1, locked.pem with a password, other.pem of nobody."""
    folder = tmp_path_factory.mktemp("tls")
    curve = ("-pkeyopt", "ec_paramgen_curve:prime256v1")
    openssl(
        "req", "-x509", "-newkey", "ec", *curve, "-nodes", "-days", "2", "-subj", "/CN=here", "-addext",
        "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem",
    )  # fmt: skip
    openssl("genpkey", "-algorithm", "EC", *curve, "-out", f"{folder}/other.pem")
    openssl("pkey", "-in", f"{folder}/key.pem", "-aes256", "-passout", "pass:x", "-out", f"{folder}/locked.pem")
    return folder


@needs_openssl
@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("other", "not the key of this certificate"),
        ("locked", "has a password"),
        ("cert", "not a certificate and"),
    ],
)
def test_keys_that_do_not_do(certificate: Path, key: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Tls(f"{certificate}/cert.pem", f"{certificate}/{key}.pem").context()


@contextmanager
def serving(*words: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``edgedl serve``, and the address that it gave."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgedl", "serve", *map(str, words), "--threads", "1"], cwd=ROOT, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with ended(process):
        yield process, process.stdout.readline().rpartition(" ")[2].strip()


class UnixConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self.host)


def test_a_server_behind_a_proxy_with_keys_workers_and_a_log_as_json(tmp_path: Path) -> None:
    bundle = write_scale_bundle(tmp_path / "scale.edge", proven=False).path
    path, key = tmp_path / "s", "edgedl_example"
    listed = f"phone:{hashlib.sha256(key.encode()).hexdigest()}"
    words = (bundle, "--socket", path, "--prefix", "/x", "--proxy", "unix", "--workers", "2", "--access-log")
    with serving(*words, "--log-format", "json", EDGEDL_API_KEYS=listed) as (process, url):
        assert url == f"http://unix:{path}:/x"

        def get(where: str, **headers: str) -> tuple[int, bytes]:
            with closing(UnixConnection(str(path))) as connection:
                connection.putrequest("GET", where, skip_host=True)
                for name, value in {"Host": "x", **headers}.items():
                    connection.putheader(name.replace("_", "-"), value)
                connection.endheaders()
                response = connection.getresponse()
                return response.status, response.read()

        known = {"Authorization": f"Bearer {key}"}
        assert get("/livez")[0] == 200
        assert get("/x/v1")[0] == get("/x/v1", Authorization="Bearer edgedl_wrong")[0] == 401
        status, body = get("/x/v1", X_Forwarded_Prefix="/out", X_Request_ID="proxy-7", **known)
        assert (status, json.loads(body)["bundles"][0]["url"]) == (200, "/out/x/v1/scale")
        workers = set()
        deadline = time.monotonic() + 30
        while len(workers) < 2 and time.monotonic() < deadline:
            exposition = get("/x/metrics", **known)[1].decode()
            workers |= set(re.findall(r'edgedl_connections\{worker="(\d)"\} 1\.0', exposition))
        assert workers == {"1", "2"}
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(path))
            stranger.sendall(b"NO REQUEST AT ALL\r\n\r\n")
            head = stranger.recv(9999).decode()
        process.terminate()
        out, errors = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    assert not path.exists()
    assert key not in errors
    lines = [json.loads(line) for line in errors.splitlines()]
    assert {line["logger"] for line in lines} == {"edgedl.access", "gunicorn.error"}
    (asked,) = [line for line in lines if line.get("request_id") == "proxy-7"]
    assert (asked["route"], asked["status"], asked["key"]) == ("/v1", 200, "phone")
    assert [line["error"] for line in lines if line.get("status") == 401] == ["unauthorized"] * 2
    unreadable = [line for line in lines if line.get("status") == 400]
    assert len({line["request_id"] for line in unreadable}) == 1
    assert unreadable[0]["request_id"] in head


@needs_openssl
def test_tls(certificate: Path, tmp_path: Path) -> None:
    bundle = write_scale_bundle(tmp_path / "scale.edge", proven=False).path
    words = ("--port", 0, "--tls-cert", certificate / "cert.pem", "--tls-key", certificate / "key.pem")
    with serving(bundle, *words) as (process, url):
        scheme, _, place = url.partition("://")
        host, port = place.split(":")
        assert scheme == "https"
        trusted = ssl.create_default_context(cafile=certificate / "cert.pem")
        with closing(http.client.HTTPSConnection(host, int(port), timeout=20, context=trusted)) as connection:
            connection.request("GET", "/readyz")
            assert connection.getresponse().read().startswith(b'{"status":"ready"')
        with closing(http.client.HTTPConnection(host, int(port), timeout=20)) as connection:
            connection.request("GET", "/livez")
            response = connection.getresponse()
            assert (response.status, response.headers["Content-Type"]) == (400, "application/problem+json")
            assert "came as plain HTTP" in json.load(response)["detail"]
        old = subprocess.run(
            ["openssl", "s_client", "-connect", place, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
            input=b"", capture_output=True, timeout=20, check=False,
        )  # fmt: skip
        assert old.returncode != 0
        process.terminate()
        out, errors = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    assert re.fullmatch(r".* Invalid request from ip=127.0.0.1 \(request \w+\)\n", errors)


@needs_openssl
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"], ids=["nothing", "three bytes"])
def test_a_handshake_that_does_not_come_counts_and_ends(certificate: Path, sent: bytes) -> None:
    patience = "from service.server import worker, handshakes\nfrom service.server.listening import Tls\n"
    patience += "worker.HEAD_SECONDS, worker.GOODBYE_SECONDS, handshakes.MOST_BEYOND = 1.5, 0.5, 1"
    tls = Tls(str(certificate / "cert.pem"), str(certificate / "key.pem"))
    trusted = ssl.create_default_context(cafile=certificate / "cert.pem")
    with running("[FakePipeline()]", before=patience, tls=tls, connections=4) as server:
        place = urlsplit(server.url)

        def ask() -> http.client.HTTPResponse:
            connection = http.client.HTTPSConnection(place.hostname, place.port, timeout=20, context=trusted)
            with closing(connection):
                connection.request("GET", "/metrics", headers={"Connection": "close"})
                response = connection.getresponse()
                response.text = response.read().decode()
                return response

        with contextlib.ExitStack() as stack:
            silent = []
            for _ in range(3):
                silent.append(stack.enter_context(socket.create_connection((place.hostname, place.port), timeout=20)))
                silent[-1].sendall(sent)
            time.sleep(0.1)
            assert "edgedl_connections 4.0" in ask().text
            silent.append(stack.enter_context(socket.create_connection((place.hostname, place.port), timeout=20)))
            time.sleep(0.1)
            assert ask().status == 503
            for connection in silent:
                with contextlib.suppress(ConnectionResetError):
                    assert connection.recv(1) == b""
        assert "edgedl_connections 1.0" in ask().text
        idle = http.client.HTTPSConnection(place.hostname, place.port, timeout=20, context=trusted)
        with closing(idle):  # it does not look at its connection any more, and holds up nobody
            idle.request("GET", "/livez")
            assert idle.getresponse().read()
            assert server.stop()[0] == 0


def test_a_bundle_that_streams_is_served_by_one_process(tmp_path: Path) -> None:
    bundle = write_sums_bundle(tmp_path / "sums.edge").path
    with serving(bundle, "--port", 0, "--workers", 2) as (process, _):
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert errors == (
        "edgedl serve: the bundle 'sums' carries a state from step to step, and a stream lives in one process; it "
        "cannot be served by 2 workers: take one\n"
    )
