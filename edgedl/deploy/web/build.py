"""Puts the page together: the service's page, what answers it in a browser, ONNX Runtime Web, and the bundle."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from os import PathLike
from pathlib import Path
from typing import Any

from edgedl.deploy.web.document import NOTICE, page_html
from edgedl.deploy.web.parts import page_manifest
from exporters.targets.npm import web_engine
from runtime.bundle import Bundle
from runtime.errors import InputError, MissingExtraError
from runtime.manifest import Manifest

MOST_BYTES, MOST_PIXELS = 1 << 30, 1 << 26
"""Of what a visitor gives: a page bounds nothing but the browser's own memory."""

_MARK = "bundle/description.json"
"""A folder that holds this file is an older page, and may be replaced."""


@dataclass(frozen=True, slots=True)
class WebPage:
    """A page that was written.

    Attributes:
        folder: Where it lies.
        files: How many files it has.
        bytes: How long they are together.
    """

    folder: Path
    files: int
    bytes: int


def build_page(bundle: Bundle, folder: str | PathLike[str]) -> WebPage:
    """Writes a page that runs a bundle in the visitor's browser. Any server of static files can serve the folder.

    Args:
        bundle: Of a task that has a page, see `edgedl.deploy.web.parts`.
        folder: Where to write it: a new folder, an empty one, or an older page, which is replaced.

    Raises:
        InputError: there is no page for this bundle, or the folder holds something else.
        TargetError: ONNX Runtime Web cannot be fetched.
        CheckFailedError: the bundle does not give its recorded answers on this machine.
        MissingExtraError: the extra `serve` is not installed.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / _MARK).is_file())):
        raise InputError(f"{folder} exists and is no page that edgedl has written; give another folder")
    manifest = page_manifest(bundle)
    content = {
        **_page(),
        **_engine(),
        **_bundle(bundle, manifest),
    }
    content["sw.js"] = _service_worker(content)
    _write(folder, content)
    return WebPage(folder, len(content), sum(map(len, content.values())))


def _page() -> dict[str, bytes]:
    """The service's page, and beside it what answers it."""
    content = {f"static/{name}": data for name, data in _tree(files("service") / "static").items()}
    html = content.pop("static/index.html").decode()
    content["index.html"] = page_html(html).encode()
    own = _tree(files("edgedl.deploy.web") / "assets")
    content["static/key.js"] = own.pop("key.js")  # through which the page asks the service
    own.pop("sw.js")
    content["static/ort/LICENSE.txt"] = own.pop("onnxruntime-LICENSE.txt")
    content |= {f"static/local/{name}": data for name, data in own.items()}
    content["static/local/arrays.js"] = (files("exporters.targets") / "javascript" / "arrays.js").read_bytes()
    return content


def _engine() -> dict[str, bytes]:
    """ONNX Runtime Web."""
    return {f"static/ort/{name}": file.read_bytes() for name, file in web_engine().items()}


def _bundle(bundle: Bundle, manifest: Manifest) -> dict[str, bytes]:
    """The files of the bundle that the page reads, and what the service would say of it."""
    description, example = _asked(bundle, manifest)
    content = {f"bundle/{name}": bundle.read(name) for name in manifest.digests()}
    documents = {"manifest.json": manifest.to_json(), "description.json": description, "example.json": example}
    return content | {f"bundle/{name}": _json(document) for name, document in documents.items()}


def _asked(bundle: Bundle, manifest: Manifest) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the page asks the service when it opens, and the example, as the service itself answers here."""
    try:
        from service.app import create_app
    except ImportError as error:
        raise MissingExtraError(error.name or "flask", "serve") from error
    client = create_app([bundle]).test_client()
    description = client.get("/v1").get_json()
    (described,) = description["bundles"]
    described["models"] = {
        name: model | {"device": "this browser", "provider": "wasm", "threads": None}
        for name, model in described["models"].items()
        if name in manifest.models
    }
    described["options"] = {key: kind for key, kind in described["options"].items() if kind == "bool"} | (
        {"length": "int", "temperature": "float", "top_k": "int", "seed": "int"} if manifest.task == "chars" else {}
    )
    description["limits"] |= {"max_bytes": MOST_BYTES, "max_pixels": MOST_PIXELS}
    example = client.get(described["example"]).get_json() if described["example"] else {}
    return description | {"notice": NOTICE}, example


def _service_worker(content: Mapping[str, bytes]) -> bytes:
    """The part that keeps the page for use without a network, with the list of its files."""
    kept = ["./", *sorted(name for name in content if name != "index.html")]
    digest = hashlib.sha256()
    for name in sorted(content):
        digest.update(f"{name}\0{hashlib.sha256(content[name]).hexdigest()}\n".encode())
    text = (files("edgedl.deploy.web") / "assets" / "sw.js").read_text(encoding="utf-8")
    text = text.replace("@VERSION@", digest.hexdigest()[:16]).replace('"@FILES@"', json.dumps(kept))
    return text.encode()


def _write(folder: Path, content: Mapping[str, bytes]) -> None:
    """Writes beside and renames, so that an interruption leaves the whole of a page or none of it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex}") for _ in range(2))
    try:
        for name, data in content.items():
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _tree(folder: Traversable, prefix: str = "") -> dict[str, bytes]:
    content: dict[str, bytes] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            content |= _tree(entry, f"{prefix}{entry.name}/")
        else:
            content[prefix + entry.name] = entry.read_bytes()
    return content


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()
