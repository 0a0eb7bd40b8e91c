from __future__ import annotations

import pickle
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgedl.data import members
from edgedl.data.sources import FolderSource, ZipSource, open_source
from runtime.errors import InputError, TooLargeError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for i in range(200):
            file.writestr(f"a/{i:03d}.bin", bytes([i]) * (1000 + i))
    return path


def test_folder_and_zip_give_the_same_names_and_bytes(layout) -> None:
    path = layout(
        ["b/2.png", "a/1.png"], {"top.csv": b"x", ".hidden": b"", "__MACOSX/a/._1.png": b"", ".git/x.png": b""}
    )
    source = open_source(path)
    assert source.names() == ("a/1.png", "b/2.png", "top.csv")
    assert source.read("top.csv") == b"x"


def test_threads_read_one_zip_at_once(archive: Path) -> None:
    source = ZipSource(archive)
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(source.read, list(source.names()) * 5))
    assert [len(c) for c in contents] == [1000 + i for i in range(200)] * 5
    assert all(set(c) == {i % 200} for i, c in enumerate(contents))


def test_a_pickled_zip_opens_again(archive: Path) -> None:
    source = ZipSource(archive)
    source.read("a/001.bin")
    again = pickle.loads(pickle.dumps(source))
    source.close()
    assert again.names() == source.names()
    assert again.read("a/007.bin") == bytes([7]) * 1007
    assert source.read("a/008.bin") == bytes([8]) * 1008  # close() is not the end
    again.close()
    source.close()


FORK = """
import os, sys
from edgedl.data.sources import ZipSource
source = ZipSource(sys.argv[1])
source.read("a/000.bin")
handles = [int(fd) for fd in os.listdir("/proc/self/fd") if os.path.realpath(f"/proc/self/fd/{fd}") == sys.argv[1]]
before = [os.lseek(fd, 0, os.SEEK_CUR) for fd in handles]
child = os.fork()
if child == 0:
    os._exit(source.read("a/199.bin") != bytes([199]) * 1199)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
moved = before != [os.lseek(fd, 0, os.SEEK_CUR) for fd in handles]
sys.exit(f"child {status}, handles {handles}, moved {moved}" if status or moved or not handles else 0)
"""


def test_a_forked_child_does_not_move_the_parents_file_position(archive: Path) -> None:
    # In a fresh interpreter: a process that has threads had better not fork.
    command = [sys.executable, "-c", FORK, str(archive.resolve())]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda p: p / "nowhere", "does not exist", id="nothing there"),
        pytest.param(lambda p: _write(p / "labels.csv", b"a,b\n"), "not a zip.*that would be", id="a single file"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path: Path, make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_source(make(tmp_path))


def test_missing_and_damaged_members_are_named(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no file 'a/999\.bin'"):
        ZipSource(archive).read("a/999.bin")
    with pytest.raises(InputError, match=r"nothing\.png cannot be read"):
        FolderSource(tmp_path).read("nothing.png")
    content = bytearray(archive.read_bytes())
    content[40:44] = b"\xff\xff\xff\xff"
    damaged = _write(tmp_path / "damaged.zip", bytes(content))
    with pytest.raises(InputError, match=r"'a/000\.bin' in .* cannot be read"):
        open_source(damaged).read("a/000.bin")


def test_a_huge_member_is_not_read(layout, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(layout([], {"big.bin": b"0" * 101, "small.bin": b"0" * 100}))
    monkeypatch.setattr(members, "MAX_MEMBER_BYTES", 100)
    assert len(source.read("small.bin")) == 100
    with pytest.raises(TooLargeError, match="101 bytes; at most 100"):
        source.read("big.bin")


def test_the_beginning_of_a_member_is_enough_to_recognise_it(layout) -> None:
    source = open_source(layout([], {"a.txt": b"0123456789"}))
    assert source.head("a.txt", 4) == b"0123"
    assert source.head("a.txt", 100) == b"0123456789"
    with pytest.raises(InputError, match=r"holds no file 'b\.txt'|b\.txt cannot be read"):
        source.head("b.txt", 4)


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
