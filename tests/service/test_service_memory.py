"""Memory goes back to the system after long requests, and only after those."""

from __future__ import annotations

import ctypes

import pytest
from flask.testing import FlaskClient

from runtime import memory as runtime_memory
from service import memory
from tests.service.fake_pipeline import FakePipeline, encoded


def test_only_long_requests_give_memory_back(
    client: FlaskClient, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(runtime_memory, "give_back", lambda: asked.append(0))
    memory.give_back(0.1)
    assert not asked
    memory.give_back(1.0)
    assert asked == [0]
    monkeypatch.setattr(memory, "LONG_SECONDS", 0.0)
    assert client.post("/v1/age", data=encoded(), content_type="image/png").status_code == 200
    assert asked == [0, 0]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    runtime_memory.give_back()
    runtime_memory.return_large_blocks()
