"""Zips as people have them: packed by other systems, cut off, encrypted; and what is no zip."""

from __future__ import annotations

import io
import os
import random
import struct
import tarfile
import unicodedata
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edgedl.data.sources import FolderSource, open_source
from edgedl.tasks.age.data.formats import open_faces
from runtime.errors import InputError

FILES = {f"UTKFace/{20 + i}_0_0_20170116213500{i:03d}.jpg.chip.jpg": bytes([i]) * 50 for i in range(12)}
CLEAN = tuple(sorted(FILES))
FLAGS, METHOD, VERSION = (6, 8), (8, 10), (4, 6)
"""Where a field of 16 bits stands in a member's own header and in the list of contents (APPNOTE 4.3.7 and 4.3.12)."""


def packed(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, method  # as it is: the constructor would mend it
            archive.writestr(info, content)
    return buffer.getvalue()


def patched(data: bytes, places: tuple[int, int], value: int) -> bytes:
    """The same zip with a field of every header set."""
    changed = bytearray(data)
    for mark, place in zip((b"PK\x03\x04", b"PK\x01\x02"), places, strict=True):
        start = changed.find(mark)
        while start >= 0:
            struct.pack_into("<H", changed, start + place, value)
            start = changed.find(mark, start + 4)
    return bytes(changed)


def write(folder: Path, data: bytes, name: str = "set.zip") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace("/", "\\"),
        lambda name: f"./{name}",
        lambda name: f"/{name}",
        lambda name: name.replace("/", "//"),
    ],
    ids=["backslashes", "dot", "absolute", "two slashes"],
)
def test_names_are_the_same_whoever_packed_them(tmp_path: Path, rename: Callable[[str], str]) -> None:
    source = open_source(write(tmp_path, packed({rename(name): content for name, content in FILES.items()})))
    assert source.names() == CLEAN
    assert all(source.read(name) == FILES[name] for name in CLEAN)
    assert source.head(CLEAN[3], 4) == bytes([3]) * 4


def test_what_windows_unpacked_with_backslashes_is_read_as_well(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name.replace("/", "\\")).write_bytes(content)
    source = open_source(folder)
    assert source.names() == CLEAN
    assert source.read(CLEAN[0]) == FILES[CLEAN[0]]
    assert source.file(CLEAN[0]).is_file()


def test_folders_shadows_and_what_lies_outside_are_no_data(tmp_path: Path) -> None:
    others = {
        "UTKFace\\": b"",
        "UTKFace/": b"",
        "__MACOSX/UTKFace/._1.jpg": b"\0\5\x16\7",
        "UTKFace/._1.jpg": b"",
        ".DS_Store": b"",
        "../../outside.jpg": b"x",
        "UTKFace/../../outside.jpg": b"x",
        "..\\outside.jpg": b"x",
    }
    before = sorted(tmp_path.iterdir())
    path = write(tmp_path, packed({**FILES, **others}))
    source = open_source(path)
    assert source.names() == CLEAN
    assert all(source.read(name) for name in CLEAN[1:])
    assert sorted(tmp_path.iterdir()) == [*before, path], "a zip is never unpacked"


@pytest.mark.parametrize("depth", [1, 3])
def test_a_set_may_lie_in_folders_of_its_own(tmp_path: Path, depth: int) -> None:
    path = write(tmp_path, packed({"archive/" * depth + name: content for name, content in FILES.items()}))
    assert len(open_faces(path)) == 12


COMPOSED = "Grüße/café.jpg"
NAMES = {
    "UTF-8": (COMPOSED, None),
    "UTF-8 that does not say so": (COMPOSED, 0),
    "decomposed, as macOS writes": (unicodedata.normalize("NFD", COMPOSED), None),
}


@pytest.mark.parametrize(("name", "flags"), NAMES.values(), ids=NAMES)
def test_accents_are_composed(tmp_path: Path, name: str, flags: int | None) -> None:
    data = packed({name: b"1", "plain.txt": b"2"})
    source = open_source(write(tmp_path, data if flags is None else patched(data, FLAGS, flags)))
    assert source.names() == (COMPOSED, "plain.txt")
    assert source.read(COMPOSED) == b"1"


def test_accents_of_a_folder_are_composed_and_other_bytes_written_out(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / unicodedata.normalize("NFD", "café.jpg")).write_bytes(b"1")
    with open(os.fsencode(folder) + b"/caf\xe9.jpg", "wb") as file:  # noqa: PTH123 - the name is no text
        file.write(b"2")
    source = open_source(folder)
    assert source.names() == ("caf\\udce9.jpg", "café.jpg")
    assert [source.read(name) for name in source.names()] == [b"2", b"1"]
    assert all(name.encode() for name in source.names())


def test_the_same_file_twice_is_one_and_two_of_one_name_are_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        twice = packed({**FILES, CLEAN[0].replace("/", "\\"): FILES[CLEAN[0]]})
        other = packed({**FILES, CLEAN[0].replace("/", "\\"): b"another"})
    assert open_source(write(tmp_path, twice)).names() == CLEAN
    with pytest.raises(InputError, match=rf"holds two different files called {CLEAN[0]}: unpack it, keep one"):
        open_source(write(tmp_path, other))


def test_zip64_is_read(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in FILES.items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as file:
                file.write(content)
    source = open_source(path)
    assert all(source.read(name) == FILES[name] for name in CLEAN)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_of_python_are_read(tmp_path: Path, method: int) -> None:
    source = open_source(write(tmp_path, packed(FILES, method)))
    assert source.read(CLEAN[5]) == FILES[CLEAN[5]]


@pytest.mark.parametrize(
    ("places", "value", "message"),
    [
        (FLAGS, 1, rf"is encrypted \({CLEAN[0]}\): unpack it with its password"),
        (METHOD, 9, r"is compressed with Deflate64 .* unpack it by other means and give the folder"),
        (METHOD, 77, r"is compressed with method 77"),
        (VERSION, 99, r"cannot be read as a zip file: zip file version 9\.9"),
    ],
    ids=["encrypted", "Deflate64", "unknown", "version"],
)
def test_what_python_cannot_unpack_is_refused_at_once(
    tmp_path: Path, places: tuple[int, int], value: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        open_source(write(tmp_path, patched(packed(FILES), places, value)))


def test_shadows_may_be_packed_as_they_like(tmp_path: Path) -> None:
    data = packed({"__MACOSX/._a": b"1"})
    assert open_source(write(tmp_path, patched(data, FLAGS, 1))).names() == ()


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_zip_that_was_cut_short_is_told_from_what_is_no_zip(tmp_path: Path, share: float) -> None:
    data = packed(FILES)
    size = int(len(data) * share)
    with pytest.raises(
        InputError, match=rf"is a zip file that is not whole: it has {size:,} bytes, .*: fetch it again"
    ):
        open_source(write(tmp_path, data[:size]))


def test_of_a_zip_with_a_hole_the_whole_members_are_read(tmp_path: Path) -> None:
    """What lies before the hole is shifted against the list of contents; each such member is named."""
    data = packed(FILES)
    source = open_source(write(tmp_path, data[:200] + data[260:]))
    read, lost = [], []
    for name in source.names():
        try:
            assert source.read(name) == FILES[name]
            read.append(name)
        except InputError as error:
            lost.append((name, str(error)))
    assert read
    assert lost
    assert all(name in message for name, message in lost)


def compressed(kind: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as archive:
        info = tarfile.TarInfo("a.jpg")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    return buffer.getvalue()


OTHERS = {
    "tar": (compressed(""), "is a tar archive; .*: unpack it and give the folder"),
    "tar.gz": (compressed("gz"), r"is compressed with gzip \(a \.tar\.gz, perhaps\); .*: unpack it"),
    "tar.bz2": (compressed("bz2"), "is compressed with bzip2 .*: unpack it"),
    "tar.xz": (compressed("xz"), "is compressed with xz .*: unpack it"),
    "zst": (b"\x28\xb5\x2f\xfd" + bytes(20), "is compressed with Zstandard .*: unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\x04" + bytes(30), "is a 7z archive; .*: unpack it"),
    "rar": (b"Rar!\x1a\x07\x01\0" + bytes(30), "is a RAR archive; .*: unpack it"),
    "html": (b"\n<!DOCTYPE html>\n<html><body>log in", "is a web page, not a data set; .*: fetch it again"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a pointer of Git LFS"),
    "empty": (b"", "is an empty file"),
    "text": (b"image,caption\n", "is a file but not a zip; .* that would be"),
}


@pytest.mark.parametrize(("data", "message"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_zip_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_source(write(tmp_path, data, "UTKFace.zip"))


def test_what_is_neither_file_nor_folder_is_refused() -> None:
    with pytest.raises(InputError, match="is neither a file nor a folder"):
        open_source("/dev/null")


@pytest.mark.parametrize("pack", [packed, None], ids=["zip in a zip", "zip in a folder"])
def test_an_archive_inside_has_to_be_unpacked(tmp_path: Path, pack: Callable[..., bytes] | None) -> None:
    inner = packed(FILES)
    if pack is not None:
        path = write(tmp_path, pack({"UTKFace.zip": inner}))
    else:
        path = tmp_path / "set"
        path.mkdir()
        write(path, inner, "UTKFace.zip")
    with pytest.raises(InputError, match=r"what is packed in it, UTKFace\.zip, has to be unpacked first"):
        open_faces(path)


def test_links_are_followed_once(tmp_path: Path) -> None:
    """Large sets are linked in; a link to a folder above does not end."""
    store, folder = tmp_path / "store", tmp_path / "set"
    store.mkdir()
    folder.mkdir()
    (store / "a.jpg").write_bytes(b"1")
    (folder / "images").symlink_to(store)
    (folder / "again").symlink_to(folder)
    (folder / "lost.jpg").symlink_to(tmp_path / "nowhere")
    source = FolderSource(folder)
    assert source.names() == ("images/a.jpg", "lost.jpg")
    assert source.read("images/a.jpg") == b"1"
    with pytest.raises(InputError, match=r"lost\.jpg cannot be read"):
        source.read("lost.jpg")


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg cannot be read: it is a folder, a device or a pipe"):
        FolderSource(tmp_path).read("a.jpg")


def test_any_damage_to_a_zip_is_an_error_that_names_it(tmp_path: Path) -> None:
    chance = random.Random(0)
    data = packed(FILES)
    outcomes = {"whole": 0, "lost": 0}
    messages = []
    for _ in range(300):
        damaged = bytearray(data[: chance.randrange(1, len(data) + 1)] if chance.random() < 0.2 else data)
        for _ in range(chance.randrange(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.choice((0, 255, chance.randrange(256)))
        path = write(tmp_path, bytes(damaged))
        try:
            source = open_source(path)
        except InputError as error:
            messages.append(str(error))
            continue
        for name in source.names():
            try:
                source.read(name)
                outcomes["whole"] += 1
            except InputError:
                outcomes["lost"] += 1
    assert all(outcomes.values()), outcomes
    assert messages
    assert all("set.zip" in message for message in messages)
