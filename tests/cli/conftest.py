"""A command line to call in the process, and a small bundle to call it with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedl.cli import main
from tests.bundles import SCALE, write_scale_bundle


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document; NaN and Infinity, which json.loads would take, are refused."""

        def refuse(text: str) -> None:
            raise AssertionError(f"{text} is not JSON")

        document = json.loads(self.out, parse_constant=refuse)
        assert document["schema_version"] == 1
        assert list(document)[:2] == ["schema_version", "ok"]
        return document


@pytest.fixture
def edgedl(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Calls the command line; the result holds exit status, standard output and standard error."""

    def call(*arguments: object) -> Result:
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return call


@pytest.fixture
def scale_bundle(tmp_path: Path) -> Path:
    return write_scale_bundle(tmp_path / "scale.edge").path


@pytest.fixture
def wrong_bundle(tmp_path: Path) -> Path:
    """Its hashes are right, its answers are not those recorded."""
    return write_scale_bundle(tmp_path / "wrong.edge", SCALE * np.float32(1.01)).path
