"""Reads manifests of KServe with the kserve package's own models: every field has to be one of theirs.

Run with the Python of an environment that holds kserve: YAML documents on standard input, a line for each fault.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import kserve.models
import kubernetes.client.models
import yaml

KINDS = {
    ("serving.kserve.io/v1alpha1", "ServingRuntime"): "V1alpha1ServingRuntime",
    ("serving.kserve.io/v1beta1", "InferenceService"): "V1beta1InferenceService",
}
PLAIN = {"str": str, "bool": bool, "int": int, "float": (int, float)}


def faults(value: Any, kind: str, place: str) -> list[str]:
    """What in a value the model of this name does not know."""
    inner = re.fullmatch(r"list\[(.+)\]", kind)
    if inner:
        if not isinstance(value, list):
            return [f"{place} is no list"]
        return [fault for index, item in enumerate(value) for fault in faults(item, inner[1], f"{place}[{index}]")]
    inner = re.fullmatch(r"dict[\[(]str, (.+)[\])]", kind)
    if inner:
        if not isinstance(value, dict):
            return [f"{place} is no mapping"]
        return [fault for key, item in value.items() for fault in faults(item, inner[1], f"{place}.{key}")]
    if kind in PLAIN:
        return [] if isinstance(value, PLAIN[kind]) else [f"{place} is {value!r}, expected {kind}"]
    model = getattr(kserve.models, kind, None) or getattr(kubernetes.client.models, kind, None)
    if model is None:  # a quantity, an int or string, any value
        return []
    if not isinstance(value, dict):
        return [f"{place} is no mapping"]
    names = {written: name for name, written in model.attribute_map.items()}
    found = [f"{place}.{key} is unknown to {kind}" for key in value if key not in names]
    known = {names[key]: item for key, item in value.items() if key in names}
    for name, item in known.items():
        found += faults(item, model.openapi_types[name], f"{place}.{model.attribute_map[name]}")
    if not found:
        model(**known)  # what is required is there, or this raises
    return found


def main() -> int:
    found = []
    for document in yaml.safe_load_all(sys.stdin):
        kind = KINDS.get((document["apiVersion"], document["kind"]))
        found += faults(document, kind, document["kind"]) if kind else [f"{document['kind']} is no kind of KServe"]
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
