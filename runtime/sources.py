"""Where the files of a bundle lie: in a folder, or inside one uncompressed zip. Neither is trusted."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from runtime.errors import BundleError
from runtime.fields import flat_name

if TYPE_CHECKING:
    from runtime.archive import Entry

MANIFEST = "manifest.json"
PROOFS = "proofs.json"
"""What lies beside the manifest, see `runtime.proofs`."""
SIGNATURE_SUFFIX = ".minisig"
_SIGNATURE_BYTES = 16 << 10  # minisign's two comments have at most 9 KiB


@dataclass(frozen=True, slots=True)
class Limits:
    """What is read at most; an ONNX graph cannot be larger than 2 GiB in one file."""

    entries: int = 1000
    manifest_bytes: int = 8 << 20
    file_bytes: int = 2 << 30
    total_bytes: int = 8 << 30


LIMITS = Limits()


def is_signature(name: str) -> bool:
    """Whether a file is a signature of the manifest: ``manifest.json.minisig`` or ``manifest.json.KEY.minisig``."""
    return name.startswith(f"{MANIFEST}.") and name.endswith(SIGNATURE_SUFFIX)


class Source(Protocol):
    """Names and sizes of the files, and their bytes."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes by file name."""

    def read(self, name: str) -> bytes:
        """The whole content of one file."""


class _Folder:
    """The files of a bundle that is a folder."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self.sizes: dict[str, int] = {}
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue  # an editor's or a file manager's; a flat name never begins with a dot
                if len(self.sizes) >= limits.entries:
                    raise BundleError(f"{path}: more than {limits.entries} files")
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    raise BundleError(f"{path}: {entry.name!r} is a link, a folder or a special file, not a plain file")
                self.sizes[entry.name] = status.st_size
        _check_total(self.sizes, limits, path)

    def read(self, name: str) -> bytes:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self._path / name, flags)
        with os.fdopen(descriptor, "rb") as stream:
            # One byte more than was there: a file that grew since is noticed, not followed.
            data = stream.read(self.sizes[name] + 1)
        if len(data) != self.sizes[name]:
            raise BundleError(f"{self._path}: {name} changed its size while it was read")
        return data


class _Archive:
    """The files of a packed bundle, read where they lie in the zip."""

    def __init__(self, path: Path, limits: Limits) -> None:
        from runtime.archive import read_entries  # here, because a folder is opened quicker without

        self._path = path
        if path.stat().st_size > limits.total_bytes:
            raise BundleError(f"{path}: {path.stat().st_size} bytes, at most {limits.total_bytes} are read")
        self._entries: dict[str, Entry] = read_entries(path, max_entries=limits.entries)
        for name in self._entries:
            flat_name(name, f"{path}: entry")
        self.sizes = {name: entry.size for name, entry in self._entries.items()}
        _check_total(self.sizes, limits, path)

    def read(self, name: str) -> bytes:
        from zlib import crc32

        from runtime.archive import read_entry

        entry = self._entries[name]
        data = read_entry(self._path, entry)
        # The manifest has no digest of its own; the CRC at least tells damage apart from content.
        if name == MANIFEST and crc32(data) != entry.crc:
            raise BundleError(f"{self._path}: {name} is damaged (its CRC-32 differs)")
        return data


def open_source(path: Path, limits: Limits) -> Source:
    """Lists the files at a path.

    Raises:
        BundleError: nothing is there, or what is there holds links, folders or more than the limits allow.
    """
    if path.is_dir():
        return _Folder(path, limits)
    if path.is_file():
        return _Archive(path, limits)
    raise BundleError(f"{path}: {'neither a folder nor a file' if path.exists() else 'there is no such bundle'}")


def read_signatures(source: Source) -> dict[str, bytes]:
    """The signatures by file name, in the order of their names.

    Raises:
        BundleError: one is too large.
    """
    names = sorted(filter(is_signature, source.sizes))
    for name in names:
        if source.sizes[name] > _SIGNATURE_BYTES:
            raise BundleError(f"{name} has {source.sizes[name]} bytes, too many for a signature; remove it")
    return {name: source.read(name) for name in names}


def _check_total(sizes: Mapping[str, int], limits: Limits, path: Path) -> None:
    largest = max(sizes.values(), default=0)
    if largest > limits.file_bytes or sum(sizes.values()) > limits.total_bytes:
        raise BundleError(
            f"{path}: {sum(sizes.values())} bytes, the largest file {largest}; "
            f"at most {limits.total_bytes} in all and {limits.file_bytes} a file are read"
        )
