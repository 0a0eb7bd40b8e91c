"""A packed bundle: a zip whose entries are stored, not compressed, so that they are read where they lie.

The reader accepts the plainest zip only. No compression means no decompression bomb; no comment, no prefix, no zip64
and no encryption mean that every reader sees the same entries. Nothing is ever extracted to disk.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import BundleError

if TYPE_CHECKING:
    import zipfile

_END = struct.Struct("<4s4H2LH")  # APPNOTE.TXT 4.3.16, end of central directory record
_END_MAGIC = b"PK\x05\x06"
_LOCAL = struct.Struct("<4s5H3L2H")  # APPNOTE.TXT 4.3.7, local file header
_LOCAL_MAGIC = b"PK\x03\x04"
_CENTRAL_ENTRY_MAX = 46 + 3 * 1024  # an honest entry of the central directory: a short name, little extra data
_ENCRYPTED = 0x1
_STORED = 0
_DATE = (1980, 1, 1, 0, 0, 0)  # fixed: the same bundle packs to the same bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the bytes of one stored file lie inside the archive, and their CRC-32."""

    offset: int
    size: int
    crc: int


def read_entries(path: Path, *, max_entries: int) -> dict[str, Entry]:
    """Lists the stored files of a packed bundle.

    Raises:
        BundleError: the file is no zip or not one of the plain kind described above.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(0, size - _END.size))
        directory_start = _check_end(stream.read(_END.size), size, max_entries, path)
        try:
            import zipfile  # here, because most bundles are folders, and reading those begins quicker without

            with zipfile.ZipFile(stream) as archive:
                members = archive.infolist()
        # Damaged bytes reach zipfile's parser, which raises many kinds of errors.
        except Exception as error:
            raise BundleError(f"{path}: damaged zip: {error}") from error
        entries: dict[str, Entry] = {}
        for member in members:
            _check_member(member, path)
            name = member.filename
            if name in entries:
                raise BundleError(f"{path}: the entry {name!r} is there twice")
            stream.seek(member.header_offset)
            header = stream.read(_LOCAL.size)
            if len(header) != _LOCAL.size or header[:4] != _LOCAL_MAGIC:
                raise BundleError(f"{path}: the entry {name!r} has no local header where the directory says")
            name_length, extra_length = _LOCAL.unpack(header)[-2:]
            if stream.read(name_length) != member.orig_filename.encode("ascii", "replace"):
                raise BundleError(f"{path}: the entry {name!r} bears another name in its local header")
            offset = member.header_offset + _LOCAL.size + name_length + extra_length
            entries[name] = Entry(offset, member.file_size, member.CRC)
    _check_overlap(entries.values(), directory_start, path)
    return entries


def read_entry(path: Path, entry: Entry) -> bytes:
    """The bytes of one entry.

    Raises:
        BundleError: the archive ends before the entry does.
    """
    with path.open("rb") as stream:
        stream.seek(entry.offset)
        data = stream.read(entry.size)
    if len(data) != entry.size:
        raise BundleError(f"{path}: truncated: an entry of {entry.size} bytes has {len(data)} left")
    return data


def write_archive(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes a new zip of stored entries in the order given and flushes it to disk."""
    import zipfile

    with path.open("xb") as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
            for name, data in files.items():
                member = zipfile.ZipInfo(name, _DATE)
                member.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(member, data)
        stream.flush()
        os.fsync(stream.fileno())


def _check_end(tail: bytes, size: int, max_entries: int, path: Path) -> int:
    """Checks the last record of the zip before its directory is read; returns where the directory starts."""
    if len(tail) != _END.size or not tail.startswith(_END_MAGIC):
        raise BundleError(f"{path}: not a packed bundle, or truncated (no zip directory at its end)")
    _, disk, directory_disk, here, total, length, start, comment = _END.unpack(tail)
    if disk or directory_disk or here != total or comment:
        raise BundleError(f"{path}: a zip in several parts or with a comment, expected what `edgedl pack` writes")
    if total > max_entries or length > total * _CENTRAL_ENTRY_MAX:
        raise BundleError(f"{path}: {total} entries in a directory of {length} bytes, at most {max_entries} are read")
    if start + length + _END.size != size:
        raise BundleError(f"{path}: truncated, or bytes before the zip or in its middle that belong to no entry")
    return int(start)


def _check_member(member: zipfile.ZipInfo, path: Path) -> None:
    name = member.orig_filename
    if member.flag_bits & _ENCRYPTED:
        raise BundleError(f"{path}: the entry {name!r} is encrypted")
    if member.compress_type != _STORED or member.compress_size != member.file_size:
        raise BundleError(f"{path}: the entry {name!r} is compressed, a packed bundle stores its files as they are")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise BundleError(f"{path}: the entry {name!r} is a link or a special file")


def _check_overlap(entries: Iterable[Entry], directory_start: int, path: Path) -> None:
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.offset):
        if entry.offset < end + _LOCAL.size or entry.offset + entry.size > directory_start:
            raise BundleError(f"{path}: entries overlap or reach past the end (truncated or tampered with)")
        end = entry.offset + entry.size
