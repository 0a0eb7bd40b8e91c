"""A folder for a site without a network: the bundle, every package that it needs there, and a bill of materials."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from edgedl.deploy.sbom import sbom
from edgedl.deploy.wheelhouse import Wheel
from runtime.bundle import Bundle, pack
from runtime.errors import InputError

SBOM, REQUIREMENTS = "sbom.cdx.json", "requirements.txt"


def write_wheelhouse(bundle: Bundle, wheels: Sequence[Wheel], folder: Path) -> int:
    """Writes the folder, whole or not at all; one that was written before is replaced.

    Args:
        bundle: The bundle.
        wheels: Of the platform that it goes to.
        folder: Where.

    Returns:
        The bytes of all files.

    Raises:
        InputError: Something else is there.
    """
    if folder.exists() and not (folder / SBOM).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder}: something that is no wheelhouse is there; nothing was written; choose another name"
        )
    document = sbom(bundle, wheels)
    making = folder.absolute().with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    old = making.with_name(f"{making.name}.old")
    try:
        making.mkdir()
        for wheel in wheels:
            shutil.copyfile(wheel.path, making / wheel.file)
        pack(bundle, making / f"{bundle.manifest.name}-{bundle.manifest.version}.edge")
        lines = [f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}" for wheel in wheels]
        (making / REQUIREMENTS).write_text("\n".join([*lines, ""]))
        (making / SBOM).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        if folder.exists():
            folder.rename(old)
        making.rename(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)  # the new one could not take its place
        shutil.rmtree(making, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return sum(path.stat().st_size for path in folder.iterdir())
