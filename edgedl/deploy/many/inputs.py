"""What is to be answered: the files behind folders, patterns, lists, zips and Parquet tables, sorted by name.

Only names are kept; bytes are read where they are needed. So millions of files take some hundred bytes each.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from edgedl.data.sources import Source, open_source
from edgedl.deploy.many.tables import read_bytes_of, table_rows
from runtime.errors import InputError
from runtime.media.folders import PICTURE_SUFFIXES

LIST = "@"
"""In front of a file that lists paths, one in a line."""

TABLE_SUFFIXES = (".parquet", ".pq")
VIDEO_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm"))


@dataclass(frozen=True, slots=True)
class Item:
    """One input.

    Attributes:
        name: What it is called in the results; no two have the same.
        place: The file on disk that holds it.
        member: Its name in a zip, or its row in a table; empty where the file itself is the input.
    """

    name: str
    place: str
    member: str = ""

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            InputError: they cannot be read.
        """
        if not self.member:
            path = Path(self.place)
            return _source(str(path.parent)).read(path.name)
        if self.place.lower().endswith(TABLE_SUFFIXES):
            return read_bytes_of(self.place, int(self.member))
        return _source(self.place).read(self.member)


def list_inputs(sources: Sequence[str], *, clips: bool = False) -> list[Item]:
    """The inputs behind sources, sorted by name.

    Args:
        sources: folders (with all folders in them), zips, patterns, ``@list.txt`` with a path in each line, tables
            (Parquet with a column ``path``, or ``bytes`` and perhaps ``name``), or single files.
        clips: videos are inputs, too.

    Raises:
        InputError: a source is missing or holds no input, or two inputs have one name.
    """
    suffixes = PICTURE_SUFFIXES | VIDEO_SUFFIXES if clips else PICTURE_SUFFIXES
    found: dict[str, Item] = {}
    for source in sources:
        items = list(_items(source, lambda name: PurePosixPath(name).suffix.lower() in suffixes))
        if not items:
            raise InputError(f"{source} holds no input; expected files that end in {', '.join(sorted(suffixes))}")
        for item in items:
            other = found.setdefault(item.name, item)
            if other != item:
                raise InputError(f"two inputs are called {item.name}: one in {other.place}, one in {item.place}")
    return [found[name] for name in sorted(found)]


def fingerprint(items: Sequence[Item]) -> str:
    """Tells lists of inputs apart: the SHA-256 of their names."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(item.name.encode("utf-8", "backslashreplace") + b"\0")
    return digest.hexdigest()


def _items(source: str, wanted: Callable[[str], bool]) -> Iterator[Item]:
    path = Path(source)
    if source.startswith(LIST) and not path.exists():
        yield from _listed(Path(source.removeprefix(LIST)))
    elif path.is_dir():
        for name in open_source(path).names():
            if wanted(name):
                yield Item(str(path / name), str(path / name))
    elif path.is_file() and path.name.lower().endswith(TABLE_SUFFIXES):
        for number, name, place in table_rows(path):
            yield Item(name, place) if place else Item(name, str(path), str(number))
    elif path.is_file() and path.suffix.lower() == ".zip":
        for name in open_source(path).names():
            if wanted(name):
                yield Item(f"{path}/{name}", str(path), name)
    elif path.exists():
        yield Item(source, source)
    elif glob.has_magic(source):
        # Not Path.glob, which takes no absolute pattern.
        for name in glob.iglob(source, recursive=True):  # noqa: PTH207
            if Path(name).is_file():
                yield Item(name, name)
    else:
        raise InputError(f"{source} does not exist")


def _listed(path: Path) -> Iterator[Item]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    for line in filter(None, map(str.strip, lines)):
        yield Item(line, line)


@lru_cache(maxsize=8)
def _source(path: str) -> Source:
    return open_source(path or ".")
