"""Nothing that was uploaded reaches a disk or a log: `edgedl serve` in a process of its own, in folders of its own."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from runtime.npy import dump_npy
from tests.bundles import write_sums_bundle
from tests.captions import write_caption_bundle
from tests.chars import write_chars_bundle
from tests.digits import write_digits_bundle
from tests.pictures import RGB, chunk, encode, with_segment
from tests.service.processes import ended
from tests.service.test_service_gunicorn import ROOT
from tests.videos import write_video

SECRET = "Kirschbluete7f3a"
MARK = SECRET.encode()
BOUNDARY = "----x"


@contextmanager
def serving(folder: Path, command: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server whose home, temporary files and working folder lie below `folder`; its process and its address."""
    places = {}
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "work"):
        places[name] = str(folder / name)
        (folder / name).mkdir()
    environment = (
        os.environ | places | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    )
    process = subprocess.Popen(
        command, cwd=places["work"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with ended(process):
        yield process, urlsplit(process.stdout.readline().rpartition(" ")[2].strip()).netloc


def form(*files: tuple[str, bytes]) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{SECRET}"; filename="{name}"\r\n\r\n'.encode() + data
        for name, data in files
    ]
    return b"\r\n".join(parts) + f"\r\n--{BOUNDARY}--\r\n".encode()


def requests(video: bytes) -> list[tuple[str, str, bytes]]:
    """Path, content type and body of requests of every kind, good ones and bad ones, each with the mark in it."""
    jpeg = with_segment(encode(RGB), MARK, 0xFE)
    png = encode(RGB, "PNG")
    png = png[:33] + chunk(b"tEXt", MARK + b"\0" + MARK) + png[33:]
    text = json.dumps({"prompt": f"the {SECRET} goes", "length": 20}).encode()
    large = encode(Image.new("RGB", (3000, 2000)), quality=30)
    array = dump_npy(np.frombuffer(MARK.ljust(24, b"x"), np.float32).reshape(1, 2, 3))
    multipart = f"multipart/form-data; boundary={BOUNDARY}"
    return [
        ("/v1/digits", "image/jpeg", jpeg),
        ("/v1/digits", "image/png", png),
        ("/v1/digits", "image/jpeg", with_segment(large, MARK)),
        ("/v1/digits", "application/json", json.dumps({"image": base64.b64encode(jpeg).decode()}).encode()),
        ("/v1/digits", multipart, form((f"{SECRET}.jpg", jpeg), (f"../{SECRET}.png", png))),
        ("/v1/digits", multipart, form((f"{SECRET}.jpg", jpeg + MARK * 1_000_000))),  # long enough to be seen at work
        ("/v1/digits", "image/gif", encode(RGB, "GIF", comment=MARK)),
        ("/v1/digits", "image/jpeg", jpeg[: len(jpeg) // 2]),
        ("/v1/digits", "image/png", png[:-20]),
        ("/v1/digits", "image/jpeg", MARK * 100),
        ("/v1/digits", "application/json", b'{"' + MARK + b'": 1}'),
        ("/v1/digits", "application/json", b"{" + MARK),
        ("/v1/digits", multipart, form((f"{SECRET}.txt", MARK))[:-9]),
        ("/v1/digits", f"text/{SECRET}", MARK),
        (f"/v1/digits?{SECRET}=1", "image/jpeg", jpeg),
        (f"/v1/{SECRET}", "image/jpeg", jpeg),
        ("/v1/digits/drawings", "application/json", b'{"label": "' + MARK + b'"}'),
        ("/v1/caption?thumbnails=1", "video/mp4", video + MARK),
        ("/v1/caption", "video/mp4", video[:200] + MARK),
        ("/v1/caption", "image/png", png),
        ("/v1/caption", multipart, form((f"{SECRET}1.png", png), (f"{SECRET}2.png", png))),
        ("/v1/chars", "application/json", text),
        ("/v1/chars", "application/json", text.replace(b"20", b"-1")),
        ("/v1/sums", "application/x-npy", array),
        ("/v1/sums", "application/json", b'{"' + MARK + b'": [[1]]}'),
        ("/v2/models/digits/infer", "application/json", b'{"inputs": [{"name": "' + MARK + b'"}]}'),
    ]


RAW = [
    f"GET /livez?{SECRET} HTTP/1.1\r\nHost: x\r\nBad Header {SECRET}\r\n\r\n",
    f"{SECRET}\r\n\r\n",
    f"GET {SECRET} HTTP/9.9\r\n\r\n",
    f"POST /v1/digits HTTP/1.1\r\nHost: x\r\nContent-Length: {SECRET}\r\n\r\n",
    f"POST /v1/digits HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}\r\n",
    f"POST /v1/digits HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 500\r\n\r\n{SECRET}",
    f"GET / HTTP/1.1\r\nHost: x\r\n{SECRET}: {'y' * 20_000}\r\n\r\n",
]


def send(address: str, video: bytes) -> dict[int, int]:
    """Sends everything; how often each status was answered."""
    host, port = address.split(":")
    statuses: dict[int, int] = {}
    headers = {"User-Agent": SECRET, "Referer": f"http://{SECRET}/", "Cookie": f"a={SECRET}"}
    headers["Authorization"] = f"Bearer {SECRET}"
    for path, kind, body in requests(video):
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("POST", path, body, {**headers, "Content-Type": kind})
        status = connection.getresponse().status
        statuses[status] = statuses.get(status, 0) + 1
        connection.close()
    for line in RAW:
        with socket.create_connection((host, int(port)), timeout=30) as stream:
            stream.sendall(line.encode())
            stream.shutdown(socket.SHUT_WR)
            while stream.recv(1 << 16):
                pass
    return statuses


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class OpenFiles(threading.Thread):
    """Looks at the files that a process and its children have open, again and again, deleted ones included."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.process, self.seen, self.done, self.looks = process, set(), threading.Event(), 0

    def run(self) -> None:
        while not self.done.is_set():
            children = Path(f"/proc/{self.process}/task/{self.process}/children").read_text().split()
            for number in (str(self.process), *children):
                for link in Path(f"/proc/{number}/fd").iterdir():
                    try:
                        self.seen.add(str(link.readlink()))
                    except OSError:
                        continue  # closed since
            self.looks += 1
            self.done.wait(0.0005)


@pytest.mark.skipif(sys.platform != "linux", reason="open files are listed through /proc")
def test_uploads_reach_no_disk_and_no_log(tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    bundles.mkdir()
    writers = {"digits": write_digits_bundle, "caption": write_caption_bundle, "chars": write_chars_bundle}
    paths = [str(writer(bundles / f"{name}.edge").path) for name, writer in writers.items()]
    paths.append(str(write_sums_bundle(bundles / "sums.edge").path))
    video = write_video(tmp_path / "clip.mp4", 12).read_bytes()
    folder = tmp_path / "server"
    folder.mkdir()
    with serving(folder, [sys.executable, "-m", "edgedl", "serve", *paths, "--port", "0"]) as (process, address):
        before = below(tmp_path)
        watcher = OpenFiles(process.pid)
        watcher.start()
        statuses = send(address, video)
        watcher.done.set()
        watcher.join()
        after = below(tmp_path)
        process.terminate()
        out, errors = process.communicate(timeout=20)
    assert statuses[200] >= 8, statuses
    assert sum(count for status, count in statuses.items() if 400 <= status < 500) >= 12, statuses
    assert after == before, "a file was left behind"
    assert watcher.looks > 20
    # gunicorn's heartbeat lies in shared memory and has no name, and some systems decode a video from there.
    nameless = {name for name in watcher.seen if name.endswith("(deleted)")}
    assert not {name for name in nameless if not name.startswith(("/dev/shm/", "/memfd:"))}
    assert not {name for name in watcher.seen if name.startswith(str(folder))}
    assert SECRET not in out + errors
    assert "Traceback" not in errors


def test_the_access_log_tells_nothing_of_the_sender(tmp_path: Path) -> None:
    code = (
        "from service.gunicorn import serve\n"
        "from tests.service.fake_pipeline import FakePipeline\n"
        "serve([FakePipeline('digits')], port=0, access_log=True)"
    )
    with serving(tmp_path, [sys.executable, "-c", code]) as (process, address):
        send(address, b"")
        process.terminate()
        out, errors = process.communicate(timeout=20)
    lines = [line for line in (out + errors).splitlines() if SECRET in line]
    assert all(f'"POST /v1/{SECRET}" 404' in line for line in lines), "only the path that was asked for"
    assert '"POST /v1/digits" 200' in errors
    assert out == ""
    assert "Invalid request from ip=127.0.0.1" in out + errors, "otherwise nothing was cut off"
