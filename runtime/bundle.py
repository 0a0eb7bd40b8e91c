"""A bundle: a folder ``NAME.edge/`` or the same files in one uncompressed zip ``NAME.edge``.

Reading trusts nothing: names are flat, links are refused, sizes are limited before memory is taken, and no byte leaves
this module before its sha256 has been compared with the manifest's. Writing is atomic: a complete temporary sibling,
flushed to disk, takes the place of what was there.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import BundleError, InputError
from runtime.fields import BundleWarning, parse_json
from runtime.golden import GoldenCase, golden_from_npz, golden_to_npz
from runtime.manifest import Manifest, ModelSpec
from runtime.sources import LIMITS, MANIFEST, PROOFS, Limits, Source, is_signature, open_source, read_signatures

if TYPE_CHECKING:
    from runtime.proofs import Proof

__all__ = [
    "Bundle",
    "BundleWarning",
    "GoldenCase",
    "Limits",
    "golden_from_npz",
    "golden_to_npz",
    "pack",
    "record_proof",
    "write_bundle",
]


class Bundle:
    """An opened bundle. Holds no open file, so it needs no closing and may be used from many threads."""

    __slots__ = ("_digests", "_source", "digest", "manifest", "path")

    def __init__(self, path: Path, source: Source) -> None:
        self.path = path
        self._source = source
        data = source.read(MANIFEST)
        self.digest = hashlib.sha256(data).hexdigest()
        """The sha256 of ``manifest.json``. It names that of every other file, so it stands for the whole bundle."""
        self.manifest = Manifest.from_json(parse_json(data))
        self._digests = self.manifest.digests()

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, check: bool = True, limits: Limits = LIMITS) -> Bundle:
        """Opens a bundle, a folder or a packed file.

        Args:
            path: the folder or file.
            check: compare the sha256 of every file now. Without it each file is compared when it is read, which every
                read does in any case: nothing that was tampered with is ever used.
            limits: what is read at most.

        Raises:
            BundleError: missing, truncated, tampered with, too large, with links or names that lead out of it, or
                written by a newer edgedl.
        """
        path = Path(path)
        try:
            if (path / "config.json").is_file() and not (path / MANIFEST).exists():
                raise BundleError(f"{path} is a run, not a bundle; export it first: edgedl export {path} -o NAME.edge")
            source = open_source(path, limits)
            if MANIFEST not in source.sizes:
                raise BundleError(f"{path}: no {MANIFEST} in it, so it is not a bundle")
            if source.sizes[MANIFEST] > limits.manifest_bytes:
                raise BundleError(f"{path}: {MANIFEST} has {source.sizes[MANIFEST]} bytes, more than is read")
            bundle = cls(path, source)
            bundle._check_sizes(limits)
            if check:
                bundle.check()
        except OSError as error:
            raise BundleError(f"{path}: {error.strerror or error}") from error
        except BundleError as error:
            # The path first: a service opens many bundles.
            raise error if str(error).startswith(str(path)) else BundleError(f"{path}: {error}") from error
        return bundle

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the manifest names, in the order of their names."""
        return tuple(sorted(self._digests))

    @property
    def has_proofs(self) -> bool:
        """Whether proofs lie beside the manifest. Nothing is read."""
        return PROOFS in self._source.sizes

    @property
    def proofs(self) -> tuple[Proof, ...]:
        """Where the recorded answers were replayed.

        Raises:
            BundleError: ``proofs.json`` is damaged.
        """
        if not self.has_proofs:
            return ()
        from runtime.proofs import read_proofs  # here, because a first answer begins quicker without

        try:
            return read_proofs(self._source.read(PROOFS))
        except OSError as error:
            raise BundleError(f"{self.path}: {PROOFS}: {error.strerror or error}") from error

    @property
    def signatures(self) -> dict[str, bytes]:
        """The signatures of the manifest by file name, unchecked: see `runtime.signatures`.

        Raises:
            BundleError: one cannot be read or is too large.
        """
        try:
            return read_signatures(self._source)
        except OSError as error:
            raise BundleError(f"{self.path}: a signature cannot be read: {error.strerror or error}") from error

    def check(self) -> None:
        """Compares the sha256 of every file with the manifest.

        Raises:
            BundleError: a file differs.
        """
        for name in self.files:
            self.read(name)

    def read(self, file: str) -> bytes:
        """The bytes of a file that the manifest names, or of the manifest itself.

        Raises:
            BundleError: the manifest does not name it, or its bytes are not those that it should hold.
        """
        expected = self.digest if file == MANIFEST else self._digests.get(file)
        if expected is None:
            raise BundleError(f"{self.path}: the manifest names no file {file!r}; it names {', '.join(self.files)}")
        try:
            data = self._source.read(file)
        except OSError as error:
            raise BundleError(f"{self.path}: {file}: {error.strerror or error}") from error
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise BundleError(
                f"{self.path}: {file} has sha256 {found[:16]}…, expected {expected[:16]}…: "
                "the file is damaged or was tampered with; export or copy the bundle again"
            )
        return data

    def model(self, name: str) -> ModelSpec:
        """One model of the bundle.

        Raises:
            InputError: there is no such model.
        """
        try:
            return self.manifest.models[name]
        except KeyError:
            known = ", ".join(self.manifest.models)
            raise InputError(f"{self.path}: no model {name!r}; the bundle holds {known}") from None

    def graph(self, model: str, variant: str = "fp32") -> bytes:
        """The ONNX graph of a model in one variant.

        Raises:
            InputError: there is no such model or variant.
            BundleError: the file is damaged.
        """
        variants = self.model(model).variants
        if variant not in variants:
            known = ", ".join(variants)
            raise InputError(f"{self.path}: model {model!r} has no variant {variant!r}; it has {known}")
        return self.read(variants[variant].file)

    def golden(self, model: str) -> tuple[GoldenCase, ...]:
        """The recorded answers of a model; empty where it has none.

        Raises:
            BundleError: damaged, or not the number of cases that the manifest gives.
        """
        reference = self.model(model).golden
        if reference is None:
            return ()
        cases = golden_from_npz(self.read(reference.file))
        if len(cases) != reference.cases:
            raise BundleError(f"{self.path}: {reference.file} holds {len(cases)} cases, manifest: {reference.cases}")
        return cases

    def _check_sizes(self, limits: Limits) -> None:
        sizes = self._source.sizes
        for name in self.files:
            if name not in sizes:
                raise BundleError(f"{self.path}: {name} is missing")
        for model in self.manifest.models.values():
            for variant in model.variants.values():
                if sizes[variant.file] != variant.bytes:
                    raise BundleError(
                        f"{self.path}: {variant.file} has {sizes[variant.file]} bytes, the manifest says "
                        f"{variant.bytes}: truncated or tampered with"
                    )
        strangers = _strangers(sizes, self.files)
        if strangers:
            text = ", ".join(strangers[:5])
            warnings.warn(f"{self.path}: files that the manifest does not name: {text}", BundleWarning, stacklevel=3)

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, name={self.manifest.name!r}, version={self.manifest.version!r})"


def write_bundle(
    path: str | os.PathLike[str], manifest: Manifest, files: Mapping[str, bytes], *, proofs: Sequence[Proof] = ()
) -> Bundle:
    """Writes a bundle as a folder, atomically, and opens it.

    A bundle that is already there is replaced once the new one is complete. Anything else that is there stays. Proofs
    name the digest that they speak of, so those of the bundle that it was made from may come with it.

    Raises:
        BundleError: the files are not those of the manifest, or something that is no bundle is at the path.
    """
    path = Path(path)
    contents = _contents(manifest, files)
    if proofs:
        from runtime.proofs import write_proofs

        contents[PROOFS] = write_proofs(tuple(proofs))
    _check_replaceable(path)
    temporary = _sibling(path)
    try:
        temporary.mkdir(parents=False)
        for name, data in contents.items():
            _write_file(temporary / name, data)
        _sync_folder(temporary)
        Bundle.open(temporary)
        _swap(temporary, path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        _remove(temporary)
    return Bundle.open(path, check=False)


def pack(bundle: Bundle, path: str | os.PathLike[str], *, signatures: Mapping[str, bytes] | None = None) -> Bundle:
    """Writes a bundle as one uncompressed zip, atomically, and opens it. The same bundle gives the same bytes.

    Args:
        bundle: what is packed, with its proofs and signatures.
        path: the file to write.
        signatures: further ones, see `runtime.signatures.sign`.

    Raises:
        BundleError: a file of the bundle is damaged, or something that is no bundle is at the path.
    """
    path = Path(path)
    return _write_packed(path, bundle, bundle.proofs, bundle.signatures | dict(signatures or {}))


def record_proof(path: str | os.PathLike[str], *new: Proof) -> Bundle:
    """Adds proofs to a bundle of either form, atomically, each in the place of an older one of the same place.

    Raises:
        BundleError: the bundle cannot be written, or a proof speaks of another bundle.
    """
    from runtime.proofs import latest, write_proofs

    bundle = Bundle.open(path)
    for proof in new:
        if proof.digest != bundle.digest:
            raise BundleError(f"{path}: a proof speaks of {proof.digest[:16]}…, the bundle is {bundle.digest[:16]}…")
    proofs = latest((*bundle.proofs, *new))
    if not bundle.path.is_dir():
        return _write_packed(bundle.path, bundle, proofs, bundle.signatures)
    temporary = bundle.path / f".{PROOFS}.{os.urandom(4).hex()}"
    try:
        _write_file(temporary, write_proofs(proofs))
        temporary.replace(bundle.path / PROOFS)
        _sync_folder(bundle.path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return Bundle.open(path, check=False)


def _write_packed(path: Path, bundle: Bundle, proofs: tuple[Proof, ...], signatures: Mapping[str, bytes]) -> Bundle:
    from runtime.archive import write_archive
    from runtime.proofs import write_proofs

    contents = {name: bundle.read(name) for name in (MANIFEST, *bundle.files)}
    contents |= {name: signatures[name] for name in sorted(signatures)}
    if proofs:
        contents[PROOFS] = write_proofs(proofs)
    _check_replaceable(path)
    temporary = _sibling(path)
    try:
        write_archive(temporary, contents)
        Bundle.open(temporary)
        _swap(temporary, path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        _remove(temporary)
    return Bundle.open(path, check=False)


def _contents(manifest: Manifest, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a bundle with the manifest first, after checking that they are those the manifest names."""
    data = (json.dumps(manifest.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    # What is written must be readable: the manifest goes through its own reader.
    digests = Manifest.from_json(parse_json(data)).digests()
    if set(files) != set(digests):
        missing, strangers = sorted(set(digests) - set(files)), sorted(set(files) - set(digests))
        raise BundleError(f"the files are not the manifest's: missing {missing}, not named there {strangers}")
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != digests[name]:
            raise BundleError(f"{name} does not have the sha256 that the manifest gives it")
    return {MANIFEST: data} | {name: bytes(files[name]) for name in sorted(files)}


def _check_replaceable(path: Path) -> None:
    """Refuses to take away what is not a bundle, or what the user laid beside a bundle's files."""
    if not path.exists() and not path.is_symlink():
        if not path.parent.is_dir():
            raise BundleError(f"{path}: the folder {path.parent} does not exist")
        return
    advice = "nothing was written; choose another name or remove it first"
    if path.is_symlink():
        raise BundleError(f"{path}: a link is there; {advice}")
    if path.is_dir() and not any(path.iterdir()):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BundleWarning)
            there = Bundle.open(path, check=False)
    except BundleError as error:
        raise BundleError(f"{path}: what is there is not a bundle that can be read ({error}); {advice}") from error
    strangers = _strangers((entry.name for entry in path.iterdir()), there.files) if path.is_dir() else []
    if strangers:
        raise BundleError(f"{path}: {', '.join(strangers[:5])} there belongs to no bundle; {advice}")


def _strangers(names: Iterable[str], files: Sequence[str]) -> list[str]:
    """The names that are neither those of a bundle's files nor of what lies beside them."""
    own = {MANIFEST, PROOFS, *files}
    return sorted(name for name in names if name not in own and not is_signature(name))


def _sibling(path: Path) -> Path:
    return path.absolute().with_name(f".{path.absolute().name}.{os.urandom(6).hex()}")


def _swap(new: Path, path: Path) -> None:
    """Puts ``new`` at ``path``. A folder cannot replace a folder in one step: the old one is kept until then."""
    old = _sibling(path)
    there = path.exists()
    if there:
        path.replace(old)
    try:
        new.replace(path)
    except OSError:
        if there:
            old.replace(path)
        raise
    _sync_folder(path.absolute().parent)
    _remove(old)


def _write_file(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(path: Path) -> None:
    if os.name != "posix":
        return  # Windows has no handle on a folder
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        import shutil  # here, because who only reads a bundle does without

        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
