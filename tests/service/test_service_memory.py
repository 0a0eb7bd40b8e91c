"""Memory goes back to the system after long requests, and only after those."""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path

import pytest

from runtime import memory as runtime_memory
from runtime.pipelines import load
from service.bundles.batching import BatchingQueue
from service.bundles.served import Served
from tests.bundles import write_scale_bundle
from tests.service.fake_pipeline import FakePipeline, encoded
from tests.service.test_service_gunicorn import running


@pytest.mark.parametrize(
    ("arrays", "sent", "seconds", "marked"),
    [
        (False, 1 << 20, 0.1, False), (False, 1 << 20, 1.0, True), (False, 16 << 20, 0.1, True),
        (True, 1 << 10, 9.0, False), (True, 1 << 20, 0.0, True),
    ],
)  # fmt: skip
def test_only_long_and_large_requests_give_memory_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arrays: bool, sent: int, seconds: float, marked: bool
) -> None:
    one = Served(load(write_scale_bundle(tmp_path / "scale.edge").path) if arrays else FakePipeline())
    asked: list[int] = []
    monkeypatch.setattr(one.queue, "mark", lambda: asked.append(0))
    one.mark(sent, seconds)
    assert bool(asked) == marked


def test_memory_is_given_back_once_the_bundle_is_idle() -> None:
    """However many requests asked for it, and by the thread that runs the bundle."""
    tidied: list[str] = []
    done = threading.Event()

    def tidy() -> None:
        tidied.append(threading.current_thread().name)
        done.set()

    queue = BatchingQueue(lambda _calls: None, tidy=tidy)
    for _ in range(5):
        queue.mark()
    assert done.wait(10)
    queue.close()
    assert tidied == ["edgedl-bundle"]


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
