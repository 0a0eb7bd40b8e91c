"""Memory goes back to the system after long requests, and only after those."""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

import cv2
import numpy as np
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


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured through /proc")
def test_a_server_that_read_large_pictures_is_as_small_as_before() -> None:
    """Sixteen pictures of 25 MB, whoever of eight threads reads each."""
    with running("[Slow()]") as server:
        worker = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()[0]

        def memory_of_the_worker() -> int:
            lines = Path(f"/proc/{worker}/status").read_text().splitlines()
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))

        assert server.ask("POST", "/v1/age", encoded(), Content_Type="image/png")[0] == 200
        before = memory_of_the_worker()
        noise = np.random.default_rng(0).integers(0, 256, (2900, 2900, 3), dtype=np.uint8)
        large = cv2.imencode(".bmp", noise)[1].tobytes()
        for _ in range(16):
            assert server.ask("POST", "/v1/age", large, Content_Type="image/png")[0] == 200
        for _ in range(100):  # the answer is there before the memory is given back
            if memory_of_the_worker() - before < 24 << 20:
                return
            time.sleep(0.1)
        assert memory_of_the_worker() - before < 24 << 20
