"""Folders of the cache: whole or not there."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from exporters.cache import made_once


def test_a_folder_is_made_once(tmp_path: Path):
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("whole")

    threads = [threading.Thread(target=made_once, args=(tmp_path / "one" / "two", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert (tmp_path / "one" / "two" / "file").read_text() == "whole"


def test_what_fails_leaves_nothing(tmp_path: Path):
    def make(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise OSError("cut")

    with pytest.raises(OSError, match="cut"):
        made_once(tmp_path / "one", make)
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_made_meanwhile_is_taken(tmp_path: Path):
    def make(folder: Path) -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "file").write_text("the other's")

    assert (made_once(tmp_path / "one", make) / "file").read_text() == "the other's"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
