"""A bundle made from another one: some files or a part of the manifest replaced, in memory, and written in its form."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from runtime.bundle import Bundle, pack, write_bundle
from runtime.errors import BundleError
from runtime.manifest import Manifest
from runtime.proofs import PROOFS, write_proofs
from runtime.sources import MANIFEST


class _Layered:
    """The files of a bundle with some of them replaced or added."""

    def __init__(self, bundle: Bundle, changed: Mapping[str, bytes]) -> None:
        self._bundle = bundle
        self._changed = changed
        kept = dict.fromkeys(bundle.files, 0)
        self.sizes = kept | {name: len(data) for name, data in changed.items()}

    def read(self, name: str) -> bytes:
        return self._changed[name] if name in self._changed else self._bundle.read(name)


def rewritten(bundle: Bundle, manifest: Manifest, files: Mapping[str, bytes] | None = None) -> Bundle:
    """The bundle with another manifest, in memory.

    The proofs come with it: each names the digest that it speaks of. Signatures do not.

    Args:
        bundle: that it is made from.
        manifest: the new one.
        files: those that it names and the bundle lacks, or holds with other bytes.
    """
    changed = dict(files or {})
    changed[MANIFEST] = (json.dumps(manifest.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    if bundle.proofs:
        changed[PROOFS] = write_proofs(bundle.proofs)
    return Bundle(bundle.path, _Layered(bundle, changed))


def check_writable(bundle: Bundle, path: str | os.PathLike[str], change: str) -> None:
    """Refuses to write over a bundle whose signature would not hold any more.

    Args:
        bundle: that is changed.
        path: where the result goes.
        change: what is changed, e.g. "another variant".

    Raises:
        BundleError: it is signed, and the result would take its place.
    """
    if bundle.signatures and Path(path).absolute() == bundle.path.absolute():
        raise BundleError(
            f"{bundle.path} is signed ({', '.join(bundle.signatures)}), and no signature holds for it with {change}; "
            "write it elsewhere with -o and sign it with `edgedl pack --sign`"
        )


def write_rewritten(bundle: Bundle, made: Bundle, path: str | os.PathLike[str], change: str) -> Bundle:
    """Writes a bundle of `rewritten`, in the form of the one that it was made from, atomically.

    Args:
        bundle: that it was made from.
        made: what is written.
        path: where.
        change: what was changed, see `check_writable`.

    Raises:
        BundleError: it cannot be written, or would take the place of a signed one.
    """
    check_writable(bundle, path, change)
    if bundle.path.is_dir():
        return write_bundle(path, made.manifest, {name: made.read(name) for name in made.files}, proofs=made.proofs)
    return pack(made, path)
