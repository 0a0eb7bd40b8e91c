"""A folder or a zip as a flat list of member names and their bytes; a zip is read in place, never unpacked.

The names are clean (see `edgedl.data.members`): the same whatever the system that wrote or packed the files.
"""

from __future__ import annotations

import filecmp
import logging
import os
import zipfile
from pathlib import Path, PurePosixPath
from typing import Protocol

from edgedl.data.archives import not_a_zip
from edgedl.data.members import check_size, clean, explained, is_data
from edgedl.data.zips import ZipSource
from runtime.errors import InputError

log = logging.getLogger(__name__)


class Source(Protocol):
    """Where the bytes of a data set lie."""

    @property
    def path(self) -> Path:
        """The folder or the zip, for messages."""
        ...

    def names(self) -> tuple[str, ...]:
        """Every file, as a path relative to the root with forward slashes, sorted."""
        ...

    def read(self, member: str) -> bytes:
        """The bytes of one file.

        Raises:
            InputError: the file is not there or cannot be read.
            TooLargeError: the file is larger than ``MAX_MEMBER_BYTES``.
        """
        ...

    def head(self, member: str, size: int) -> bytes:
        """The first bytes of one file, at most ``size``: enough to recognise a format by.

        Raises:
            InputError: the file is not there or cannot be read.
        """
        ...

    def same(self, member: str, other: str) -> bool:
        """Whether two files hold the same bytes.

        Raises:
            InputError: one is not there or cannot be read.
        """
        ...

    def file(self, member: str) -> Path:
        """The file on disk that holds a member: the member itself, or the zip."""
        ...


class FolderSource:
    """The files below a folder. Links are followed: large sets are often linked in."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._files: dict[str, str] | None = None

    def names(self) -> tuple[str, ...]:
        """Every file below the folder, relative, with forward slashes, sorted; hidden ones are left out."""
        return tuple(self._paths())

    def read(self, member: str) -> bytes:
        """The bytes of one file below the folder."""
        file = self._regular(member)
        with explained(f"{file}"):
            check_size(f"{file}", file.stat().st_size)
            return file.read_bytes()

    def head(self, member: str, size: int) -> bytes:
        """The first bytes of one file below the folder."""
        file = self._regular(member)
        with explained(f"{file}"), file.open("rb") as stream:
            return stream.read(size)

    def same(self, member: str, other: str) -> bool:
        """Whether two files below the folder hold the same bytes."""
        first, second = self._regular(member), self._regular(other)
        with explained(f"{first} or {second}"):
            return filecmp.cmp(first, second, shallow=False)

    def file(self, member: str) -> Path:
        """The member's own path."""
        return self.path / self._paths().get(member, member)

    def _regular(self, member: str) -> Path:
        file = self.file(member)
        if file.exists() and not file.is_file():
            raise InputError(f"{file} cannot be read: it is a folder, a device or a pipe, not a file")
        return file

    def _paths(self) -> dict[str, str]:
        """The path of each clean name relative to the folder, sorted."""
        if self._files is None:
            found: dict[str, str] = {}
            visited: set[str] = set()
            for folder, folders, files in os.walk(self.path, followlinks=True, onerror=self._refused):
                visited.add(os.path.realpath(folder))  # a link to a folder above would never end
                folders[:] = [name for name in folders if os.path.realpath(Path(folder) / name) not in visited]
                relative = Path(folder).relative_to(self.path)
                for path in sorted((relative / file).as_posix() for file in files):
                    name = clean(path)
                    if is_data(name):
                        found[path if name in found else name] = path
            self._files = dict(sorted(found.items()))
        return self._files

    def _refused(self, error: OSError) -> None:
        if Path(error.filename) == self.path:
            raise InputError(f"{self.path} cannot be read: {error.strerror}") from error
        log.warning("the folder %s cannot be read and is passed over: %s", error.filename, error.strerror)

    def __repr__(self) -> str:
        return f"FolderSource({str(self.path)!r})"


def open_source(path: str | os.PathLike[str]) -> Source:
    """Open a folder or a zip.

    Args:
        path: a folder, or a zip file under any name.

    Raises:
        InputError: nothing is there, or it is a file that is not a zip, or a zip that cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a folder or a zip file")
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise InputError(not_a_zip(path))
    return ZipSource(path)


def stamp(source: Source, member: str) -> tuple[str, int, int]:
    """Path, size in bytes and time (ns) of the file on disk that holds a member: the member itself, or the zip.

    Tells whether something made from the member may be used again. What lies nowhere is told by its source's repr.
    """
    file = source.file(member)
    if not file.exists():
        return repr(source), 0, 0
    stat = file.stat()
    return str(file.resolve()), stat.st_size, stat.st_mtime_ns


def parent(member: str) -> str:
    """The folder of a member with a trailing slash, or nothing for one at the root, to be put before a name."""
    folder = PurePosixPath(member).parent.as_posix()
    return "" if folder == "." else f"{folder}/"
