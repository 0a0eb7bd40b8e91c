"""A bundle with one more variant: in memory while candidates are judged, and on disk once one is chosen."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from exporters.graphs import stamp
from runtime.budget import Budget
from runtime.bundle import Bundle, pack, write_bundle
from runtime.errors import BundleError
from runtime.manifest import SCHEMA_VERSION, Variant
from runtime.proofs import PROOFS, write_proofs
from runtime.sources import MANIFEST

INT8 = "int8"


class _Layered:
    """The files of a bundle with some of them replaced or added."""

    def __init__(self, bundle: Bundle, changed: Mapping[str, bytes]) -> None:
        self._bundle = bundle
        self._changed = changed
        kept = dict.fromkeys(bundle.files, 0)
        self.sizes = kept | {name: len(data) for name, data in changed.items()}

    def read(self, name: str) -> bytes:
        return self._changed[name] if name in self._changed else self._bundle.read(name)


def with_variants(bundle: Bundle, graphs: Mapping[str, bytes], budgets: Mapping[str, Budget] | None = None) -> Bundle:
    """The bundle with the variant ``int8`` of some models, in memory.

    Args:
        bundle: that they were made from. A variant of this name that it has is left out of the models given.
        graphs: by model.
        budgets: by model, how each was judged.
    """
    manifest = bundle.manifest
    files: dict[str, bytes] = {}
    models = dict(manifest.models)
    properties = {"bundle": manifest.name, "version": manifest.version, "task": manifest.task}
    for name, graph in graphs.items():
        file = f"{name}.{INT8}.onnx"
        data = stamp(graph, {**properties, "schema_version": str(SCHEMA_VERSION), "model": name})
        files[file] = data
        variant = Variant(file, hashlib.sha256(data).hexdigest(), len(data), budget=(budgets or {}).get(name))
        models[name] = replace(models[name], variants={**models[name].variants, INT8: variant})
    document = replace(manifest, models=models).to_json()
    files[MANIFEST] = (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    if bundle.proofs:
        files[PROOFS] = write_proofs(bundle.proofs)
    return Bundle(bundle.path, _Layered(bundle, files))


def check_writable(bundle: Bundle, path: str | os.PathLike[str]) -> None:
    """Refuses to write over a bundle whose signature would not hold any more.

    Raises:
        BundleError: it is signed, and the result would take its place.
    """
    if bundle.signatures and Path(path).absolute() == bundle.path.absolute():
        raise BundleError(
            f"{bundle.path} is signed ({', '.join(bundle.signatures)}), and no signature holds for it with another "
            "variant; write it elsewhere with -o and sign it with `edgedl pack --sign`"
        )


def write_variants(bundle: Bundle, made: Bundle, path: str | os.PathLike[str]) -> Bundle:
    """Writes a bundle of `with_variants`, in the form of the one that it was made from, atomically.

    The proofs of that bundle come with it: each names the digest that it speaks of. Signatures do not.

    Raises:
        BundleError: it cannot be written, or would take the place of a signed one.
    """
    check_writable(bundle, path)
    if bundle.path.is_dir():
        return write_bundle(path, made.manifest, {name: made.read(name) for name in made.files}, proofs=made.proofs)
    return pack(made, path)
