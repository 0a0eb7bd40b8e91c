"""The commands of docs/service.md, run as they stand against a server."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from flask import Flask
from werkzeug.serving import make_server

from service.app import create_app
from tests.captions import write_caption_bundle
from tests.digits import write_digits_bundle
from tests.service.fake_pipeline import FakePipeline, ShownPipeline, encoded
from tests.timers import write_timer_bundle
from tests.videos import write_video

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "service.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(create_app([ShownPipeline()])) as url:
        yield url


@pytest.fixture
def clips_url(tmp_path: Path) -> Iterator[str]:
    with serving(create_app([write_caption_bundle(tmp_path / "caption.edge")])) as url:
        yield url


@pytest.fixture
def graphs_url(tmp_path: Path) -> Iterator[str]:
    bundles = [write_timer_bundle(tmp_path / "timer.edge"), write_digits_bundle(tmp_path / "digits.edge")]
    with serving(create_app(bundles, threads=1)) as url:
        yield url


def run(command: str, url: str, folder: Path) -> str:
    (folder / "photo.jpg").write_bytes(encoded(".jpg"))
    script = "set -eo pipefail\n" + command.replace("http://127.0.0.1:8000", url)
    return subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("command", [c for c in COMMANDS if "/v1/age" in c and ("Content-Type" in c or "-F" in c)])
def test_commands_that_ask_get_an_answer(command: str, url: str, tmp_path: Path) -> None:
    answer = orjson.loads(run(command, url, tmp_path))
    assert len(answer["results"]) == (2 if "-F" in command else 1)
    for result in answer["results"]:
        assert len(result["faces"]) == 2
        assert ("probabilities" in result["faces"][0]) is ("distribution=1" in command)


@pytest.mark.parametrize("command", [c for c in COMMANDS if "/v1/caption" in c])
def test_commands_that_ask_about_a_clip(command: str, clips_url: str, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", 50)
    (result,) = orjson.loads(run(command, clips_url, tmp_path))["results"]
    (shown,) = [orjson.loads(text) for text in re.findall(r"```json\n(\{\"name\": \"caption\".*?)```", PAGE, re.DOTALL)]
    assert result.keys() == shown["results"][0].keys()
    assert result["alternatives"][0].keys() == shown["results"][0]["alternatives"][0].keys()
    thumbnails = {"thumbnail"} if "thumbnails=1" in command else set()
    assert result["frames"][0].keys() == {"index", "seconds"} | thumbnails
    assert len(result["frames"]) == (2 if "-F" in command else 4)


@pytest.mark.parametrize("command", [c for c in COMMANDS if ("/v1/timer" in c and "inputs" in c) or "/drawings" in c])
def test_commands_that_send_arrays_and_wishes(command: str, graphs_url: str, tmp_path: Path) -> None:
    answer = orjson.loads(run(command, graphs_url, tmp_path))
    if "/drawings" in command:
        assert (answer["results"][0]["drawn"]["label"], answer["results"][0]["drawn"]["seed"]) == (7, 3)
    else:
        (shown,) = [
            orjson.loads(text) for text in re.findall(r"```json\n(\{\"name\": \"timer\".*?)```", PAGE, re.DOTALL)
        ]
        assert answer == shown


def test_the_shown_problem_is_the_real_one(url: str, tmp_path: Path) -> None:
    (command,) = [c for c in COMMANDS if "/v1/age" in c and not any(s in c for s in ("Content-Type", "-F", "/livez"))]
    problem = orjson.loads(run(command, url, tmp_path))
    (shown,) = [orjson.loads(text) for text in re.findall(r"```json\n(\{\"type\".*?)```", PAGE, re.DOTALL)]
    assert list(problem) == list(shown)
    for key in ("type", "title", "status", "found"):
        assert problem[key] == shown[key]
    for key in ("detail", "expected"):
        assert problem[key].startswith(shown[key].rstrip("…"))


def test_the_shown_proof_has_the_keys_of_a_real_one(graphs_url: str, tmp_path: Path) -> None:
    (shown,) = [orjson.loads(text) for text in re.findall(r"```json\n(\{\"status\".*?)```", PAGE, re.DOTALL)]
    told = orjson.loads(run("curl -sS http://127.0.0.1:8000/readyz", graphs_url, tmp_path))
    assert told.keys() == shown.keys()
    assert [row.keys() for row in told["bundles"]] == 2 * [shown["bundles"][0].keys()]


def test_every_route_of_the_table_answers(url: str, tmp_path: Path) -> None:
    (commands,) = [c for c in COMMANDS if "/livez" in c]
    routes = {route.replace("NAME", "age") for route in re.findall(r"\| `GET (/\S*)`", PAGE)} - {"/"}
    assert set(re.findall(r"8000(/\S+)", commands)) == routes
    for command in commands.splitlines():
        assert run(command.replace("curl ", "curl --fail -sS "), url, tmp_path)


def test_the_table_of_statuses_is_that_of_openapi(url: str) -> None:
    described = create_app([FakePipeline()]).test_client().get("/openapi.json").json["paths"]["/v1/age"]["post"]
    table = PAGE[PAGE.index("| status | when |") :].split("\n\n")[0]
    statuses = set(re.findall(r"\b([45]\d\d)\b", "".join(line.split("|")[1] for line in table.splitlines())))
    assert statuses == set(described["responses"]) - {"200"}
