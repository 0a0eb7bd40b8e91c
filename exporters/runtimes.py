"""What stands between a graph and a release of ONNX Runtime, told before it is on a device that cannot load it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx

from exporters.errors import GuardError
from exporters.graphs import all_nodes
from runtime.errors import InputError

RELEASES = {
    5: (7, 12, 2), 6: (7, 13, 2), 7: (7, 13, 2), 8: (7, 14, 2), 9: (8, 15, 2), 10: (8, 15, 2), 11: (8, 16, 3),
    12: (8, 17, 3), 13: (8, 17, 3), 14: (8, 18, 3), 15: (9, 18, 3), 16: (9, 19, 3), 17: (9, 20, 4), 18: (10, 21, 5),
    19: (10, 21, 5), 20: (10, 21, 5), 21: (10, 22, 5), 22: (10, 22, 5), 23: (11, 23, 5), 24: (13, 25, 5),
}  # fmt: skip
"""ONNX Runtime 1.x -> the newest IR version, opset and opset of ai.onnx.ml that it loads.

Each release was installed and given graphs of one node (2026-11-29). Newer releases load what older ones do. 1.15 says
that it knows opset 19, but lacks operators as common as Identity of it.
"""

ANTIALIAS = 15
"""The first release whose Resize has the attribute."""

_FORM = re.compile(r"onnxruntime\s*==\s*1\.(\d+)(\.\d+)?")


def parse_runtime(text: str) -> int:
    """The minor version of ``onnxruntime==1.17``.

    Raises:
        InputError: the text has another form, or the release is older than those that are known.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None or int(found[1]) < min(RELEASES):
        raise InputError(
            f"{text!r} is no release that can be checked; expected onnxruntime==1.{min(RELEASES)} or newer"
        )
    return int(found[1])


def check_runtimes(model: onnx.ModelProto, runtimes: Sequence[str]) -> None:
    """Holds a graph to releases of ONNX Runtime.

    Raises:
        GuardError: one of them does not load it; the message says what stands in the way.
        InputError: a release is written in another form.
    """
    for text in runtimes:
        found = obstacles(model, parse_runtime(text))
        if found:
            raise GuardError(f"{text} does not load the graph: {'; '.join(found)}")


def obstacles(model: onnx.ModelProto, minor: int) -> list[str]:
    """What ONNX Runtime 1.``minor`` lacks for a graph, one phrase each."""
    ir, opset, machine_learning = RELEASES[min(minor, max(RELEASES))]
    found = []
    if model.ir_version > ir:
        found.append(f"the graph is of IR version {model.ir_version}, it reads up to {ir}")
    for entry in model.opset_import:
        known = {"": opset, "ai.onnx": opset, "ai.onnx.ml": machine_learning}.get(entry.domain)
        if known is None:
            found.append(f"it may not have the operators of {entry.domain}")
        elif entry.version > known:
            newer = _newer_than(model, entry.domain, known)
            told = f" ({', '.join(newer)} changed since)" if newer else ""
            found.append(f"the graph is of opset {entry.version}{told}, it knows up to {known}: --opset {known}")
    if minor < ANTIALIAS and any(_is_antialiased(node) for node in all_nodes(model)):
        found.append(f"Resize with antialias exists from 1.{ANTIALIAS} on")
    return found


def _newer_than(model: onnx.ModelProto, domain: str, opset: int) -> list[str]:
    """The operators of a graph whose meaning changed after an opset."""
    version = max(entry.version for entry in model.opset_import if entry.domain == domain)
    names = {node.op_type for node in all_nodes(model) if node.domain == domain}
    schemas = {name: onnx.defs.get_schema(name, version, domain) for name in names}
    return sorted(name for name, schema in schemas.items() if schema.since_version > opset)


def _is_antialiased(node: onnx.NodeProto) -> bool:
    return node.op_type == "Resize" and any(part.name == "antialias" and part.i for part in node.attribute)
