"""Text for language models: a UTF-8 file, or the embedded stories; its end is held out before anything is learnt."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from edgedl.tasks.chars.data import stories
from runtime.errors import InputError, TooLargeError

VALIDATION, TEST = 0.05, 0.05
"""Shares of a text's end: the last is for test, the one before it chooses the epoch."""

LEAST = 2_000
"""Characters; less cannot be learnt from, held out and judged."""

MOST_BYTES = 1 << 30

SPLITS = ("train", "val", "test", "all")


@dataclass(frozen=True, slots=True)
class Text:
    """A text and where its parts are.

    Attributes:
        name: the file's, or that of the embedded text.
        content: all of it.
        told: the embedded text's choices; None for a file.
    """

    name: str
    content: str
    told: stories.Told | None = None

    @property
    def sha256(self) -> str:
        """Of the content in UTF-8."""
        return hashlib.sha256(self.content.encode()).hexdigest()

    def bounds(self, split: str) -> tuple[int, int]:
        """Where a part begins and ends.

        Args:
            split: ``train``, the beginning, then ``val``, then ``test``; or ``all``.

        Raises:
            InputError: there is no such part.
        """
        if split not in SPLITS:
            raise InputError(f"a text has no part {split!r}; there is {', '.join(SPLITS)}")
        total = len(self.content)
        test = total - round(TEST * total)
        validation = test - round(VALIDATION * total)
        return {"train": (0, validation), "val": (validation, test), "test": (test, total), "all": (0, total)}[split]

    def part(self, split: str) -> str:
        """The text of a part, see `bounds`."""
        start, stop = self.bounds(split)
        return self.content[start:stop]


def open_text(path: str | PathLike[str] | None) -> Text:
    """Reads a text, or tells the embedded one.

    CR LF becomes LF and a byte order mark is dropped; nothing else is changed.

    Args:
        path: a UTF-8 file; None: `edgedl.tasks.chars.data.stories`.

    Raises:
        InputError: it cannot be read, is no UTF-8, or too short.
    """
    if path is None:
        told = stories.tell_stories()
        return Text(stories.NAME, told.text, told)
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{file} is a folder; expected one UTF-8 text file: join several with `cat`")
    try:
        if file.stat().st_size > MOST_BYTES:
            raise TooLargeError(f"{file} has {file.stat().st_size} bytes; expected at most {MOST_BYTES}")
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error
    try:
        content = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file} is no UTF-8 text: byte {error.start} is {data[error.start]:#04x}; "
            f"convert it, e.g. `iconv -f latin1 -t utf-8 {file}`"
        ) from error
    if len(content) < LEAST:
        raise InputError(f"{file} has {len(content)} characters; expected at least {LEAST}")
    return Text(file.name, content)
