"""Whoever asks for much at once, or reads nothing, is answered after the others."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest

from service.app import create_app
from service.server.front import Front
from service.server.turns import Turns
from tests.service.asgi import ask
from tests.service.fake_pipeline import FakePipeline, encoded
from tests.service.test_service_gunicorn import Server, running

NOTED_TURNS = """
from service.server.turns import Turns
original = Turns.next
async def noted(self):
    print("a turn", flush=True)
    await original(self)
Turns.next = noted
"""


def test_what_a_client_does_not_read_holds_up_what_else_it_has_asked() -> None:
    """It asks six hundred times at once: as long as it reads nothing, it gets no more answers than fit its way.

    Before each but the first one it waits for its turn.
    """

    def answered(server: Server) -> int:
        metrics = server.ask("GET", "/metrics")[2]
        found = re.search(rb'edgedl_requests_total{.*route="/livez".*} (\d+)', metrics)
        return int(found[1]) if found else 0

    with running("[Slow()]", before=NOTED_TURNS) as server, closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", urlsplit(server.url).port))
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 600)
        time.sleep(0.5)
        assert 1 <= answered(server) <= 80, "33 were seen, and 139 with what the server would keep besides"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        with connection.makefile("rb") as stream:
            for _ in range(600):
                head = b"".join(iter(stream.readline, b"\r\n"))
                assert head.startswith(b"HTTP/1.1 200 ")
                assert stream.read(18) == b'{"status":"alive"}'
        server.process.terminate()
        assert server.process.communicate(timeout=20)[0].splitlines() == ["a turn"] * 599


def test_who_brings_many_requests_at_once_lets_others_go_first() -> None:
    """However many wait, a round of the event loop lets a few go on, in their order; who has given up takes no turn."""
    done: list[int] = []

    async def some() -> list[int]:
        loop = asyncio.get_running_loop()
        turns, rounds = Turns(loop), []

        async def one(number: int) -> None:
            await turns.next()
            done.append(number)

        waiting = [loop.create_task(one(number)) for number in range(100)]
        await asyncio.sleep(0)
        waiting[99].cancel()
        while len(done) < 99:
            before = len(done)
            await asyncio.sleep(0)
            rounds.append(len(done) - before)
        await asyncio.wait_for(turns.next(), 1)
        return rounds

    rounds = asyncio.run(some())
    assert max(rounds) <= 4
    assert done == list(range(99))


def test_pictures_do_not_wait_behind_what_flask_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads of Flask are taken and as many requests wait as may: a picture is answered all the same."""
    monkeypatch.setattr("service.server.pools.MOST_WAITING", 1)
    free, app = threading.Event(), create_app([FakePipeline()])
    original = app.wsgi_app

    def blocked(environ: Any, start: Any) -> Any:
        assert free.wait(30)
        return original(environ, start)

    async def some() -> list[int]:
        front = Front(app, threads=1)
        with monkeypatch.context() as patched:
            patched.setattr(app, "wsgi_app", blocked)
            first = asyncio.create_task(ask(front, "GET", "/v1"))
            await asyncio.sleep(0.05)
            second = (await ask(front, "GET", "/v1")).status
            picture = (await ask(front, "POST", "/v1/age", encoded(), {"Content-Type": "image/png"})).status
            free.set()
            return [second, picture, (await first).status]

    assert asyncio.run(some()) == [503, 200, 200]
