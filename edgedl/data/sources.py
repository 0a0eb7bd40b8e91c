"""A folder or a zip as a flat list of member names and their bytes; a zip is read in place, never unpacked."""

from __future__ import annotations

import lzma
import os
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from runtime.errors import InputError, TooLargeError

# RuntimeError is an encrypted member, NotImplementedError a compression that Python lacks.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    NotImplementedError,
)
MAX_MEMBER_BYTES = 512 * 2**20  # the largest file of any format here, imdb.mat, has a few dozen MiB


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


class FolderSource:
    """The files below a folder."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._names: tuple[str, ...] | None = None

    def names(self) -> tuple[str, ...]:
        """Every file below the folder, relative, with forward slashes, sorted; hidden ones are left out."""
        if self._names is None:
            found = []
            for folder, _, files in os.walk(self.path):
                relative = Path(folder).relative_to(self.path)
                found += [(relative / file).as_posix() for file in files]
            self._names = tuple(sorted(filter(_is_data, found)))
        return self._names

    def read(self, member: str) -> bytes:
        """The bytes of one file below the folder."""
        file = self.path / member
        try:
            size = file.stat().st_size
            if size > MAX_MEMBER_BYTES:
                raise TooLargeError(_too_large(file, size))
            return file.read_bytes()
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror or error}") from error

    def head(self, member: str, size: int) -> bytes:
        """The first bytes of one file below the folder."""
        file = self.path / member
        try:
            with file.open("rb") as stream:
                return stream.read(size)
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror or error}") from error

    def __repr__(self) -> str:
        return f"FolderSource({str(self.path)!r})"


class ZipSource:
    """The members of a zip file.

    Any number of threads may read at once (``zipfile`` locks the one file position). Processes must not share a
    position, so a forked child opens the file for itself, and a pickled source travels without its handle.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        self._names = tuple(sorted(name for name in self._archive().namelist() if _is_data(name)))

    def names(self) -> tuple[str, ...]:
        """Every member that is a file, sorted; hidden ones and macOS's shadow files are left out."""
        return self._names

    def read(self, member: str) -> bytes:
        """The bytes of one member, its checksum compared."""
        archive = self._archive()
        with self._explained(member):
            size = archive.getinfo(member).file_size
            if size > MAX_MEMBER_BYTES:
                raise TooLargeError(_too_large(self.path / member, size))
            return archive.read(member)

    def head(self, member: str, size: int) -> bytes:
        """The first bytes of one member."""
        archive = self._archive()
        with self._explained(member), archive.open(member) as stream:
            return stream.read(size)

    @contextmanager
    def _explained(self, member: str) -> Iterator[None]:
        try:
            yield
        except KeyError as error:
            raise InputError(f"{self.path} holds no file {member!r}") from error
        except _UNREADABLE as error:
            raise InputError(
                f"{member!r} in {self.path} cannot be read: {error}; unpack the file by other means"
            ) from error

    def _archive(self) -> zipfile.ZipFile:
        process = os.getpid()
        with self._lock:
            if self._opened is None or self._opened[0] != process:
                try:
                    self._opened = process, zipfile.ZipFile(self.path)
                except (zipfile.BadZipFile, OSError) as error:
                    raise InputError(
                        f"{self.path} cannot be read as a zip file: {error}; copy it here again"
                    ) from error
            return self._opened[1]

    def close(self) -> None:
        """Close this process's handle; the next read opens it again."""
        with self._lock:
            if self._opened is not None and self._opened[0] == os.getpid():
                self._opened[1].close()
            self._opened = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_names": self._names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _opened=None)

    def __repr__(self) -> str:
        return f"ZipSource({str(self.path)!r})"


def open_source(path: str | os.PathLike[str]) -> Source:
    """Open a folder or a zip.

    Args:
        path: a folder, or a zip file under any name.

    Raises:
        InputError: nothing is there, or it is a file that is not a zip.
    """
    path = Path(path)
    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a folder or a zip file")
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path} is a file but not a zip; expected the folder or the zip that holds the whole data set"
            f" (of {path.name}, that would be {path.parent})"
        )
    return ZipSource(path)


def stamp(source: Source, member: str) -> tuple[str, int, int]:
    """Path, size in bytes and time (ns) of the file on disk that holds a member: the member itself, or the zip.

    Tells whether something made from the member may be used again. What lies nowhere is told by its source's repr.
    """
    file = source.path / member if source.path.is_dir() else source.path
    if not file.exists():
        return repr(source), 0, 0
    stat = file.stat()
    return str(file.resolve()), stat.st_size, stat.st_mtime_ns


def parent(member: str) -> str:
    """The folder of a member with a trailing slash, or nothing for one at the root, to be put before a name."""
    folder = PurePosixPath(member).parent.as_posix()
    return "" if folder == "." else f"{folder}/"


def _is_data(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not name.endswith("/") and not any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _too_large(file: Path, size: int) -> str:
    return f"{file} has {size:,} bytes; at most {MAX_MEMBER_BYTES:,} are read"
