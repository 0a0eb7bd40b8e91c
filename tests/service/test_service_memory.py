"""Memory goes back to the system after long requests, and only after those."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from runtime import memory as runtime_memory
from service import memory
from tests.service.fake_pipeline import FakePipeline, encoded
from tests.service.test_service_gunicorn import running


def test_only_long_and_large_requests_give_memory_back(
    client: FlaskClient, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(runtime_memory, "give_back", lambda: asked.append(0))
    memory.give_back(0.1, 1 << 20)
    assert not asked
    memory.give_back(1.0, 1 << 20)
    memory.give_back(0.1, 16 << 20)
    assert asked == [0, 0]
    data = encoded()
    for seconds, size, expected in ((0.0, 1 << 30, 3), (1e9, len(data) - 1, 4), (1e9, len(data), 4)):
        monkeypatch.setattr(memory, "LONG_SECONDS", seconds)
        monkeypatch.setattr(memory, "LARGE_BYTES", size)
        with client.post("/v1/age", data=data, content_type="image/png") as response:
            assert response.status_code == 200
        assert len(asked) == expected


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    runtime_memory.give_back()
    runtime_memory.return_large_blocks()
    runtime_memory.share_one_arena()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is seen through /proc")
def test_the_threads_of_a_server_share_one_arena() -> None:
    """An arena of glibc is 64 MiB of addresses that begin at a multiple of that; the main one is none of these."""
    with running("[Slow()]") as server:
        worker = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()[0]
        for _ in range(16):
            assert server.ask("POST", "/v1/age", encoded(), Content_Type="image/png")[0] == 200
        lines = [line.split() for line in Path(f"/proc/{worker}/maps").read_text().splitlines()]
        spans = [[int(bound, 16) for bound in line[0].split("-")] for line in lines if len(line) == 5]
        ends = {(start >> 26, end) for start, end in spans}
        arenas = [start for start, _ in spans if start % (64 << 20) == 0 and (start >> 26, start + (64 << 20)) in ends]
        assert arenas == []
