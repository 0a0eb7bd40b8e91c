"""Memory goes back to the system after long requests, and only after those."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import itertools
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from runtime import memory as runtime_memory
from runtime.pipelines import load
from service.app import create_app
from service.bundles.batching import BatchingQueue, Call
from service.bundles.served import Served
from service.server.bodies import WATCH_SECONDS
from service.server.front import Front
from tests.bundles import write_scale_bundle
from tests.service.asgi import ask
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


def test_an_idle_bundle_keeps_nothing_of_what_it_was_asked() -> None:
    """Its thread waits for the next call, and may wait for long."""

    class Picture:
        pass

    picture, done = Picture(), threading.Event()
    kept = weakref.ref(picture)
    queue = BatchingQueue(lambda _calls: None)
    queue.submit(Call(picture, deliver=lambda _call: done.set()))
    assert done.wait(10)
    del picture
    deadline = time.monotonic() + 10
    while kept() is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    queue.close()


@pytest.mark.parametrize("outcome", ["answered", "refused", "refused by Flask", "given up"])
def test_a_picture_is_let_go_with_its_answer(outcome: str) -> None:
    """Not when the garbage collector comes by next, which counts objects and not their megabytes."""
    pictures: list[weakref.ref[np.ndarray]] = []
    busy, free = threading.Event(), threading.Event()

    class Noted(FakePipeline):
        def open_picture(self, source: object, **limits: int) -> np.ndarray:
            picture = super().open_picture(source, **limits)
            pictures.append(weakref.ref(picture))
            return picture

        def predict(self, source: object, **options: object) -> object:
            busy.set()
            assert free.wait(30)
            return super().predict(source, **options)

    free.set()  # for the warm-up run
    front = Front(create_app([Noted()]))
    busy.clear()
    free.clear()
    body, kind = encoded(width=80 if outcome == "answered" else 2), "image/png"
    if outcome == "refused by Flask":
        head = b'--XX\r\nContent-Disposition: form-data; name="i"; filename="a"\r\n\r\n'
        body, kind = head + body + b"\r\n--XX--\r\n", "multipart/form-data; boundary=XX"

    async def some() -> int | None:
        asked = asyncio.create_task(ask(front, "POST", "/v1/age", body, {"Content-Type": kind}))
        await asyncio.to_thread(busy.wait, 30)
        await asyncio.sleep(2 * WATCH_SECONDS)
        if outcome != "given up":
            free.set()
            return (await asked).status
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        free.set()
        return None

    gc.disable()
    try:
        assert asyncio.run(some()) == {"answered": 200, "given up": None}.get(outcome, 422)
        deadline = time.monotonic() + 5  # the thread that answered may still be on its way out
        while pictures[0]() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(pictures) == 1
        assert pictures[0]() is None
    finally:
        gc.enable()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    runtime_memory.give_back()
    runtime_memory.return_large_blocks()
    runtime_memory.share_one_arena()


ARENA = 64 << 20


def arenas(maps: str) -> list[int]:
    """Where the arenas of glibc begin, but for the main one.

    Each has 64 MiB of addresses from a multiple of that on: first what is in use, then what cannot be read. Libraries
    may begin and end at such multiples by chance.
    """
    lines = [line.split() for line in maps.splitlines()]
    spans = [(*(int(bound, 16) for bound in line[0].split("-")), line[1], len(line) == 5) for line in lines]
    return [
        start
        for (start, end, used, unnamed), (after, last, unused, rest) in itertools.pairwise(spans)
        if (used, unused, unnamed, rest) == ("rw-p", "---p", True, True)
        and start % ARENA == 0
        and (after, last) == (end, start + ARENA)
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is seen through /proc")
def test_the_threads_of_a_server_share_one_arena() -> None:
    with running("[Slow()]") as server:
        worker = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()[0]
        for _ in range(16):
            assert server.ask("POST", "/v1/age", encoded(), Content_Type="image/png")[0] == 200
        assert arenas(Path(f"/proc/{worker}/maps").read_text()) == []
