"""What a wheelhouse holds, as a software bill of materials: CycloneDX 1.6 in JSON.

The document is small, so it is written here; a test validates it with the reference implementation. The same wheelhouse
gives the same bytes: there is no date in it, and its serial number follows from its contents.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
import zipfile
from collections.abc import Sequence
from email.message import Message
from email.parser import Parser
from typing import Any

from edgedl._version import __version__
from edgedl.deploy.wheelhouse import Wheel
from runtime.bundle import Bundle
from runtime.errors import InputError

LONGEST_LICENSE = 100
"""Characters of a licence's name; some packages put the whole text there."""


def sbom(bundle: Bundle, wheels: Sequence[Wheel]) -> dict[str, Any]:
    """The document.

    Args:
        bundle: What is deployed.
        wheels: What it needs.

    Raises:
        InputError: A wheel says nothing of itself.
    """
    manifest = bundle.manifest
    told = {wheel.name: _metadata(wheel) for wheel in wheels}
    libraries = [_library(wheel, told[wheel.name]) for wheel in wheels]
    models = [
        {
            "type": "machine-learning-model",
            "bom-ref": f"model:{name}:{form}",
            "name": name,
            "version": manifest.version,
            "description": f"ONNX graph {variant.file}, variant {form}",
            "hashes": [{"alg": "SHA-256", "content": variant.sha256}],
        }
        for name, model in manifest.models.items()
        for form, variant in model.variants.items()
    ]
    subject = {
        "type": "application",
        "bom-ref": "bundle",
        "name": manifest.name,
        "version": manifest.version,
        "description": manifest.description,
        "hashes": [{"alg": "SHA-256", "content": bundle.digest}],
        "licenses": [{"license": {"name": manifest.license}}],
    }
    depends = [{"ref": "bundle", "dependsOn": [*(model["bom-ref"] for model in models), _ref(_of(wheels, "edgedl"))]}]
    depends += [{"ref": _ref(wheel), "dependsOn": _needed(told[wheel.name], wheels)} for wheel in wheels]
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "edgedl", "version": __version__}]},
            "component": subject,
        },
        "components": [*models, *libraries],
        "dependencies": depends,
    }
    contents = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()
    return {"serialNumber": f"urn:uuid:{uuid.UUID(bytes=contents[:16], version=4)}", **document}


def _library(wheel: Wheel, told: Message) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": _ref(wheel),
        "name": wheel.name,
        "version": wheel.version,
        "purl": f"pkg:pypi/{wheel.name}@{wheel.version}",
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
    }
    if told["Summary"]:
        found["description"] = str(told["Summary"])
    licenses = _licenses(told)
    return found | {"licenses": licenses} if licenses else found


def _licenses(told: Message) -> list[dict[str, Any]]:
    if told["License-Expression"]:
        return [{"expression": str(told["License-Expression"])}]
    name = str(told["License"] or "").strip()
    if name and "\n" not in name and len(name) <= LONGEST_LICENSE:
        return [{"license": {"name": name}}]
    classifiers = [text for text in told.get_all("Classifier", []) if text.startswith("License :: ")]
    return [{"license": {"name": text.rpartition(" :: ")[2]}} for text in classifiers]


def _needed(told: Message, wheels: Sequence[Wheel]) -> list[str]:
    """The wheels that a package needs, also for extras, as far as they are there."""
    names = {_normal(re.split(r"[\s;<>=!~\[(]", text, maxsplit=1)[0]) for text in told.get_all("Requires-Dist", [])}
    return sorted({_ref(wheel) for wheel in wheels if wheel.name in names})


def _metadata(wheel: Wheel) -> Message:
    try:
        with zipfile.ZipFile(wheel.path) as archive:
            (name,) = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
            return Parser().parsestr(archive.read(name).decode(errors="replace"))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{wheel.path} is no wheel: {error}") from error


def _of(wheels: Sequence[Wheel], name: str) -> Wheel:
    return next(wheel for wheel in wheels if wheel.name == name)


def _ref(wheel: Wheel) -> str:
    return f"pypi:{wheel.name}@{wheel.version}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
