"""Bundles: both forms read the same, damage of any kind is a BundleError, and writing is atomic."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import bundle as bundle_module
from runtime.bundle import Bundle, Limits, pack, record_proof, write_bundle
from runtime.errors import BundleError, InputError
from runtime.fields import BundleWarning
from runtime.manifest import Manifest
from runtime.proofs import Proof

Parts = tuple[Manifest, dict[str, bytes]]


@pytest.fixture(params=["folder", "packed"])
def either(request: pytest.FixtureRequest, linear_bundle: Bundle, tmp_path: Path) -> Bundle:
    return linear_bundle if request.param == "folder" else pack(linear_bundle, tmp_path / "packed.edge")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_both_forms_give_what_was_written(either: Bundle, linear_parts: Parts) -> None:
    manifest, files = linear_parts
    opened = Bundle.open(str(either.path))
    assert opened.manifest == manifest
    assert opened.files == tuple(sorted(files))
    assert {name: opened.read(name) for name in files} == files
    assert opened.graph("linear") == files["linear.onnx"]
    assert opened.model("linear") == manifest.models["linear"]
    cases = opened.golden("linear")
    assert [case.name for case in cases] == ["batch 1", "batch 2", "batch 7", "batch 32"]
    assert cases[2].inputs["x"].shape == (7, 3)
    assert cases[2].outputs["y"].dtype == np.float64
    assert "linear" in repr(opened)


def test_packing_is_reproducible_and_uncompressed(linear_bundle: Bundle, tmp_path: Path) -> None:
    first, second = pack(linear_bundle, tmp_path / "a.edge"), pack(linear_bundle, tmp_path / "b.edge")
    assert first.path.read_bytes() == second.path.read_bytes()
    with zipfile.ZipFile(first.path) as archive:
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.namelist()[0] == "manifest.json"


def test_a_packed_bundle_is_read_without_writing_anything(linear_bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "alone"
    folder.mkdir()
    packed = pack(linear_bundle, folder / "p.edge")
    before = tree(tmp_path)
    packed = Bundle.open(packed.path)
    packed.golden("linear")
    packed.graph("linear")
    assert tree(tmp_path) == before


def test_names_that_are_not_there(either: Bundle) -> None:
    with pytest.raises(InputError, match="no model 'age'; the bundle holds linear"):
        either.model("age")
    with pytest.raises(InputError, match="no variant 'int8'; it has fp32"):
        either.graph("linear", "int8")
    for name in ("../linear.onnx", "/etc/passwd", "proofs.json", ""):
        with pytest.raises(BundleError, match="names no file"):
            either.read(name)


def test_many_threads_may_read_at_once(either: Bundle, linear_parts: Parts) -> None:
    wrong: list[str] = []

    def work() -> None:
        for name, content in linear_parts[1].items():
            if either.read(name) != content:
                wrong.append(name)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- folders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear.onnx", "linear.golden.npz", "NOTICE"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "extend", "empty"])
def test_damaged_files_are_refused(linear_bundle: Bundle, name: str, damage: str) -> None:
    file = linear_bundle.path / name
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes(
        {
            "flip": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "truncate": content[:-1],
            "extend": content + b"x",
            "empty": b"",
        }[damage]
    )
    with pytest.raises(BundleError, match=name):
        Bundle.open(linear_bundle.path)
    with pytest.raises(BundleError, match=name):
        Bundle.open(linear_bundle.path, check=False).read(name)
    with pytest.raises(BundleError, match=name):
        linear_bundle.read(name)  # opened before the damage


def test_a_truncated_graph_is_found_without_hashing(linear_bundle: Bundle) -> None:
    file = linear_bundle.path / "linear.onnx"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"linear\.onnx has \d+ bytes, the manifest says \d+: truncated"):
        Bundle.open(linear_bundle.path, check=False)


def test_a_missing_file(linear_bundle: Bundle) -> None:
    (linear_bundle.path / "NOTICE").unlink()
    with pytest.raises(BundleError, match="NOTICE is missing"):
        Bundle.open(linear_bundle.path)
    with pytest.raises(BundleError, match="NOTICE: No such file"):
        linear_bundle.read("NOTICE")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "expected an object"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"schema_version": 1, "schema_version": 1}', "'schema_version' is there twice"),
        (b'{"schema_version": NaN}', "NaN is not JSON"),
        (b'{"schema_version": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"schema_version": 99}', "update edgedl"),
    ],
    ids=["cut", "list", "not utf-8", "duplicate key", "nan", "long number", "deep", "newer"],
)
def test_a_manifest_that_cannot_be_trusted(linear_bundle: Bundle, content: bytes, words: str) -> None:
    (linear_bundle.path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=words) as caught:
        Bundle.open(linear_bundle.path)
    assert str(caught.value).startswith(str(linear_bundle.path))


def test_links_folders_and_special_files_are_refused(linear_bundle: Bundle, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(linear_bundle.read("NOTICE"))
    notice = linear_bundle.path / "NOTICE"
    notice.unlink()
    notice.symlink_to(secret)  # the very same bytes: it is the link that is refused
    with pytest.raises(BundleError, match="NOTICE' is a link"):
        Bundle.open(linear_bundle.path)
    with pytest.raises(BundleError, match="NOTICE"):
        linear_bundle.read("NOTICE")
    notice.unlink()
    notice.mkdir()
    with pytest.raises(BundleError, match="NOTICE' is a link, a folder"):
        Bundle.open(linear_bundle.path)
    notice.rmdir()
    os.mkfifo(notice)
    with pytest.raises(BundleError, match="special file"):
        Bundle.open(linear_bundle.path)


def test_the_bundle_itself_may_be_reached_through_a_link(either: Bundle, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(either.path)  # how a deployment switches
    assert Bundle.open(link).manifest == either.manifest


def test_files_that_the_manifest_does_not_name_warn(linear_bundle: Bundle) -> None:
    (linear_bundle.path / "extra.txt").write_text("?")
    (linear_bundle.path / ".DS_Store").write_text("?")
    with pytest.warns(BundleWarning, match=r"does not name: extra\.txt$"):
        Bundle.open(linear_bundle.path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        Bundle.open(tmp_path / "none.edge")
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        Bundle.open(tmp_path)
    os.mkfifo(tmp_path / "pipe.edge")
    with pytest.raises(BundleError, match="neither a folder nor a file"):
        Bundle.open(tmp_path / "pipe.edge")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(entries=2), "2"),
        (Limits(manifest_bytes=10), r"manifest\.json has \d+ bytes"),
        (Limits(file_bytes=50), "the largest file"),
        (Limits(total_bytes=100), "at most 100"),
    ],
    ids=["entries", "manifest", "file", "total"],
)
def test_limits(either: Bundle, limits: Limits, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        Bundle.open(either.path, limits=limits)


# --- zips ----------------------------------------------------------------------------------------------------------


def zip_bytes(entries: list[tuple[str, bytes]], tamper: Callable[[zipfile.ZipInfo], None] | None = None, **kwargs: Any):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **kwargs) as archive:
        for name, content in entries:
            member = zipfile.ZipInfo(name)
            member.compress_type = kwargs.get("compression", zipfile.ZIP_STORED)
            if tamper:
                tamper(member)
            archive.writestr(member, content)
    return stream.getvalue()


@pytest.fixture
def entries(linear_bundle: Bundle) -> list[tuple[str, bytes]]:
    return sorted((name, content) for name, content in tree(linear_bundle.path).items())


def refused(tmp_path: Path, content: bytes, words: str, **options: Any) -> None:
    file = tmp_path / "evil.edge"
    file.write_bytes(content)
    before = tree(tmp_path)
    with pytest.raises(BundleError, match=words):
        Bundle.open(file, **options)
    assert tree(tmp_path) == before
    assert not (tmp_path.parent / "escaped.txt").exists()


def test_a_zip_made_by_other_tools_is_read(entries: list[tuple[str, bytes]], tmp_path: Path) -> None:
    file = tmp_path / "other.edge"
    file.write_bytes(zip_bytes(entries))
    assert Bundle.open(file).golden("linear")


@pytest.mark.parametrize("name", ["../escaped.txt", "/escaped.txt", "a/b.txt", "..", "a\\b", ".x", "a:b", "ünï"])
def test_entries_that_lead_out_are_refused(entries: list[tuple[str, bytes]], tmp_path: Path, name: str) -> None:
    refused(tmp_path, zip_bytes([*entries, (name, b"!")]), "not a flat file name|another name in its local header")


def test_duplicate_entries_are_refused(entries: list[tuple[str, bytes]], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = zip_bytes([*entries, ("NOTICE", b"!")])
    refused(tmp_path, content, "'NOTICE' is there twice")


def test_links_in_a_zip_are_refused(entries: list[tuple[str, bytes]], tmp_path: Path) -> None:
    def link(member: zipfile.ZipInfo) -> None:
        if member.filename == "NOTICE":
            member.external_attr = (stat.S_IFLNK | 0o777) << 16

    refused(tmp_path, zip_bytes(entries, link), "'NOTICE' is a link")


def test_compression_is_refused_so_no_bomb_can_go_off(entries: list[tuple[str, bytes]], tmp_path: Path) -> None:
    bomb = zip_bytes([*entries, ("bomb.bin", bytes(50_000_000))], compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    refused(tmp_path, bomb, "is compressed")


def test_a_size_that_the_directory_makes_up_is_refused(entries: list[tuple[str, bytes]], tmp_path: Path) -> None:
    content = bytearray(zip_bytes(entries))
    place = content.rindex(b"PK\x01\x02")  # the last entry of the directory: both sizes 3.9 GB
    content[place + 20 : place + 28] = b"\x00\x00\x00\xf0" * 2
    refused(tmp_path, bytes(content), "overlap or reach past the end")


def test_overlapping_entries_are_refused(entries: list[tuple[str, bytes]], tmp_path: Path) -> None:
    content = bytearray(zip_bytes(entries))
    first, last = content.index(b"PK\x01\x02"), content.rindex(b"PK\x01\x02")
    assert first != last
    content[first + 42 : first + 46] = content[last + 42 : last + 46]
    refused(tmp_path, bytes(content), "another name|overlap|damaged")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"", "not a packed bundle"),
        (lambda data: b"PK", "not a packed bundle"),
        (lambda data: data[: len(data) // 2], "not a packed bundle, or truncated"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data + b"x", "truncated|not a packed bundle"),
        (lambda data: b"MZ" + data, "bytes before the zip"),
        (lambda data: data[:-2] + b"\x01\x00x", "with a comment|truncated"),
        (lambda data: data[:1000] + data[1001:], "truncated"),
    ],
    ids=["empty", "two bytes", "half", "one short", "one more", "prefix", "comment", "hole"],
)
def test_zips_that_are_not_whole(entries, tmp_path: Path, change: Callable[[bytes], bytes], words: str) -> None:
    refused(tmp_path, change(zip_bytes(entries)), words)


def test_encrypted_entries_are_refused(entries: list[tuple[str, bytes]], tmp_path: Path) -> None:
    content = bytearray(zip_bytes(entries))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    refused(tmp_path, bytes(content), "encrypted")


def test_too_many_entries_are_refused_before_they_are_listed(tmp_path: Path) -> None:
    content = zip_bytes([(f"f{index}", b"") for index in range(2000)])
    refused(tmp_path, content, "2000 entries in a directory")


# --- writing -------------------------------------------------------------------------------------------------------


def test_writing_leaves_nothing_but_the_bundle(linear_bundle: Bundle, tmp_path: Path) -> None:
    pack(linear_bundle, tmp_path / "p.edge")
    for path in (tmp_path / "p.edge", linear_bundle.path):
        record_proof(path, proof_of(linear_bundle))
    assert names(tmp_path) == ["linear.edge", "p.edge"]
    assert names(linear_bundle.path) == ["NOTICE", "linear.golden.npz", "linear.onnx", "manifest.json", "proofs.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda files: files.pop("NOTICE"), r"missing \['NOTICE'\]"),
        (lambda files: files.update(extra=b""), r"not named there \['extra'\]"),
        (lambda files: files.update(NOTICE=b"other"), "NOTICE does not have the sha256"),
    ],
    ids=["missing", "stranger", "other bytes"],
)
def test_files_that_are_not_the_manifests(linear_parts: Parts, tmp_path: Path, change: Any, words: str) -> None:
    manifest, files = linear_parts
    change(files)
    with pytest.raises(BundleError, match=words):
        write_bundle(tmp_path / "b.edge", manifest, files)
    assert names(tmp_path) == []


def test_an_existing_bundle_is_replaced(either: Bundle, linear_parts: Parts) -> None:
    manifest, files = linear_parts
    newer = write_bundle(either.path, replace(manifest, version="2.0.0"), files)
    assert newer.path.is_dir()
    assert Bundle.open(either.path).manifest.version == "2.0.0"


def test_an_existing_bundle_outlives_a_failure(
    either: Bundle, linear_parts: Parts, monkeypatch, tmp_path: Path
) -> None:
    def fail(new: Path, path: Path) -> None:
        raise OSError(28, "No space left on device")

    before = names(tmp_path)
    monkeypatch.setattr(bundle_module, "_swap", fail)
    with pytest.raises(BundleError, match="cannot be written: No space left"):
        write_bundle(either.path, replace(linear_parts[0], version="2.0.0"), linear_parts[1])
    assert Bundle.open(either.path).manifest.version == "1.0.0"
    assert names(tmp_path) == before


def test_the_old_bundle_comes_back_when_the_last_step_fails(linear_bundle: Bundle, linear_parts: Parts, monkeypatch):
    real = Path.replace

    def fail_for_the_new_one(self: Path, target: Path) -> Path:
        if Path(target) == linear_bundle.path and (self / "manifest.json").read_bytes().count(b'"2.0.0"'):
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", fail_for_the_new_one)
    with pytest.raises(BundleError, match="Input/output error"):
        write_bundle(linear_bundle.path, replace(linear_parts[0], version="2.0.0"), linear_parts[1])
    assert Bundle.open(linear_bundle.path).manifest.version == "1.0.0"
    assert names(linear_bundle.path.parent) == ["linear.edge"]


@pytest.mark.parametrize("kind", ["file", "folder", "folder with a stranger", "link", "other json"])
def test_what_is_no_bundle_is_not_overwritten(kind: str, linear_parts: Parts, tmp_path: Path) -> None:
    path = tmp_path / "thesis"
    if kind == "file":
        path.write_text("three years of work")
    elif kind == "folder":
        path.mkdir()
        (path / "chapter1.tex").write_text("three years of work")
    elif kind == "folder with a stranger":
        write_bundle(path, *linear_parts)
        (path / "notes.txt").write_text("mine")
    elif kind == "link":
        write_bundle(tmp_path / "real", *linear_parts)
        path.symlink_to(tmp_path / "real")
    else:
        path.mkdir()
        (path / "manifest.json").write_text(json.dumps({"name": "a browser extension"}))
    before = tree(tmp_path)
    with pytest.raises(BundleError, match="choose another name or remove it first"):
        write_bundle(path, *linear_parts)
    source = write_bundle(tmp_path / "source.edge", *linear_parts)
    with pytest.raises(BundleError, match="choose another name or remove it first"):
        pack(source, path)
    assert {name: content for name, content in tree(tmp_path).items() if "source" not in name} == before


def test_an_empty_folder_may_be_used(linear_parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "b.edge").mkdir()
    assert write_bundle(tmp_path / "b.edge", *linear_parts).golden("linear")


def test_a_folder_that_does_not_exist(linear_parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"the folder .* does not exist"):
        write_bundle(tmp_path / "no" / "b.edge", *linear_parts)


def test_a_manifest_that_could_not_be_read_back_is_not_written(linear_parts: Parts, tmp_path: Path) -> None:
    manifest, files = linear_parts
    with pytest.raises((BundleError, ValueError)):
        write_bundle(tmp_path / "b.edge", replace(manifest, metrics=({"value": float("nan")},)), files)
    with pytest.raises(BundleError, match="not a flat file name"):
        write_bundle(tmp_path / "b.edge", replace(manifest, name="a/b"), files)
    assert names(tmp_path) == []


def test_packing_a_bundle_over_itself(linear_bundle: Bundle) -> None:
    packed = pack(linear_bundle, linear_bundle.path)
    assert packed.path.is_file()
    assert packed.golden("linear")


def proof_of(bundle: Bundle, target: str = "arm64/cortex-a72") -> Proof:
    return Proof(
        bundle.digest, target, "1.32.0", "Cortex-A72", "fp32", ok=True, date="2026-11-28", max_abs=3e-8, share=0.1
    )


def test_one_digest_in_either_form_and_a_proof_changes_neither(linear_bundle: Bundle, tmp_path: Path) -> None:
    packed = pack(linear_bundle, tmp_path / "p.edge")
    written = (linear_bundle.path / "manifest.json").read_bytes()
    assert linear_bundle.digest == packed.digest == hashlib.sha256(written).hexdigest()
    for bundle in (linear_bundle, packed):
        for target in ("arm64", "node"):
            proven = record_proof(bundle.path, proof_of(bundle, target))
        assert proven.digest == linear_bundle.digest
        assert [proof.target for proof in Bundle.open(bundle.path).proofs] == ["arm64", "node"]
        assert proven.proofs[0] == proof_of(bundle, "arm64")
    assert pack(Bundle.open(linear_bundle.path), tmp_path / "again.edge").path.read_bytes() == packed.path.read_bytes()


def test_packing_keeps_what_a_newer_edgedl_wrote(linear_bundle: Bundle, tmp_path: Path) -> None:
    path = linear_bundle.path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"newer": 1}))
    with pytest.warns(BundleWarning, match="newer"):
        packed = pack(Bundle.open(linear_bundle.path), tmp_path / "p.edge")
    assert packed.read("manifest.json") == path.read_bytes()


def test_a_proof_of_another_bundle_is_refused(linear_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="a proof speaks of 0000"):
        record_proof(linear_bundle.path, replace(proof_of(linear_bundle), digest="0" * 64))
    assert linear_bundle.proofs == ()


@pytest.mark.parametrize("content", ["", "[1]", "{}", '[{"digest": "x"}]', "[" * 5000], ids=range(5))
def test_damaged_proofs_leave_the_bundle_usable(linear_bundle: Bundle, content: str) -> None:
    (linear_bundle.path / "proofs.json").write_text(content)
    opened = Bundle.open(linear_bundle.path)
    assert opened.golden("linear")
    with pytest.raises(BundleError, match=r"^proofs\.json.*remove it and prove the bundle again"):
        _ = opened.proofs


def test_a_bundle_that_was_replaced_while_open_is_noticed(either: Bundle, linear_parts: Parts) -> None:
    opened = Bundle.open(either.path)
    target = either.path / "linear.onnx" if either.path.is_dir() else either.path
    content = target.read_bytes()
    target.write_bytes(b"\0" * len(content))
    with pytest.raises(BundleError):
        opened.read("linear.onnx")
