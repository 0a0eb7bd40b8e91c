"""A zip that is read in place, by any number of threads and processes."""

from __future__ import annotations

import os
import threading
import zipfile
from pathlib import Path
from typing import Any

from edgedl.data.members import ZIP_ERRORS, check_size, clean, explained, is_data
from runtime.errors import InputError

_COMPRESSIONS = {
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
    zipfile.ZIP_BZIP2,
    zipfile.ZIP_LZMA,
    getattr(zipfile, "ZIP_ZSTANDARD", zipfile.ZIP_STORED),  # Python 3.14
}
_FOREIGN = {9: "Deflate64", 93: "Zstandard", 95: "xz", 98: "PPMd"}
_ENCRYPTED, _UTF8 = 0x1, 0x800  # flags of a member


class ZipSource:
    """The members of a zip file.

    Any number of threads may read at once (``zipfile`` locks the one file position). Processes must not share a
    position, so a forked child opens the file for itself, and a pickled source travels without its handle.

    Raises:
        InputError: the zip is damaged or encrypted, is compressed in a way that Python does not know, or holds two
            different files of one name.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        self._numbers = _numbers(self.path, self._archive().infolist())

    def names(self) -> tuple[str, ...]:
        """Every member that is a file, sorted; hidden ones and macOS's shadow files are left out."""
        return tuple(self._numbers)

    def read(self, member: str) -> bytes:
        """The bytes of one member, its checksum compared."""
        archive, info = self._member(member)
        check_size(f"{self.path / member}", info.file_size)
        with self._explained(member):
            return archive.read(info)

    def head(self, member: str, size: int) -> bytes:
        """The first bytes of one member."""
        archive, info = self._member(member)
        with self._explained(member), archive.open(info) as stream:
            return stream.read(size)

    def same(self, member: str, other: str) -> bool:
        """Whether two members have one size and one checksum."""
        return _content(self._member(member)[1]) == _content(self._member(other)[1])

    def file(self, member: str) -> Path:
        """The zip."""
        return self.path

    def _member(self, member: str) -> tuple[zipfile.ZipFile, zipfile.ZipInfo]:
        number = self._numbers.get(member)
        if number is None:
            raise InputError(f"{self.path} holds no file {member!r}")
        archive = self._archive()
        return archive, archive.infolist()[number]

    def _explained(self, member: str) -> Any:
        return explained(f"{member!r} in {self.path}", "; unpack the file by other means")

    def _archive(self) -> zipfile.ZipFile:
        process = os.getpid()
        with self._lock:
            if self._opened is None or self._opened[0] != process:
                try:
                    self._opened = process, zipfile.ZipFile(self.path)
                except ZIP_ERRORS as error:
                    raise InputError(
                        f"{self.path} cannot be read as a zip file: {error}; it is damaged, or a part of a split one:"
                        " copy it here again"
                    ) from error
            return self._opened[1]

    def close(self) -> None:
        """Close this process's handle; the next read opens it again."""
        with self._lock:
            if self._opened is not None and self._opened[0] == os.getpid():
                self._opened[1].close()
            self._opened = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_numbers": self._numbers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _opened=None)

    def __repr__(self) -> str:
        return f"ZipSource({str(self.path)!r})"


def _numbers(path: Path, members: list[zipfile.ZipInfo]) -> dict[str, int]:
    """The place of each file in the zip's list of contents, by its clean name, sorted.

    Raises:
        InputError: a file is encrypted or compressed in a way that Python does not know, or two differ under one name.
    """
    numbers: dict[str, int] = {}
    for number, info in enumerate(members):
        name = clean(_text(info))
        if info.filename.endswith(("/", "\\")) or not is_data(name):
            continue
        if info.flag_bits & _ENCRYPTED:
            raise InputError(f"{path} is encrypted ({name}): unpack it with its password and give the folder")
        if info.compress_type not in _COMPRESSIONS:
            kind = _FOREIGN.get(info.compress_type, f"method {info.compress_type}")
            raise InputError(
                f"{path} is compressed with {kind} ({name}), which Python's zipfile cannot read: unpack it by other"
                " means and give the folder"
            )
        if _content(members[numbers.setdefault(name, number)]) != _content(info):
            raise InputError(f"{path} holds two different files called {name}: unpack it, keep one and give the folder")
    return dict(sorted(numbers.items()))


def _text(info: zipfile.ZipInfo) -> str:
    """A member's name; one in UTF-8 that does not say so, as older systems wrote it, comes out of `zipfile` garbled."""
    if not info.flag_bits & _UTF8:
        try:
            return info.filename.encode("cp437").decode()
        except UnicodeError:
            pass
    return info.filename


def _content(info: zipfile.ZipInfo) -> tuple[int, int]:
    return info.file_size, info.CRC
