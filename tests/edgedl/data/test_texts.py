"""Texts for language models: read whole, split before anything is learnt, refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedl.tasks.chars.data.texts import LEAST, open_text
from runtime.errors import InputError, TooLargeError


def test_the_end_is_held_out(tmp_path: Path) -> None:
    content = "".join(chr(0x4E00 + k) for k in range(3_000))
    (tmp_path / "text.txt").write_text(content, encoding="utf-8")
    text = open_text(tmp_path / "text.txt")
    assert [text.bounds(split) for split in ("train", "val", "test", "all")] == [
        (0, 2700), (2700, 2850), (2850, 3000), (0, 3000),
    ]  # fmt: skip
    assert text.part("train") + text.part("val") + text.part("test") == text.part("all") == content
    with pytest.raises(InputError, match="no part 'dev'; there is train, val, test, all"):
        text.bounds("dev")


def test_marks_and_line_ends_of_other_systems_go(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + b"line\r\n" * 1000)
    assert open_text(tmp_path / "a.txt").content == "line\n" * 1000


def test_without_a_file_there_are_stories() -> None:
    assert open_text(None).name == "stories"
    assert open_text(None).sha256 == open_text(None).sha256
    assert open_text(None).told is not None


def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"absent\.txt cannot be read: No such file"):
        open_text(tmp_path / "absent.txt")
    with pytest.raises(InputError, match="is a folder"):
        open_text(tmp_path)
    (tmp_path / "short.txt").write_text("a" * (LEAST - 1))
    with pytest.raises(InputError, match="has 1999 characters; expected at least 2000"):
        open_text(tmp_path / "short.txt")
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1") * 3000)
    with pytest.raises(InputError, match="byte 0 is 0xe9; convert it"):
        open_text(tmp_path / "latin.txt")
    monkeypatch.setattr("edgedl.tasks.chars.data.texts.MOST_BYTES", 10)
    with pytest.raises(TooLargeError, match="1999 bytes; expected at most 10"):
        open_text(tmp_path / "short.txt")
