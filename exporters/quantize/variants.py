"""A bundle with one more variant, in memory, while candidates are judged and once one is chosen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from exporters.graphs import stamp
from runtime.budget import Budget
from runtime.bundle import Bundle
from runtime.manifest import SCHEMA_VERSION, Variant
from runtime.rewriting import rewritten

INT8 = "int8"


CHANGE = "another variant"


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
    return rewritten(bundle, replace(manifest, models=models), files)
